#include "text/cel.h"

#include <array>
#include <utility>
#include <vector>

#include "base/check.h"
#include "text/border.h"

namespace llmd::text {
namespace {

// The preconditions of Compile: names of the code, never of a user.
void CheckPaths(std::span<const std::string_view> paths) {
  LLMD_CHECK(paths.size() <= kCelVariablesMax, "too many paths");
  for (size_t i = 0; i < paths.size(); ++i) {
    LLMD_CHECK(!paths[i].empty(), "an empty path");
    for (size_t j = 0; j < paths.size(); ++j) {
      const bool starts = i != j && paths[j].starts_with(paths[i]) &&
                          (paths[j].size() == paths[i].size() || paths[j][paths[i].size()] == '.');
      LLMD_CHECK(!starts, "a path is there twice or is the beginning of another");
    }
  }
}

}  // namespace

void CelExpression::Free::operator()(LlmdCelProgram* program) const { llmd_cel_free(program); }

base::Result<CelExpression> CelExpression::Compile(std::string_view source,
                                                   std::span<const std::string_view> paths) {
  CheckPaths(paths);
  std::vector<LlmdTextSlice> slices;
  slices.reserve(paths.size());
  for (const std::string_view path : paths) slices.push_back(ToSlice(path));
  const LlmdCelLimits limits{
      .source_bytes = kCelSourceBytesMax, .depth = kCelDepthMax, .cost = kCelCostMax};
  LlmdCelProgram* program = nullptr;
  ErrorText error;
  const LlmdTextStatus status = llmd_cel_compile(ToSlice(source), slices.data(), slices.size(),
                                                 &limits, &program, error.out());
  if (status != LLMD_TEXT_OK) return std::unexpected(ToStatus(status, error));
  return CelExpression(program, paths.size());
}

base::Result<CelValue> CelExpression::Evaluate(
    std::span<const std::optional<int64_t>> inputs) const {
  LLMD_CHECK(inputs.size() == variables_, "one input for each path");
  std::array<LlmdCelInput, kCelVariablesMax> fields;
  for (size_t i = 0; i < inputs.size(); ++i) {
    fields[i] = {.value = inputs[i].value_or(0), .present = inputs[i].has_value()};
  }
  LlmdCelValue value;
  ErrorText error;
  const LlmdTextStatus status =
      llmd_cel_evaluate(program_.get(), fields.data(), inputs.size(), &value, error.out());
  if (status != LLMD_TEXT_OK) return std::unexpected(ToStatus(status, error));
  switch (value.kind) {
    case LLMD_CEL_INT:
      return value.integer;
    case LLMD_CEL_DOUBLE:
      return value.number;
    default:
      return value.integer != 0;
  }
}

}  // namespace llmd::text
