// Any bytes compile or are refused; what compiles can be evaluated.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "text/cel.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using llmd::text::CelExpression;
  constexpr std::string_view kPaths[] = {"usage.prompt_tokens", "usage.completion_tokens",
                                         "usage.prompt_tokens_details.cached_tokens"};
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto expression = CelExpression::Compile(source, kPaths);
  if (!expression) return 0;
  const std::optional<int64_t> inputs[] = {10, INT64_MAX, std::nullopt};
  (void)expression->Evaluate(inputs);
  return 0;
}
