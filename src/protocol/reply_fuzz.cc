// What is read from a reply does not depend on the cut, and MayHoldUsage rejects no payload with
// usage (an escaped key apart, which no server writes). Input: a cut byte, then the reply.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "protocol/usage.h"

namespace {

bool Same(const llmd::protocol::ReplyFields& a, const llmd::protocol::ReplyFields& b) {
  return a.usage.present == b.usage.present && a.usage.has_cached == b.usage.has_cached &&
         a.usage.prompt_tokens == b.usage.prompt_tokens &&
         a.usage.completion_tokens == b.usage.completion_tokens &&
         a.usage.total_tokens == b.usage.total_tokens &&
         a.usage.cached_tokens == b.usage.cached_tokens && a.model_begin == b.model_begin &&
         a.model_end == b.model_end;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace llmd::protocol;
  if (size < 1) return 0;
  const std::string_view reply(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = data[0] * reply.size() / 256;
  ReplyFields whole;
  ScanPayload(reply, &whole);
  ReplyScanner scanner;
  for (const std::string_view part : {reply.substr(0, cut), reply.substr(cut)}) {
    const std::vector<char> chunk(part.begin(), part.end());
    scanner.Feed({chunk.data(), chunk.size()});
  }
  // A broken reply may have been read further in one of the two ways.
  LLMD_CHECK(scanner.done() || Same(whole, scanner.fields()), "the fields depend on the cut");
  const bool escaped_key = reply.find("\\u") != reply.npos;
  LLMD_CHECK(!whole.usage.present || escaped_key || MayHoldUsage(reply), "usage was overlooked");
  uint64_t begin, end;
  if (FindModel(reply, &begin, &end)) {
    LLMD_CHECK(begin < end && end <= reply.size() && reply[begin] == '"' && reply[end - 1] == '"',
               "the model is not at its place");
  }
  return 0;
}
