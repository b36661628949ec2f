// Why a text is not JSON, in the words and at the place that Python's json module would give: vLLM
// hands those to its clients. For error replies only; good documents are read elsewhere.
//
// Pure and thread-safe. Depth of nesting is limited to kDepthMax: deeper is "Expecting value".
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace llmd::sim {

struct JsonError {
  size_t position;           // in characters, as Python counts
  std::string_view message;  // "Expecting ',' delimiter" and so on
};

// std::nullopt if the text is JSON by Python's rules (NaN and Infinity included).
std::optional<JsonError> FindJsonError(std::string_view text);

}  // namespace llmd::sim
