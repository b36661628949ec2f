#include "engine/wire_hash.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include <algorithm>

#include "base/check.h"
#include "base/random.h"

namespace llmd::engine {
namespace {

enum Major : uint8_t { kUnsigned = 0, kBytes = 2, kText = 3, kArray = 4 };
constexpr char kCborNull = '\xf6';

// RFC 8949: a major type and its number in the shortest form, which is the canonical one.
void AppendCborHead(Major major, uint64_t n, std::string* out) {
  const int type = major << 5;
  if (n < 24) {
    out->push_back(static_cast<char>(type | static_cast<int>(n)));
    return;
  }
  const int size = n <= 0xff ? 1 : n <= 0xffff ? 2 : n <= 0xffffffff ? 4 : 8;
  out->push_back(static_cast<char>(type | (size == 1 ? 24 : size == 2 ? 25 : size == 4 ? 26 : 27)));
  for (int i = size; i-- > 0;) out->push_back(static_cast<char>(n >> (8 * i)));
}

void AppendCborText(std::string_view text, std::string* out) {
  AppendCborHead(kText, text.size(), out);
  out->append(text);
}

}  // namespace

std::optional<WireHashKind> ParseWireHashKind(std::string_view name) {
  if (name == "sha256_cbor") return WireHashKind::kSha256Cbor;
  if (name == "xxhash_cbor") return WireHashKind::kXxhashCbor;
  return std::nullopt;
}

struct WireHasher::Impl {
  // Fetched once: looking SHA-256 up by name costs more than the hash.
  EVP_MD* sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  EVP_MD_CTX* context = EVP_MD_CTX_new();

  ~Impl() {
    EVP_MD_CTX_free(context);
    EVP_MD_free(sha256);
  }

  Digest Hash(WireHashKind kind, std::string_view bytes) const {
    Digest digest{};
    if (kind == WireHashKind::kXxhashCbor) {
      XXH128_canonical_t canonical;
      XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
      std::copy(std::begin(canonical.digest), std::end(canonical.digest), digest.begin());
      return digest;
    }
    const bool done =
        EVP_DigestInit_ex2(context, sha256, nullptr) == 1 &&
        EVP_DigestUpdate(context, bytes.data(), bytes.size()) == 1 &&
        EVP_DigestFinal_ex(context, reinterpret_cast<unsigned char*>(digest.data()), nullptr) == 1;
    LLMD_CHECK(done, "OpenSSL's SHA-256 failed");
    return digest;
  }
};

WireHasher::WireHasher(WireHashKind kind, const std::optional<std::string>& seed, uint64_t random)
    : kind_(kind), impl_(std::make_unique<Impl>()) {
  if (seed) {
    AppendCborText(*seed, &scratch_);
    root_ = impl_->Hash(kind, scratch_);
    return;
  }
  base::Random draw(random);
  for (size_t i = 0; i < digest_bytes(); ++i) root_[i] = static_cast<char>(draw.Next());
}

WireHasher::~WireHasher() = default;

size_t WireHasher::digest_bytes() const { return kind_ == WireHashKind::kSha256Cbor ? 32 : 16; }

Digest WireHasher::Chain(const Digest& parent, std::span<const Token> block,
                         std::string_view salt) {
  scratch_.clear();
  AppendCborHead(kArray, 3, &scratch_);
  AppendCborHead(kBytes, digest_bytes(), &scratch_);
  scratch_.append(parent.data(), digest_bytes());
  AppendCborHead(kArray, block.size(), &scratch_);
  for (const Token token : block) AppendCborHead(kUnsigned, token, &scratch_);
  if (salt.empty()) {
    scratch_.push_back(kCborNull);
  } else {
    AppendCborHead(kArray, 1, &scratch_);
    AppendCborHead(kArray, 2, &scratch_);
    AppendCborText("cache_salt", &scratch_);
    AppendCborText(salt, &scratch_);
  }
  return impl_->Hash(kind_, scratch_);
}

uint64_t WireHasher::KeyOf(const Digest& digest) const {
  uint64_t key = 0;
  for (size_t i = digest_bytes() - 8; i < digest_bytes(); ++i) {
    key = key << 8 | static_cast<uint8_t>(digest[i]);
  }
  return key;
}

}  // namespace llmd::engine
