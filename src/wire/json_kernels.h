// The byte kernels under the JSON and SSE readers, one set per instruction set. Internal to wire/.
// Thread-safe: pure functions over the state they are handed.
#pragma once

#include <string_view>

#include "wire/json_scan.h"

namespace llmd::wire::internal {

// All read only [p, end) and return a position in it, `end` meaning "not here".
struct JsonKernels {
  std::string_view name;
  // `p` is inside a string: its closing quote. Sets bad_control when a raw control character comes
  // before that; carries `escaped` over the end.
  const char* (*string_end)(const char* p, const char* end, JsonPassage* passage);
  // Behind the bracket that brings the nesting down to depth_floor. On a fault `error` is set and
  // the position is that of the bracket.
  const char* (*container_end)(const char* p, const char* end, JsonPassage* passage);
  // `p` is inside an array of whole numbers: its closing bracket. Counts the numbers; on a fault
  // `error` is set and the position is that of the byte.
  const char* (*numbers_end)(const char* p, const char* end, JsonPassage* passage);
  // The first CR or LF.
  const char* (*line_end)(const char* p, const char* end);
  // The first occurrence of `needle`, which has at least 2 bytes.
  const char* (*find)(const char* p, const char* end, std::string_view needle);
};

extern const JsonKernels kSse2JsonKernels;
extern const JsonKernels kAvx2JsonKernels;
extern const JsonKernels kAvx512JsonKernels;

}  // namespace llmd::wire::internal
