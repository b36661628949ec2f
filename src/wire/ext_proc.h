// Envoy's ext_proc v3 messages as an external processor sees them: ProcessingRequest read,
// ProcessingResponse written. Hand-made, because body bytes pass through here without being copied.
//
// Reading: a gRPC message arrives in pieces (DATA frames of 16 KiB, read buffers):
//
//   LLMD_RETURN_IF_ERROR(reader.Feed(std::move(piece), last));   // per piece
//   if (last) {
//     const ExtProcMessage& message = reader.message();
//     if (message.kind == ExtProcKind::kRequestBody) reader.TakeBody(&body);  // slices, no copy
//     reader.Clear();                                             // lets go of the read buffers
//   }
//
// Writing: an ExtProcWriter per worker; a message is a Slice, or for bodies a run of slices: a few
// bytes in front, the body as it is, a few bytes behind.
//
// Thread safety: none; reader and writer belong to one worker.
// Invariants: 1. What a message says does not depend on where its pieces are cut. 2. Headers and
// metadata are copied once, into the caller's arena, and hold no read buffer: a request's headers
// are needed for the seconds of its generation, a read buffer of 16 KiB and more is not. 3. Body
// bytes are never copied. 4. Unknown fields, attributes and metadata nobody asks for are stepped
// over unread; so what is wrong inside of them is not noticed.
// Errors: InvalidArgument for bytes that are no such message, ResourceExhausted for a limit; the
// message then counts as absent and the stream should end.
// Limits: kExtProc...Max below, those of MessagePieces and ReadStruct; the size of a message is the
// gRPC layer's to bound.
// Format: envoy/service/ext_proc/v3/external_processor.proto (conformance/protos/envoy).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/status.h"
#include "wire/arena_list.h"
#include "wire/message_pieces.h"
#include "wire/proto_struct.h"
#include "wire/protobuf.h"

namespace llmd::wire {

// Numbered as the fields of ProcessingRequest; in ProcessingResponse each is one less.
enum class ExtProcKind : uint8_t {
  kNone = 0,  // no member of the oneof is set
  kRequestHeaders = 2,
  kResponseHeaders = 3,
  kRequestBody = 4,
  kResponseBody = 5,
  kRequestTrailers = 6,
  kResponseTrailers = 7,
};
// "request_headers" and so on: the field's name.
std::string_view ExtProcKindName(ExtProcKind kind);

// envoy.extensions.filters.http.ext_proc.v3.ProcessingMode.BodySendMode
enum class ExtProcBodyMode : uint8_t {
  kNone = 0,
  kStreamed = 1,
  kBuffered = 2,
  kBufferedPartial = 3,
  kFullDuplexStreamed = 4,
  kGrpc = 5,
  kUnknown = 255,  // newer than this table
};

struct ExtProcHeader {
  std::string_view name;   // as sent; Envoy sends lower case and pseudo headers
  std::string_view value;  // raw_value, or value where that is empty
  bool operator==(const ExtProcHeader&) const = default;
};

// Envoy passes at most 100 headers by default, 128 is what our own HTTP/1 reader allows; the rest
// is room for sites that raised Envoy's max_headers_count.
constexpr size_t kExtProcHeadersMax = 1024;
// Envoy's max_request_headers_kb is 60 by default; each header takes some ten bytes more here.
constexpr size_t kExtProcHeaderBytesMax = 256 << 10;
// Metadata of one namespace. Ten thousand endpoints with IPv6 addresses are some 600 KiB.
constexpr size_t kExtProcMetadataBytesMax = 1 << 20;
// Envoy implementations refuse gRPC frames above 64 KiB; upstream's picker stays below with this.
constexpr size_t kExtProcChunkBytesMax = 62'000;

// Names of the endpoint picker protocol (gateway-api-inference-extension, proposal 004, v1.0.0).
constexpr std::string_view kSubsetNamespace = "envoy.lb.subset_hint";
constexpr std::string_view kSubsetKey = "x-gateway-destination-endpoint-subset";
constexpr std::string_view kEndpointNamespace = "envoy.lb";
constexpr std::string_view kEndpointKey = "x-gateway-destination-endpoint";
constexpr std::string_view kEndpointScoresKey = "x-gateway-destination-endpoint-scores";
constexpr std::string_view kEndpointServedKey = "x-gateway-destination-endpoint-served";

struct ExtProcMessage {
  ExtProcKind kind = ExtProcKind::kNone;
  bool end_of_stream = false;              // headers and bodies; trailers end their side anyway
  std::span<const ExtProcHeader> headers;  // headers and trailers; in the reader's arena
  uint64_t body_bytes = 0;                 // bodies; TakeBody gives the bytes
  bool observability_mode = false;         // the peer does not wait for replies and ignores them
  // Of the first message of a stream: how Envoy's filter is configured.
  bool has_protocol_config = false;
  ExtProcBodyMode request_body_mode = ExtProcBodyMode::kNone;
  ExtProcBodyMode response_body_mode = ExtProcBodyMode::kNone;
};

struct ExtProcMetadata {
  // The gateway restricts the candidates to `subset` ("ip:port" each; white space and empty entries
  // removed). With has_subset an empty list means that no endpoint may serve; without, all may.
  bool has_subset = false;
  std::span<const std::string_view> subset;
  // "ip:port"; "" when the proxy's envoy.lb does not say, none when it sends no envoy.lb.
  std::optional<std::string_view> served_endpoint;
};

class ExtProcReader {
 public:
  // `arena` gets headers and metadata; it outlives their use, and the reader up to Reset.
  explicit ExtProcReader(base::Arena* arena) : arena_(arena), headers_(arena, kFirstHeaders) {}

  // The next piece of a message; `last` ends it (a piece may be empty). The first piece after a
  // last one begins a new message. After an error the reader is as new.
  base::Status Feed(base::Slice piece, bool last);

  // The four below hold from a Feed with `last` that was OK to the next Feed or Clear.
  const ExtProcMessage& message() const { return message_; }
  // Appends the body to `out`, as slices of what was fed.
  void TakeBody(std::vector<base::Slice>* out) const {
    pieces_.Take(body_begin_, message_.body_bytes, out);
  }
  // Looks for the subset hint and the served endpoint: of use at the end of the request and at the
  // response headers, so it is not done for every message.
  base::Result<ExtProcMetadata> ReadMetadata() const;
  // Lets go of the pieces.
  void Clear() { pieces_.Clear(); }

  // For the next stream.
  void Reset(base::Arena* arena);

 private:
  static constexpr size_t kFirstHeaders = 32;  // a request through Envoy has 10 to 25

  base::Status Parse();
  base::Status ReadMember(const ProtoPieceReader& member, ExtProcKind kind);
  base::Status ReadHeaders(const ProtoPieceReader& member, ExtProcKind kind);
  base::Status ReadHeaderMap(std::string_view map, ExtProcKind kind);
  base::Status ReadBody(ProtoPieceReader member, ExtProcKind kind);
  base::Status ReadProtocolConfig(ProtoPieceReader config);

  base::Arena* arena_;
  MessagePieces pieces_;
  ExtProcMessage message_;
  ArenaList<ExtProcHeader> headers_;
  uint64_t body_begin_ = 0;  // in the pieces
};

struct ExtProcHeadersReply {
  std::span<const ExtProcHeader> set_headers;  // replace or add; sent as raw_value
  std::span<const std::string_view> remove_headers;
  bool clear_route_cache = false;  // Envoy picks the route anew: needed after a request's headers
  std::span<const StructField> dynamic_metadata;  // one Struct field per namespace
};

struct ExtProcImmediateReply {
  int status = 500;  // HTTP
  std::span<const ExtProcHeader> headers;
  std::string_view body;
  std::optional<uint32_t> grpc_status;  // sent to gRPC clients instead of `status`
  std::string_view details;             // shows in Envoy's access log
};

// Inputs are valid until return, body slices excepted: they are handed on.
class ExtProcWriter {
 public:
  // `pool` outlives the writer and its slices.
  explicit ExtProcWriter(base::BufferPool* pool) : out_(pool) {}

  // `kind` is kRequestHeaders or kResponseHeaders.
  base::Slice Headers(ExtProcKind kind, const ExtProcHeadersReply& reply);
  // Appends one message that carries `body` (at most kExtProcChunkBytesMax bytes in all) as a
  // StreamedBodyResponse and returns its length. `kind` is kRequestBody or kResponseBody.
  uint64_t Body(ExtProcKind kind, std::span<const base::Slice> body, bool end_of_stream,
                std::span<const StructField> dynamic_metadata, std::vector<base::Slice>* out);
  // Passes trailers on unchanged. `kind` is kRequestTrailers or kResponseTrailers.
  base::Slice Trailers(ExtProcKind kind);
  base::Slice Immediate(const ExtProcImmediateReply& reply);

 private:
  void SetHeaders(std::span<const ExtProcHeader> headers);
  void HeaderMutation(uint32_t number, std::span<const ExtProcHeader> set_headers,
                      std::span<const std::string_view> remove_headers);

  ProtoWriter out_;
};

// {"envoy.lb": {"x-gateway-destination-endpoint": `endpoints`, ["...-scores": {`scores`}]}}: how a
// reply names its pick. `endpoints` is "ip:port", or several in order of preference joined with
// commas; the spans are in `arena`, texts and `scores` stay the caller's.
std::span<const StructField> EndpointMetadata(std::string_view endpoints,
                                              std::span<const StructField> scores,
                                              base::Arena* arena);

// Cuts a body into chunks that ExtProcWriter::Body takes; an empty body is one empty chunk:
//
//   ExtProcChunks chunks(body);
//   for (std::vector<base::Slice> chunk; chunks.Next(&chunk);) {
//     writer.Body(kind, chunk, chunks.done(), {}, &out);
//   }
class ExtProcChunks {
 public:
  // `body` outlives the cutting.
  explicit ExtProcChunks(std::span<const base::Slice> body) : body_(body) {}

  // Replaces `chunk`; false when there is none left.
  bool Next(std::vector<base::Slice>* chunk);
  // Whether the chunk that Next gave is the last.
  bool done() const { return done_; }

 private:
  std::span<const base::Slice> body_;
  size_t offset_ = 0;  // used of the first slice
  bool done_ = false;
};

}  // namespace llmd::wire
