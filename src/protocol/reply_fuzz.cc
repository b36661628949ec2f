// What is read from a reply does not depend on the cut, and MayHoldUsage rejects no payload with
// usage (an escaped key apart, which no server writes). The same bytes are read as the gRPC replies
// of every API that has them. Input: a cut byte, then the reply.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "protocol/grpc_reply.h"
#include "protocol/usage.h"

namespace {

using namespace llmd::protocol;

bool Same(const Usage& a, const Usage& b) {
  return a.present == b.present && a.has_cached == b.has_cached &&
         a.prompt_tokens == b.prompt_tokens && a.completion_tokens == b.completion_tokens &&
         a.total_tokens == b.total_tokens && a.cached_tokens == b.cached_tokens;
}
bool Same(const ReplyFields& a, const ReplyFields& b) {
  return Same(a.usage, b.usage) && a.model_begin == b.model_begin && a.model_end == b.model_end;
}

void CheckGrpc(Api api, std::string_view reply, size_t cut) {
  GrpcReplyScanner whole(api), parts(api);
  whole.Feed(reply);
  for (const std::string_view part : {reply.substr(0, cut), reply.substr(cut)}) {
    const std::vector<char> chunk(part.begin(), part.end());
    parts.Feed({chunk.data(), chunk.size()});
  }
  // Of broken JSON inside, one way may have read more.
  const bool json = InfoOf(api).reply == ReplyFormat::kVertexGrpc;
  LLMD_CHECK(json || Same(whole.usage(), parts.usage()), "gRPC usage depends on the cut");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::string_view reply(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = data[0] * reply.size() / 256;
  for (int i = 0; i < kApiCount; ++i) {
    if (IsGrpc(InfoOf(static_cast<Api>(i)).reply)) CheckGrpc(static_cast<Api>(i), reply, cut);
  }
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
  const bool may = MayHoldUsage(reply) || MayHoldUsage(reply, ReplyFormat::kSglang);
  LLMD_CHECK(!whole.usage.present || escaped_key || may, "usage was overlooked");
  uint64_t begin, end;
  if (FindModel(reply, &begin, &end)) {
    LLMD_CHECK(begin < end && end <= reply.size() && reply[begin] == '"' && reply[end - 1] == '"',
               "the model is not at its place");
  }
  return 0;
}
