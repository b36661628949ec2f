// Encode over any bytes, the first of which chooses an added token to strew in: the ids have to be
// those of the text tokenised whole, with a cache that has seen other inputs and is too small.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "text/tokenizer.h"
#include "text/tokenizer_testing.h"

namespace {

using llmd::text::Tokenizer;
using llmd::text::TokenizerOptions;

std::shared_ptr<const Tokenizer> Load(const TokenizerOptions& options) {
  static const std::string json = llmd::text::SmallTokenizerJson({"\n\n", "x y"});
  return llmd::text::Tokenizer::Load({.tokenizer_json = json}, options).value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizer = Load({.cache_bytes = 64 << 10});
  static const auto twin = Load({.fast = false, .reuse = false});
  static const char* const kTokens[] = {"<|turn|>", "<|end|>", "\n\n", "x y", ""};
  if (size == 0) return 0;
  std::string text;
  // Long enough for several pieces.
  for (size_t i = 0; i < 1 + data[0] % 32; ++i) {
    text.append(reinterpret_cast<const char*>(data + 1), size - 1);
    text += kTokens[data[0] / 32 % std::size(kTokens)];
  }
  std::vector<uint32_t> ids;
  std::vector<uint32_t> wanted;
  const bool ok = tokenizer->Encode(text, true, ids).ok();
  LLMD_CHECK(ok == twin->Encode(text, true, wanted).ok(), "one engine fails");
  LLMD_CHECK(ids == wanted, "ids of pieces are not those of the whole");
  return 0;
}
