// Field numbers of the ext_proc messages that the codec reads and writes. Internal to wire/.
// Source: the trimmed protos in conformance/protos/envoy.
#pragma once

#include <cstdint>

namespace llmd::wire::ext_proc {

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
