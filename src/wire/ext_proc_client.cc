#include "wire/ext_proc_client.h"

#include <utility>

#include "base/check.h"
#include "wire/ext_proc_internal.h"

namespace llmd::wire {
namespace {

constexpr std::string_view kReplyName = "ProcessingResponse";

// The varint field 1 of a message that consists of it (HttpStatus, GrpcStatus), of 32 bits.
template <class T>
ProtoError ReadCode(ProtoPieceReader in, T* code) {
  for (ProtoField f; in.Next(&f);) {
    if (f.number == 1 && in.Expect(f, ProtoWire::kVarint)) *code = static_cast<T>(f.value);
  }
  return in.error();
}

}  // namespace

// --- ExtProcClientWriter ------------------------------------------------------------------------

// Fields 8 to 11, so before (behind in the bytes) the member of the oneof.
void ExtProcClientWriter::Context(const ExtProcContext& context) {
  if (context.has_protocol_config) {
    const size_t mark = out_.size();
    if (context.response_body_mode != ExtProcBodyMode::kNone) {
      out_.Varint(ext_proc::kConfigResponseBodyMode,
                  static_cast<uint64_t>(context.response_body_mode));
    }
    if (context.request_body_mode != ExtProcBodyMode::kNone) {
      out_.Varint(ext_proc::kConfigRequestBodyMode,
                  static_cast<uint64_t>(context.request_body_mode));
    }
    out_.Wrap(ext_proc::kProtocolConfig, mark);
  }
  if (context.observability_mode) out_.Varint(ext_proc::kObservabilityMode, 1);
  if (context.filter_metadata.empty()) return;
  const size_t mark = out_.size();
  for (size_t i = context.filter_metadata.size(); i-- > 0;) {
    const size_t entry_mark = out_.size();
    WriteStruct(context.filter_metadata[i].fields, &out_);
    out_.Wrap(ext_proc::kEntryValue, entry_mark);
    out_.Bytes(ext_proc::kEntryKey, context.filter_metadata[i].name);
    out_.Wrap(ext_proc::kFilterMetadata, entry_mark);
  }
  out_.Wrap(ext_proc::kMetadataContext, mark);
}

void ExtProcClientWriter::HeaderMap(std::span<const ExtProcHeader> headers) {
  const size_t mark = out_.size();
  for (size_t i = headers.size(); i-- > 0;) {
    const size_t entry_mark = out_.size();
    out_.BytesIfAny(ext_proc::kHeaderRawValue, headers[i].value);
    out_.BytesIfAny(ext_proc::kHeaderKey, headers[i].name);
    out_.Wrap(ext_proc::kMapHeaders, entry_mark);
  }
  out_.Wrap(ext_proc::kHeaderMap, mark);
}

base::Slice ExtProcClientWriter::Headers(ExtProcKind kind, std::span<const ExtProcHeader> headers,
                                         bool end_of_stream, const ExtProcContext& context) {
  LLMD_DCHECK(ext_proc::IsHeaders(kind), "headers need a headers kind");
  Context(context);
  const size_t mark = out_.size();
  if (end_of_stream) out_.Varint(ext_proc::kHeadersEndOfStream, 1);
  HeaderMap(headers);
  out_.Wrap(ext_proc::RequestNumber(kind), mark);
  return out_.Take();
}

uint64_t ExtProcClientWriter::Body(ExtProcKind kind, std::span<const base::Slice> body,
                                   bool end_of_stream, std::vector<base::Slice>* out,
                                   const ExtProcContext& context) {
  LLMD_DCHECK(ext_proc::IsBody(kind), "a body needs a body kind");
  Context(context);
  const size_t mark = out_.size();
  if (end_of_stream) out_.Varint(ext_proc::kBodyEndOfStream, 1);
  base::Slice behind = ext_proc::BodyGap(body, &out_);
  out_.Wrap(ext_proc::RequestNumber(kind), mark);
  return ext_proc::TakeAround(body, std::move(behind), &out_, out);
}

base::Slice ExtProcClientWriter::Trailers(ExtProcKind kind,
                                          std::span<const ExtProcHeader> trailers,
                                          const ExtProcContext& context) {
  LLMD_DCHECK(ext_proc::IsTrailers(kind), "trailers need a trailers kind");
  Context(context);
  const size_t mark = out_.size();
  HeaderMap(trailers);
  out_.Wrap(ext_proc::RequestNumber(kind), mark);
  return out_.Take();
}

// --- ExtProcReplyReader -------------------------------------------------------------------------

base::Status ExtProcReplyReader::Feed(base::Slice piece, bool last) {
  LLMD_RETURN_IF_ERROR(pieces_.Feed(std::move(piece), last, kReplyName));
  if (!last) return base::OkStatus();
  base::Status status = Parse();
  if (!status.ok()) {
    pieces_.Clear();
    reply_ = {};
  }
  return status;
}

void ExtProcReplyReader::Reset(base::Arena* arena) {
  arena_ = arena;
  pieces_.Clear();
  reply_ = {};
}

base::Status ExtProcReplyReader::Parse() {
  reply_ = {};
  set_headers_ = ArenaList<ExtProcHeader>(arena_);
  remove_headers_ = ArenaList<std::string_view>(arena_);
  bool has_dynamic_metadata = false;
  const ProtoPieceReader message(pieces_.pieces());
  ProtoPieceReader in = message;
  for (ProtoField f; in.Next(&f);) {
    if (f.number == 0 || f.number > ext_proc::kDynamicMetadata) continue;
    if (!in.Expect(f, ProtoWire::kBytes)) break;
    if (f.number == ext_proc::kDynamicMetadata) {
      has_dynamic_metadata = true;
    } else if (f.number == ext_proc::kImmediateResponse) {
      BeginMember(ExtProcKind::kNone, true);
      LLMD_RETURN_IF_ERROR(ReadImmediate(in.Enter()));
    } else {
      BeginMember(static_cast<ExtProcKind>(f.number + 1), false);
      LLMD_RETURN_IF_ERROR(ReadMember(in.Enter()));
    }
  }
  reply_.set_headers = set_headers_.items();
  reply_.remove_headers = remove_headers_.items();
  LLMD_RETURN_IF_ERROR(ProtoStatus(in.error(), kReplyName));
  if (!has_dynamic_metadata) return base::OkStatus();
  LLMD_ASSIGN_OR_RETURN(const std::string_view content,
                        ext_proc::MergedContent(message, ext_proc::kDynamicMetadata,
                                                "ProcessingResponse.dynamic_metadata", arena_));
  LLMD_ASSIGN_OR_RETURN(reply_.dynamic_metadata, ReadStruct(content, arena_));
  return base::OkStatus();
}

// The last member of the oneof counts; the same one twice is merged, as messages are.
void ExtProcReplyReader::BeginMember(ExtProcKind kind, bool immediate) {
  if (reply_.kind == kind && reply_.immediate == immediate) return;
  reply_ = {};
  reply_.kind = kind;
  reply_.immediate = immediate;
  set_headers_.Clear();
  remove_headers_.Clear();
}

// HeadersResponse and BodyResponse hold a CommonResponse, TrailersResponse a HeaderMutation, each
// as field 1.
base::Status ExtProcReplyReader::ReadMember(ProtoPieceReader member) {
  static_assert(ext_proc::kCommonResponse == ext_proc::kTrailersMutation);
  for (ProtoField f; member.Next(&f);) {
    if (f.number != ext_proc::kCommonResponse || !member.Expect(f, ProtoWire::kBytes)) continue;
    if (ext_proc::IsTrailers(reply_.kind)) {
      LLMD_RETURN_IF_ERROR(ReadHeaderMutation(member, f.value));
    } else {
      LLMD_RETURN_IF_ERROR(ReadCommon(member.Enter()));
    }
  }
  return ProtoStatus(member.error(), kReplyName);
}

base::Status ExtProcReplyReader::ReadCommon(ProtoPieceReader common) {
  for (ProtoField f; common.Next(&f);) {
    switch (f.number) {
      case ext_proc::kCommonStatus:
        if (common.Expect(f, ProtoWire::kVarint)) reply_.continue_and_replace = f.value == 1;
        break;
      case ext_proc::kCommonHeaderMutation:
        if (!common.Expect(f, ProtoWire::kBytes)) break;
        LLMD_RETURN_IF_ERROR(ReadHeaderMutation(common, f.value));
        break;
      case ext_proc::kCommonBodyMutation:
        if (!common.Expect(f, ProtoWire::kBytes)) break;
        reply_.has_body_mutation = true;
        LLMD_RETURN_IF_ERROR(ReadBodyMutation(common.Enter()));
        break;
      case ext_proc::kCommonClearRouteCache:
        if (common.Expect(f, ProtoWire::kVarint)) reply_.clear_route_cache = f.flag();
        break;
      default: break;
    }
  }
  return ProtoStatus(common.error(), "ProcessingResponse CommonResponse");
}

void ExtProcReplyReader::SetBody(const ProtoPieceReader& in, uint64_t bytes) {
  body_begin_ = in.content_begin();
  reply_.body_bytes = bytes;
}

base::Status ExtProcReplyReader::ReadBodyMutation(ProtoPieceReader mutation) {
  for (ProtoField f; mutation.Next(&f);) {
    if (f.number < ext_proc::kMutationBody || f.number > ext_proc::kMutationStreamedResponse) {
      continue;
    }
    const bool is_clear = f.number == ext_proc::kMutationClearBody;
    const bool is_streamed = f.number == ext_proc::kMutationStreamedResponse;
    if (!mutation.Expect(f, is_clear ? ProtoWire::kVarint : ProtoWire::kBytes)) break;
    if (!is_streamed || !reply_.streamed) {
      reply_.body_bytes = 0;
      reply_.end_of_stream = false;
    }
    reply_.clear_body = is_clear && f.flag();
    reply_.streamed = is_streamed;
    if (is_streamed) {
      LLMD_RETURN_IF_ERROR(ReadStreamedBody(mutation.Enter()));
    } else if (!is_clear) {
      SetBody(mutation, f.value);
    }
  }
  return ProtoStatus(mutation.error(), "ProcessingResponse BodyMutation");
}

base::Status ExtProcReplyReader::ReadStreamedBody(ProtoPieceReader body) {
  for (ProtoField f; body.Next(&f);) {
    if (f.number == ext_proc::kBody && body.Expect(f, ProtoWire::kBytes)) {
      SetBody(body, f.value);
    } else if (f.number == ext_proc::kBodyEndOfStream && body.Expect(f, ProtoWire::kVarint)) {
      reply_.end_of_stream = f.flag();
    }
  }
  return ProtoStatus(body.error(), "ProcessingResponse StreamedBodyResponse");
}

base::Status ExtProcReplyReader::ReadHeaderMutation(const ProtoPieceReader& outer,
                                                    uint64_t bytes) {
  constexpr std::string_view kWhere = "ProcessingResponse HeaderMutation";
  LLMD_ASSIGN_OR_RETURN(
      const std::string_view content,
      ext_proc::CopyHeaders(outer, bytes, kWhere, arena_));
  ProtoReader in(content);
  for (ProtoField f; in.Next(&f);) {
    if (f.number != ext_proc::kSetHeaders && f.number != ext_proc::kRemoveHeaders) continue;
    if (!in.Expect(f, ProtoWire::kBytes)) break;
    if (set_headers_.size() + remove_headers_.size() == kExtProcHeadersMax) {
      return ext_proc::TooManyHeaders(kWhere);
    }
    if (f.number == ext_proc::kRemoveHeaders) {
      remove_headers_.Push(f.bytes);
      continue;
    }
    ExtProcHeader header;
    ProtoReader option(f.bytes);
    for (ProtoField part; option.Next(&part);) {
      if (part.number != ext_proc::kOptionHeader) continue;
      if (!option.Expect(part, ProtoWire::kBytes)) break;
      option.Adopt(ext_proc::ReadHeaderValue(part.bytes, &header));
    }
    in.Adopt(option.error());
    set_headers_.Push(header);
  }
  return ProtoStatus(in.error(), kWhere);
}

base::Status ExtProcReplyReader::ReadImmediate(ProtoPieceReader immediate) {
  for (ProtoField f; immediate.Next(&f);) {
    if (f.number == 0 || f.number > ext_proc::kImmediateDetails) continue;
    if (!immediate.Expect(f, ProtoWire::kBytes)) break;
    switch (f.number) {
      case ext_proc::kImmediateStatus:
        immediate.Adopt(ReadCode(immediate.Enter(), &reply_.status));
        break;
      case ext_proc::kImmediateHeaders:
        LLMD_RETURN_IF_ERROR(ReadHeaderMutation(immediate, f.value));
        break;
      case ext_proc::kImmediateBody: SetBody(immediate, f.value); break;
      case ext_proc::kImmediateGrpcStatus:
        reply_.grpc_status = reply_.grpc_status.value_or(0);
        immediate.Adopt(ReadCode(immediate.Enter(), &*reply_.grpc_status));
        break;
      case ext_proc::kImmediateDetails: {
        LLMD_ASSIGN_OR_RETURN(
            reply_.details,
            ext_proc::CopyHeaders(immediate, f.value, "ImmediateResponse.details", arena_));
        break;
      }
      default: break;
    }
  }
  return ProtoStatus(immediate.error(), "ProcessingResponse.immediate_response");
}

}  // namespace llmd::wire
