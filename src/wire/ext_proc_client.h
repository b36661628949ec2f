// The other end of ext_proc.h, as Envoy has it: ProcessingRequest written, ProcessingResponse read.
// For the load generator and for tests.
//
// Thread safety, errors, limits and lifetimes: as ext_proc.h. Of a reply, trailers to add,
// mode_override and typed metadata are stepped over.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/status.h"
#include "wire/ext_proc.h"
#include "wire/message_pieces.h"
#include "wire/proto_struct.h"
#include "wire/protobuf.h"

namespace llmd::wire {

// What any ProcessingRequest may carry beside its member of the oneof.
struct ExtProcContext {
  std::span<const StructField> filter_metadata;  // one Struct field per namespace
  bool observability_mode = false;
  bool has_protocol_config = false;
  ExtProcBodyMode request_body_mode = ExtProcBodyMode::kFullDuplexStreamed;
  ExtProcBodyMode response_body_mode = ExtProcBodyMode::kFullDuplexStreamed;
};

class ExtProcClientWriter {
 public:
  // `pool` outlives the writer and its slices.
  explicit ExtProcClientWriter(base::BufferPool* pool) : out_(pool) {}

  base::Slice Headers(ExtProcKind kind, std::span<const ExtProcHeader> headers, bool end_of_stream,
                      const ExtProcContext& context = {});
  // Appends the message to `out` and returns its length.
  uint64_t Body(ExtProcKind kind, std::span<const base::Slice> body, bool end_of_stream,
                std::vector<base::Slice>* out, const ExtProcContext& context = {});
  base::Slice Trailers(ExtProcKind kind, std::span<const ExtProcHeader> trailers,
                       const ExtProcContext& context = {});

 private:
  void Context(const ExtProcContext& context);
  void HeaderMap(std::span<const ExtProcHeader> headers);

  ProtoWriter out_;
};

struct ExtProcReply {
  // What is answered; kNone for an immediate reply and for one without a member.
  ExtProcKind kind = ExtProcKind::kNone;
  bool immediate = false;
  // Headers and bodies
  bool continue_and_replace = false;
  bool clear_route_cache = false;
  bool has_body_mutation = false;
  bool streamed = false;  // StreamedBodyResponse
  bool end_of_stream = false;
  bool clear_body = false;
  uint64_t body_bytes = 0;  // TakeBody gives the bytes, of immediate replies too
  // Any
  std::span<const ExtProcHeader> set_headers;
  std::span<const std::string_view> remove_headers;
  std::span<const StructField> dynamic_metadata;
  // Immediate replies
  int status = 0;
  std::optional<uint32_t> grpc_status;
  std::string_view details;
};

// The face of ExtProcReader.
class ExtProcReplyReader {
 public:
  explicit ExtProcReplyReader(base::Arena* arena)
      : arena_(arena), set_headers_(arena), remove_headers_(arena) {}

  base::Status Feed(base::Slice piece, bool last);
  const ExtProcReply& reply() const { return reply_; }
  void TakeBody(std::vector<base::Slice>* out) const {
    pieces_.Take(body_begin_, reply_.body_bytes, out);
  }
  void Clear() { pieces_.Clear(); }
  void Reset(base::Arena* arena);

 private:
  base::Status Parse();
  void BeginMember(ExtProcKind kind, bool immediate);
  base::Status ReadMember(ProtoPieceReader member);
  base::Status ReadCommon(ProtoPieceReader common);
  base::Status ReadBodyMutation(ProtoPieceReader mutation);
  base::Status ReadStreamedBody(ProtoPieceReader body);
  base::Status ReadHeaderMutation(const ProtoPieceReader& in, uint64_t bytes);
  base::Status ReadImmediate(ProtoPieceReader immediate);
  void SetBody(const ProtoPieceReader& in, uint64_t bytes);

  base::Arena* arena_;
  MessagePieces pieces_;
  ExtProcReply reply_;
  ArenaList<ExtProcHeader> set_headers_;
  ArenaList<std::string_view> remove_headers_;
  uint64_t body_begin_ = 0;
};

}  // namespace llmd::wire
