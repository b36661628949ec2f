// The model of an upload does not depend on the cut, and lies where the scanner says.
// Input: a cut byte, then the body; the boundary is always "b".
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "protocol/multipart.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using llmd::protocol::MultipartModelScanner;
  if (size < 1) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = data[0] * body.size() / 256;
  MultipartModelScanner whole("b");
  whole.Feed(body);
  MultipartModelScanner parts("b");
  for (const std::string_view part : {body.substr(0, cut), body.substr(cut)}) {
    const std::vector<char> chunk(part.begin(), part.end());
    parts.Feed({chunk.data(), chunk.size()});
  }
  LLMD_CHECK(parts.state() == whole.state(), "the state depends on the cut");
  if (whole.state() == MultipartModelScanner::State::kFound) {
    LLMD_CHECK(parts.model() == whole.model(), "the model depends on the cut");
    LLMD_CHECK(parts.model_begin() == whole.model_begin(), "its place depends on the cut");
    const uint64_t model_size = whole.model_end() - whole.model_begin();
    LLMD_CHECK(body.substr(whole.model_begin(), model_size) == whole.model(),
               "the model is not at its place");
  }
  (void)llmd::protocol::MultipartBoundary(body);
  return 0;
}
