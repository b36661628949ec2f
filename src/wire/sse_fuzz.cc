// The events of a stream are the same for any cutting, and a stated place is where the data is.
// Input: number of cuts, that many cut bytes, the stream.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "wire/sse.h"

namespace {

std::vector<std::string> Events(std::string_view stream, const std::vector<size_t>& cuts) {
  llmd::wire::SseParser parser;
  std::vector<std::string> events;
  size_t begin = 0;
  for (size_t i = 0; i <= cuts.size(); ++i) {
    const size_t end = i < cuts.size() ? cuts[i] : stream.size();
    const std::vector<char> chunk(stream.begin() + begin, stream.begin() + end);
    parser.Feed({chunk.data(), chunk.size()});
    for (llmd::wire::SseEvent event; parser.Next(&event);) {
      events.push_back(std::string(event.name) + "|" + std::string(event.data));
      LLMD_CHECK(!event.contiguous ||
                     stream.substr(event.data_begin, event.data.size()) == event.data,
                 "the data is not at its place");
    }
    LLMD_CHECK(parser.pending_bytes() <= end, "more is pending than was fed");
    begin = end;
  }
  return events;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Under the tail limit, where cutting must not matter.
  if (size < 1 || size > llmd::wire::SseParser::kTailBytesMax) return 0;
  const size_t cut_count = std::min<size_t>(data[0] % 16, size - 1);
  const std::string_view stream(reinterpret_cast<const char*>(data) + 1 + cut_count,
                                size - 1 - cut_count);
  std::vector<size_t> cuts;
  for (size_t i = 0; i < cut_count; ++i) cuts.push_back(data[1 + i] * stream.size() / 256);
  std::sort(cuts.begin(), cuts.end());
  LLMD_CHECK(Events(stream, cuts) == Events(stream, {}), "the events depend on the cut");
  return 0;
}
