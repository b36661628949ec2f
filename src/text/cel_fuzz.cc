// Any bytes compile or are refused; what compiles can be evaluated; nothing panics.
//
// The crate is not instrumented, so after a leading even byte the others choose productions of the
// grammar: mutations then reach the checker and the evaluation, which random text hardly ever does.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/status.h"
#include "text/cel.h"

namespace {

constexpr std::string_view kLeaves[] = {"usage",
                                        "usage.prompt_tokens",
                                        "usage.prompt_tokens_details.cached_tokens",
                                        "usage.other",
                                        "has(usage.other)",
                                        "n",
                                        "0",
                                        "1",
                                        "9223372036854775807",
                                        "-9223372036854775808",
                                        "0x7f",
                                        "2u",
                                        "0.5",
                                        "1e308",
                                        "true",
                                        "false",
                                        "null",
                                        "'text'",
                                        "r'\\n'",
                                        "b'\\xff'",
                                        "'\\u00e4'",
                                        "[]",
                                        "{}",
                                        "int",
                                        "string",
                                        "[1, 2.0, 'x']",
                                        "{'a': 1}",
                                        "\"open"};
constexpr std::string_view kOperators[] = {" + ", " - ", " * ",  " / ", " % ",  " == ", " != ",
                                           " < ", " >= ", " && ", " || ", " in "};
constexpr std::string_view kCalls[] = {"int(", "uint(", "double(", "string(", "bytes(", "bool(",
                                       "type(", "dyn(", "size(", "!(", "-(", "(", "has(", "f("};
constexpr std::string_view kMethods[] = {".size()",         ".contains('t')",     ".a",
                                         "[0]",             "['prompt_tokens']",  ".startsWith(n)",
                                         ".map(n, n)",      ".exists(n, n == 1)", ".all(m, n)",
                                         ".filter(n, true)"};

// One expression out of the bytes; leaves when they or the depth run out.
class Grammar {
 public:
  explicit Grammar(std::string_view bytes) : bytes_(bytes) {}

  std::string Expression(int depth) {
    if (bytes_.empty() || depth == 0) return std::string(Pick(kLeaves));
    switch (Next() % 8) {
      case 0:
      case 1:
        return Expression(depth - 1) + std::string(Pick(kOperators)) + Expression(depth - 1);
      case 2:
        return std::string(Pick(kCalls)) + Expression(depth - 1) + ")";
      case 3:
        return "(" + Expression(depth - 1) + ")" + std::string(Pick(kMethods));
      case 4:
        return Expression(depth - 1) + " ? " + Expression(depth - 1) + " : " +
               Expression(depth - 1);
      case 5:
        return "[" + Expression(depth - 1) + ", " + Expression(depth - 1) + "]";
      case 6:
        return Expression(depth - 1) + ".map(n, " + Expression(depth - 1) + ")";
      default:
        return std::string(Pick(kLeaves));
    }
  }

 private:
  uint8_t Next() {
    if (bytes_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(bytes_.front());
    bytes_.remove_prefix(1);
    return byte;
  }
  template <size_t kSize>
  std::string_view Pick(const std::string_view (&table)[kSize]) {
    return table[Next() % kSize];
  }

  std::string_view bytes_;
};

void CheckNoPanic(const llmd::base::Status& status) {
  LLMD_CHECK(status.code() != llmd::base::StatusCode::kInternal, status.message());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using llmd::text::CelExpression;
  constexpr std::string_view kPaths[] = {"usage.prompt_tokens", "usage.completion_tokens",
                                         "usage.prompt_tokens_details.cached_tokens"};
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const bool structured = !bytes.empty() && bytes.front() % 2 == 0;
  const std::string source =
      structured ? Grammar(bytes.substr(1)).Expression(12) : std::string(bytes);
  const auto expression = CelExpression::Compile(source, kPaths);
  if (!expression) {
    CheckNoPanic(expression.error());
    return 0;
  }
  const std::optional<int64_t> inputs[] = {10, INT64_MAX, std::nullopt};
  const auto value = expression->Evaluate(inputs);
  if (!value) CheckNoPanic(value.error());
  return 0;
}
