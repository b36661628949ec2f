// What the two ends of the ext_proc codec share. Internal to wire/.
// Field numbers: the trimmed protos in conformance/protos/envoy.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/status.h"
#include "wire/ext_proc.h"
#include "wire/protobuf.h"

namespace llmd::wire::ext_proc {

inline bool IsHeaders(ExtProcKind kind) {
  return kind == ExtProcKind::kRequestHeaders || kind == ExtProcKind::kResponseHeaders;
}
inline bool IsBody(ExtProcKind kind) {
  return kind == ExtProcKind::kRequestBody || kind == ExtProcKind::kResponseBody;
}
inline bool IsTrailers(ExtProcKind kind) {
  return kind == ExtProcKind::kRequestTrailers || kind == ExtProcKind::kResponseTrailers;
}
inline uint32_t RequestNumber(ExtProcKind kind) { return static_cast<uint32_t>(kind); }
inline uint32_t ReplyNumber(ExtProcKind kind) { return static_cast<uint32_t>(kind) - 1; }

// A copy in `arena` of the kBytes field that `in` gave last, a list of headers of `bytes` bytes;
// ResourceExhausted above kExtProcHeaderBytesMax. `what` names it.
base::Result<std::string_view> CopyHeaders(const ProtoPieceReader& in, uint64_t bytes,
                                           std::string_view what, base::Arena* arena);
// A copy in `arena` of the contents of all fields `number` of `message`, one behind the other:
// which is how protobuf merges messages. ResourceExhausted above kExtProcMetadataBytesMax.
base::Result<std::string_view> MergedContent(const ProtoPieceReader& message, uint32_t number,
                                             std::string_view what, base::Arena* arena);
// A HeaderValue; views of `message`.
ProtoError ReadHeaderValue(std::string_view message, ExtProcHeader* header);
base::Status TooManyHeaders(std::string_view what);

// Writes a gap for `body` as field kBody (nothing for an empty one) and returns what was written
// before it, which follows it in the message.
base::Slice BodyGap(std::span<const base::Slice> body, ProtoWriter* out);
// Ends the message: appends what precedes the body, the body and `behind`. Returns its length.
uint64_t TakeAround(std::span<const base::Slice> body, base::Slice behind, ProtoWriter* writer,
                    std::vector<base::Slice>* out);

// ProcessingRequest; the oneof's members are ExtProcKind.
constexpr uint32_t kMetadataContext = 8;
constexpr uint32_t kObservabilityMode = 10;
constexpr uint32_t kProtocolConfig = 11;
// ProtocolConfiguration
constexpr uint32_t kConfigRequestBodyMode = 1;
constexpr uint32_t kConfigResponseBodyMode = 2;
// HttpHeaders, HttpTrailers: the HeaderMap is field 1 of both
constexpr uint32_t kHeaderMap = 1;
constexpr uint32_t kHeadersEndOfStream = 3;
// HeaderMap, HeaderValue
constexpr uint32_t kMapHeaders = 1;
constexpr uint32_t kHeaderKey = 1;
constexpr uint32_t kHeaderTextValue = 2;
constexpr uint32_t kHeaderRawValue = 3;
// HttpBody, StreamedBodyResponse
constexpr uint32_t kBody = 1;
constexpr uint32_t kBodyEndOfStream = 2;
// Metadata and its map entries
constexpr uint32_t kFilterMetadata = 1;
constexpr uint32_t kEntryKey = 1;
constexpr uint32_t kEntryValue = 2;

// ProcessingResponse; the oneof's members up to 6 are ExtProcKind less one.
constexpr uint32_t kImmediateResponse = 7;
constexpr uint32_t kDynamicMetadata = 8;
// HeadersResponse, BodyResponse
constexpr uint32_t kCommonResponse = 1;
// TrailersResponse
constexpr uint32_t kTrailersMutation = 1;
// CommonResponse
constexpr uint32_t kCommonStatus = 1;
constexpr uint32_t kCommonHeaderMutation = 2;
constexpr uint32_t kCommonBodyMutation = 3;
constexpr uint32_t kCommonClearRouteCache = 5;
// BodyMutation
constexpr uint32_t kMutationBody = 1;
constexpr uint32_t kMutationClearBody = 2;
constexpr uint32_t kMutationStreamedResponse = 3;
// HeaderMutation, HeaderValueOption
constexpr uint32_t kSetHeaders = 1;
constexpr uint32_t kRemoveHeaders = 2;
constexpr uint32_t kOptionHeader = 1;
// ImmediateResponse, HttpStatus, GrpcStatus
constexpr uint32_t kImmediateStatus = 1;
constexpr uint32_t kImmediateHeaders = 2;
constexpr uint32_t kImmediateBody = 3;
constexpr uint32_t kImmediateGrpcStatus = 4;
constexpr uint32_t kImmediateDetails = 5;
constexpr uint32_t kHttpStatusCode = 1;
constexpr uint32_t kGrpcStatusCode = 1;

}  // namespace llmd::wire::ext_proc
