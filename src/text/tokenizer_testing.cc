#include "text/tokenizer_testing.h"

#include <array>
#include <cstdint>
#include <utility>

#include "base/strings.h"

namespace llmd::text {
namespace {

// Byte-level vocabularies write bytes as characters: printable ones as they are, the others from
// U+0100 on.
std::string ByteText(unsigned byte) {
  const auto printable = [](unsigned b) {
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  };
  unsigned code = byte;
  if (!printable(byte)) {
    code = 256;
    for (unsigned b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
}

constexpr std::array<std::pair<const char*, const char*>, 10> kMerges = {{{"h", "e"},
                                                                          {"t", "he"},
                                                                          {"\u0120", "the"},
                                                                          {"i", "n"},
                                                                          {"in", "g"},
                                                                          {"e", "r"},
                                                                          {"o", "n"},
                                                                          {"\u0120", "a"},
                                                                          {"\u010a", "\u010a"},
                                                                          {"l", "l"}}};

constexpr char kPattern[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                            R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace

const char kBeginPostProcessor[] = R"({"type": "TemplateProcessing",
  "single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}},
             {"Sequence": {"id": "A", "type_id": 0}}],
  "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
  "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [266], "tokens": ["<|begin|>"]}}})";

std::string SmallTokenizerJson(const std::vector<std::string>& more_tokens,
                               const std::string& post_processor) {
  std::string vocab;
  std::string merges;
  int id = 0;
  const auto add = [&](const std::string& token) {
    if (id > 0) vocab += ",";
    base::AppendJsonString(&vocab, token);
    vocab += ":" + std::to_string(id++);
  };
  for (unsigned byte = 0; byte < 256; ++byte) add(ByteText(byte));
  for (const auto& [left, right] : kMerges) {
    add(base::Concat(left, right));
    if (!merges.empty()) merges += ",";
    base::AppendJsonString(&merges, base::Concat(left, " ", right));
  }
  std::vector<std::string> tokens = {"<|begin|>", "<|turn|>", "<|end|>"};
  tokens.insert(tokens.end(), more_tokens.begin(), more_tokens.end());
  std::string added;
  for (const std::string& token : tokens) {
    if (!added.empty()) added += ",";
    added += R"({"id":)" + std::to_string(id++) + R"(,"content":)";
    base::AppendJsonString(&added, token);
    added += R"(,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,)"
             R"("special":true})";
  }
  std::string pattern;
  base::AppendJsonString(&pattern, kPattern);
  return base::Concat(
      R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)", added,
      R"(],"normalizer":null,"pre_tokenizer":{"type":"Sequence","pretokenizers":[)",
      R"({"type":"Split","pattern":{"Regex":)", pattern,
      R"(},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,)",
      R"("trim_offsets":true,"use_regex":false}]},"post_processor":)", post_processor,
      R"(,"decoder":null,"model":{"type":"BPE","dropout":null,"unk_token":null,)",
      R"("continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,)",
      R"("byte_fallback":false,"ignore_merges":false,"vocab":{)", vocab, R"(},"merges":[)", merges,
      "]}}");
}

std::string EnglishText(size_t bytes, unsigned seed) {
  static constexpr std::array kCommon = {
      "the",  "of",    "and",  "to",   "a",    "in",    "is",    "that",  "for",  "it",
      "as",   "was",   "with", "be",   "by",   "on",    "not",   "his",   "from", "are",
      "this", "which", "have", "they", "were", "their", "there", "would", "when", "each"};
  static constexpr std::array kBefore = {"", "", "", "", "re", "un", "pre", "over", "inter", "sub"};
  static constexpr std::array kStems = {
      "rout",  "serv",  "cach",   "comput", "learn", "form",   "act",  "mov",    "port", "struct",
      "press", "scrib", "direct", "measur", "tract", "light",  "stat", "friend", "mark", "connect",
      "play",  "build", "point",  "cover",  "turn",  "govern", "sign", "vis",    "test", "model"};
  static constexpr std::array kAfter = {"e",  "es", "ed",   "ing",  "er",   "ers", "ion", "ions",
                                        "al", "ly", "ment", "able", "ness", "ive", "or",  "ings"};
  static constexpr std::array kSyllables = {"ka",  "lo", "mir", "tan", "vel", "dor", "shi", "ran",
                                            "bec", "ul", "zo",  "pri", "ost", "ven", "gar", "wy"};
  uint64_t state = seed * 2654435761u + 12345;
  uint64_t draw = 0;
  const auto next = [&](size_t end) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    draw = state >> 33;
    return draw % end;
  };
  std::string text;
  while (text.size() < bytes) {
    // Half the words are a few common ones, as in English; one in 40 is a name.
    if (next(2) == 0) {
      text += kCommon[next(kCommon.size())];
    } else if (next(20) == 0) {
      std::string name =
          base::Concat(kSyllables[next(16)], kSyllables[next(16)], kSyllables[next(16)]);
      name[0] = static_cast<char>(name[0] - 'a' + 'A');
      text += name;
    } else {
      text += base::Concat(kBefore[next(kBefore.size())], kStems[next(kStems.size())],
                           kAfter[next(kAfter.size())]);
    }
    switch (next(24)) {
      case 0:
        text += ". ";
        break;
      case 1:
        text += ", ";
        break;
      case 2:
        text += next(3) == 0 ? ".\n\n" : " \"";
        break;
      case 3:
        text += base::Concat(" ", std::to_string(next(5000)), " ");
        break;
      default:
        text += " ";
    }
  }
  text.resize(bytes);
  return text;
}

}  // namespace llmd::text
