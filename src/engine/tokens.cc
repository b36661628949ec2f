#include "engine/tokens.h"

#include <array>

namespace llmd::engine {
namespace {

enum class Kind : uint8_t { kOther, kSpace, kWord, kContinuation };

constexpr std::array<Kind, 256> MakeKinds() {
  std::array<Kind, 256> kinds{};
  for (int c = 'a'; c <= 'z'; ++c) kinds[c] = Kind::kWord;
  for (int c = 'A'; c <= 'Z'; ++c) kinds[c] = Kind::kWord;
  for (int c = '0'; c <= '9'; ++c) kinds[c] = Kind::kWord;
  for (int c : {' ', '\t', '\n', '\f', '\r'}) kinds[c] = Kind::kSpace;
  for (int c = 0x80; c < 0xC0; ++c) kinds[c] = Kind::kContinuation;
  return kinds;
}
constexpr std::array<Kind, 256> kKinds = MakeKinds();

Kind KindOf(char c) { return kKinds[static_cast<unsigned char>(c)]; }

constexpr uint32_t kFnvBasis = 2166136261u;
constexpr uint32_t kFnvPrime = 16777619u;

uint32_t Fnv(uint32_t hash, char c) {
  return (hash ^ static_cast<unsigned char>(c)) * kFnvPrime;
}

const char* SkipSpace(const char* p, const char* end) {
  while (p != end && KindOf(*p) == Kind::kSpace) ++p;
  return p;
}

// Scans one token that starts at p != end with a byte that is no white space; returns its end and
// folds its bytes into `hash`.
const char* ScanToken(const char* p, const char* end, uint32_t* hash) {
  uint32_t h = Fnv(kFnvBasis, *p);
  const Kind first = KindOf(*p++);
  if (first == Kind::kWord) {
    for (; p != end && (KindOf(*p) == Kind::kWord || *p == '_'); ++p) h = Fnv(h, *p);
  } else {
    for (; p != end && KindOf(*p) == Kind::kContinuation; ++p) h = Fnv(h, *p);
  }
  for (; p != end && KindOf(*p) == Kind::kSpace; ++p) h = Fnv(h, *p);
  *hash = h;
  return p;
}

template <class Visit>
void ForEachToken(std::string_view text, Visit visit) {
  const char* end = text.data() + text.size();
  const char* p = SkipSpace(text.data(), end);
  while (p != end) {
    uint32_t hash;
    p = ScanToken(p, end, &hash);
    visit(hash);
  }
}

}  // namespace

size_t NextTokenBytes(std::string_view text) {
  const char* end = text.data() + text.size();
  const char* p = SkipSpace(text.data(), end);
  uint32_t hash;
  if (p != end) p = ScanToken(p, end, &hash);
  return static_cast<size_t>(p - text.data());
}

Token TokenId(std::string_view piece) {
  uint32_t hash = kFnvBasis;
  for (char c : piece) hash = Fnv(hash, c);
  return hash;
}

void Tokenize(std::string_view text, std::vector<Token>* out) {
  ForEachToken(text, [out](uint32_t id) { out->push_back(id); });
}

size_t CountTokens(std::string_view text) {
  size_t count = 0;
  ForEachToken(text, [&count](uint32_t) { ++count; });
  return count;
}

}  // namespace llmd::engine
