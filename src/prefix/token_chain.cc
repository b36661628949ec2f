#include "prefix/token_chain.h"

#include <algorithm>
#include <bit>
#include <cstring>

#define XXH_STATIC_LINKING_ONLY  // the streaming state on the stack
#include <xxhash.h>

#include "base/hash.h"
#include "base/random.h"

namespace llmd::prefix {
namespace {

using Product = unsigned __int128;

uint64_t Fold(uint64_t a, uint64_t b) {
  const Product product = static_cast<Product>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// 0 means "no key" everywhere; a hash that comes out as 0 (once in 2^64) is moved aside.
BlockKey NotZero(uint64_t hash) { return hash == 0 ? 1 : hash; }

uint64_t LoadPair(const uint32_t* tokens) {
  uint64_t pair;
  std::memcpy(&pair, tokens, sizeof(pair));
  return pair;
}

// --- FNV-1a over canonical CBOR ------------------------------------------------------------------

class CborFnv {
 public:
  void Byte(uint8_t byte) { hash_ = (hash_ ^ byte) * 0x100000001b3u; }
  void Bytes(std::string_view bytes) {
    for (const char c : bytes) Byte(static_cast<uint8_t>(c));
  }
  // Head of a data item: major type and value in the shortest form (RFC 8949, 4.2.1).
  void Head(uint8_t major, uint64_t value) {
    const auto type = static_cast<uint8_t>(major << 5);
    if (value < 24) {
      Byte(static_cast<uint8_t>(type | value));
    } else if (value <= UINT8_MAX) {
      Byte(type | 24);
      Byte(static_cast<uint8_t>(value));
    } else if (value <= UINT16_MAX) {
      Byte(type | 25);
      BigEndian<2>(value);
    } else if (value <= UINT32_MAX) {
      Byte(type | 26);
      BigEndian<4>(value);
    } else {
      Byte(type | 27);
      BigEndian<8>(value);
    }
  }
  void Uint(uint64_t value) { Head(0, value); }
  void Text(std::string_view text) {
    Head(3, text.size());
    Bytes(text);
  }
  void Array(size_t count) { Head(4, count); }
  void Map(size_t pairs) { Head(5, pairs); }
  void Null() { Byte(0xf6); }
  uint64_t hash() const { return hash_; }

 private:
  template <int kBytes>
  void BigEndian(uint64_t value) {
    for (int shift = 8 * (kBytes - 1); shift >= 0; shift -= 8) {
      Byte(static_cast<uint8_t>(value >> shift));
    }
  }

  uint64_t hash_ = 0xcbf29ce484222325u;
};

uint64_t HashCborFnv(BlockKey parent, std::span<const uint32_t> tokens,
                     std::span<const BlockExtra> extras) {
  CborFnv cbor;
  cbor.Array(3);
  cbor.Uint(parent);
  cbor.Array(tokens.size());
  for (const uint32_t token : tokens) cbor.Uint(token);
  if (extras.empty()) {
    cbor.Null();
  } else {
    cbor.Array(extras.size());
    for (const BlockExtra& extra : extras) {
      cbor.Map(1);
      cbor.Text("Hash");
      cbor.Text(extra.text);
    }
  }
  return cbor.hash();
}

// --- XXH64 ---------------------------------------------------------------------------------------

uint64_t HashXxh64(BlockKey parent, std::span<const uint32_t> tokens,
                   std::span<const BlockExtra> extras) {
  static_assert(std::endian::native == std::endian::little, "keys are hashed little endian");
  // Blocks up to 126 tokens without extras go through in one piece, which is half the time.
  char flat[512];
  if (extras.empty() && sizeof(parent) + tokens.size_bytes() <= sizeof(flat)) {
    std::memcpy(flat, &parent, sizeof(parent));
    std::memcpy(flat + sizeof(parent), tokens.data(), tokens.size_bytes());
    return XXH64(flat, sizeof(parent) + tokens.size_bytes(), 0);
  }
  XXH64_state_t state;
  XXH64_reset(&state, 0);
  XXH64_update(&state, &parent, sizeof(parent));
  if (!tokens.empty()) XXH64_update(&state, tokens.data(), tokens.size_bytes());
  for (const BlockExtra& extra : extras) {
    const uint64_t length = extra.text.size();
    XXH64_update(&state, &length, sizeof(length));
    if (length != 0) XXH64_update(&state, extra.text.data(), length);
  }
  return XXH64_digest(&state);
}

// Extras of one block out of an ordered list; `next` moves behind them.
std::span<const BlockExtra> ExtrasOf(std::span<const BlockExtra> extras, size_t block,
                                     size_t* next) {
  while (*next < extras.size() && extras[*next].block < block) ++*next;
  const size_t begin = *next;
  while (*next < extras.size() && extras[*next].block == block) ++*next;
  return extras.subspan(begin, *next - begin);
}

}  // namespace

std::optional<ChainKind> ParseChainKind(std::string_view name) {
  if (name == "own") return ChainKind::kOwn;
  if (name == "cbor-fnv") return ChainKind::kCborFnv;
  if (name == "xxh64") return ChainKind::kXxh64;
  return std::nullopt;
}

std::string_view ChainKindName(ChainKind kind) {
  switch (kind) {
    case ChainKind::kOwn: return "own";
    case ChainKind::kCborFnv: return "cbor-fnv";
    case ChainKind::kXxh64: return "xxh64";
  }
  return "own";
}

TokenChain::TokenChain(ChainKind kind, std::string_view seed) : kind_(kind) {
  if (kind == ChainKind::kCborFnv) {
    CborFnv fnv;
    fnv.Bytes(seed);
    init_ = fnv.hash();
    return;
  }
  init_ = base::XxHash64(seed, 0);
  if (kind == ChainKind::kXxh64) return;
  // The whole seed text goes into every constant, so that a seed of more than 64 bits is worth it.
  for (size_t i = 0; i < secrets_.size(); ++i) secrets_[i] = base::XxHash64(seed, ~i);
}

BlockKey TokenChain::Root(std::string_view model) const {
  switch (kind_) {
    case ChainKind::kOwn:
      return NotZero(
          Fold(base::XxHash64(model, init_) ^ secrets_[kLinkTokens / 2], secrets_.back() | 1));
    case ChainKind::kCborFnv: {
      CborFnv cbor;
      cbor.Array(3);
      cbor.Uint(init_);
      cbor.Null();
      cbor.Text(model);
      return NotZero(cbor.hash());
    }
    case ChainKind::kXxh64: {
      const BlockExtra extra{.text = model};
      return NotZero(HashXxh64(init_, {}, {&extra, 1}));
    }
  }
  return 1;
}

uint64_t TokenChain::OwnExtras(std::span<const BlockExtra> extras) const {
  uint64_t sum = 0;
  for (size_t i = 0; i < std::min(extras.size(), kExtrasPerBlockMax); ++i) {
    const std::string_view text = extras[i].text;
    const bool seen = std::any_of(extras.begin(), extras.begin() + static_cast<ptrdiff_t>(i),
                                  [&](const BlockExtra& e) { return e.text == text; });
    if (!seen) sum += Fold(base::XxHash64(text, init_) ^ secrets_[kLinkTokens / 2 + 1],
                           secrets_[kLinkTokens / 2 + 2] | 1);
  }
  return sum;
}

size_t TokenChain::ExtendOwn(BlockKey parent, std::span<const uint32_t> tokens,
                             size_t block_tokens, std::span<const BlockExtra> extras,
                             std::span<BlockKey> out) const {
  const size_t count = std::min(out.size(), tokens.size() / block_tokens);
  const Secrets secrets = secrets_;
  uint64_t state = parent;
  size_t next_extra = 0;
  // One link: NH of up to 16 tokens (sums of token pairs and secrets, multiplied two by two, all
  // products added), then the multiplication that the chain waits for. The sum does not depend on
  // `state`, so the processor works on several links at once.
  const auto link = [&secrets](uint64_t state_in, const uint32_t* t, uint64_t extra) {
    Product sum = 0;
    for (size_t i = 0; i < kLinkTokens / 4; ++i) {
      sum += static_cast<Product>(LoadPair(t + 4 * i) + secrets[2 * i]) *
             (LoadPair(t + 4 * i + 2) + secrets[2 * i + 1]);
    }
    return Fold(state_in + static_cast<uint64_t>(sum) + extra,
                static_cast<uint64_t>(sum >> 64) ^ secrets.back());
  };
  const uint32_t* at = tokens.data();
  for (size_t block = 0; block < count; ++block) {
    uint64_t extra = 0;
    if (next_extra < extras.size()) [[unlikely]] {
      extra = OwnExtras(ExtrasOf(extras, block, &next_extra));
    }
    size_t left = block_tokens;
    for (; left >= kLinkTokens; left -= kLinkTokens, at += kLinkTokens) {
      state = link(state, at, extra);
      extra = 0;
    }
    if (left > 0) {
      uint32_t padded[kLinkTokens] = {};
      std::memcpy(padded, at, left * sizeof(*at));
      state = link(state, padded, extra);
      at += left;
    }
    state = NotZero(state);
    out[block] = state;
  }
  return count;
}

size_t TokenChain::Extend(BlockKey parent, std::span<const uint32_t> tokens, size_t block_tokens,
                          std::span<const BlockExtra> extras, std::span<BlockKey> out) const {
  if (kind_ == ChainKind::kOwn) return ExtendOwn(parent, tokens, block_tokens, extras, out);
  const size_t count = std::min(out.size(), tokens.size() / block_tokens);
  size_t next_extra = 0;
  for (size_t block = 0; block < count; ++block) {
    const auto content = tokens.subspan(block * block_tokens, block_tokens);
    const auto of_block = ExtrasOf(extras, block, &next_extra);
    parent = NotZero(kind_ == ChainKind::kCborFnv ? HashCborFnv(parent, content, of_block)
                                                  : HashXxh64(parent, content, of_block));
    out[block] = parent;
  }
  return count;
}

std::span<const BlockExtra> RequestExtras(std::span<const PlacedItem> items,
                                          std::string_view cache_salt, uint32_t block_tokens,
                                          uint32_t blocks, base::Arena* arena) {
  const auto for_each = [&](auto&& visit) {
    size_t first = 0;  // items before it end before the block
    for (uint32_t block = 0; block < blocks; ++block) {
      const uint64_t begin = uint64_t{block} * block_tokens;
      const auto is_behind = [&](const PlacedItem& item) {
        return uint64_t{item.offset} + item.length <= begin;
      };
      while (first < items.size() && is_behind(items[first])) ++first;
      for (size_t i = first; i < items.size() && items[i].offset < begin + block_tokens; ++i) {
        if (!is_behind(items[i])) visit(BlockExtra{block, items[i].identifier});
      }
      if (block == 0 && !cache_salt.empty()) visit(BlockExtra{0, cache_salt});
      if (first == items.size()) break;
    }
  };
  size_t count = 0;
  for_each([&](const BlockExtra&) { ++count; });
  const std::span<BlockExtra> extras = arena->NewSpan<BlockExtra>(count);
  size_t next = 0;
  for_each([&](const BlockExtra& extra) { extras[next++] = extra; });
  return extras;
}

}  // namespace llmd::prefix
