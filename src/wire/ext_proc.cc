#include "wire/ext_proc.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "wire/ext_proc_internal.h"

namespace llmd::wire {
namespace {

using ext_proc::IsBody;
using ext_proc::IsTrailers;
using ext_proc::ReplyNumber;

constexpr std::string_view kRequestName = "ProcessingRequest";

std::string KindPath(ExtProcKind kind) {
  return base::Concat(kRequestName, ".", ExtProcKindName(kind));
}

ExtProcBodyMode BodyModeOf(uint64_t value) {
  const auto number = static_cast<uint32_t>(value);  // an enum has 32 bits of its varint
  return number <= static_cast<uint32_t>(ExtProcBodyMode::kGrpc)
             ? static_cast<ExtProcBodyMode>(number)
             : ExtProcBodyMode::kUnknown;
}

base::Status TooLong(std::string_view what, uint64_t bytes, uint64_t bytes_max) {
  return base::ResourceExhausted(base::Concat(what, " has ", std::to_string(bytes),
                                              " bytes of at most ", std::to_string(bytes_max)));
}

// Non-empty parts of a comma-separated list.
void AppendParts(std::string_view text, ArenaList<std::string_view>* out) {
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = base::Trim(text.substr(0, comma));
    if (!part.empty()) out->Push(part);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
}

void ReadSubset(std::span<const StructField> fields, base::Arena* arena,
                ExtProcMetadata* metadata) {
  const StructField* const hint = FindField(fields, kSubsetKey);
  if (!hint) return;
  ArenaList<std::string_view> subset(arena);
  if (hint->kind == StructKind::kString) {
    AppendParts(hint->text, &subset);
  } else if (hint->kind == StructKind::kList) {
    for (const StructField& value : hint->fields) {
      const std::string_view endpoint = base::Trim(value.text);
      if (value.kind == StructKind::kString && !endpoint.empty()) subset.Push(endpoint);
    }
  } else {
    return;
  }
  metadata->has_subset = true;
  metadata->subset = subset.items();
}

// One entry of Metadata.filter_metadata.
base::Status ReadNamespace(const ProtoPieceReader& entry, base::Arena* arena,
                           ExtProcMetadata* metadata) {
  constexpr size_t kNameBytesMax = std::max(kSubsetNamespace.size(), kEndpointNamespace.size());
  constexpr std::string_view kWhere = "ProcessingRequest.metadata_context.filter_metadata";
  char name_bytes[kNameBytesMax];
  std::string_view name;
  ProtoPieceReader in = entry;
  for (ProtoField f; in.Next(&f);) {
    if (f.number != ext_proc::kEntryKey || !in.Expect(f, ProtoWire::kBytes)) continue;
    name = {};
    if (f.value > kNameBytesMax) continue;
    in.CopyContent(name_bytes);
    name = {name_bytes, f.value};
  }
  LLMD_RETURN_IF_ERROR(ProtoStatus(in.error(), kWhere));
  const bool is_subset = name == kSubsetNamespace;
  if (!is_subset && name != kEndpointNamespace) return base::OkStatus();

  LLMD_ASSIGN_OR_RETURN(const std::string_view content,
                        ext_proc::MergedContent(entry, ext_proc::kEntryValue, kWhere, arena));
  LLMD_ASSIGN_OR_RETURN(const std::span<const StructField> fields, ReadStruct(content, arena));
  if (is_subset) {  // a later entry of the same name replaces an earlier one
    metadata->has_subset = false;
    metadata->subset = {};
    ReadSubset(fields, arena, metadata);
    return base::OkStatus();
  }
  const StructField* const served = FindField(fields, kEndpointServedKey);
  const bool is_text = served && served->kind == StructKind::kString;
  metadata->served_endpoint = is_text ? base::Trim(served->text) : std::string_view();
  return base::OkStatus();
}

}  // namespace

std::string_view ExtProcKindName(ExtProcKind kind) {
  switch (kind) {
    case ExtProcKind::kNone: return "none";
    case ExtProcKind::kRequestHeaders: return "request_headers";
    case ExtProcKind::kResponseHeaders: return "response_headers";
    case ExtProcKind::kRequestBody: return "request_body";
    case ExtProcKind::kResponseBody: return "response_body";
    case ExtProcKind::kRequestTrailers: return "request_trailers";
    case ExtProcKind::kResponseTrailers: return "response_trailers";
  }
  return "unknown";
}

namespace ext_proc {

base::Result<std::string_view> CopyHeaders(const ProtoPieceReader& in, uint64_t bytes,
                                           std::string_view what, base::Arena* arena) {
  if (bytes > kExtProcHeaderBytesMax) [[unlikely]] {
    return std::unexpected(TooLong(what, bytes, kExtProcHeaderBytesMax));
  }
  char* const copy = static_cast<char*>(arena->Allocate(bytes, 1));
  in.CopyContent(copy);
  return std::string_view(copy, bytes);
}

base::Result<std::string_view> MergedContent(const ProtoPieceReader& message, uint32_t number,
                                             std::string_view what, base::Arena* arena) {
  uint64_t bytes = 0;
  ProtoPieceReader measure = message;
  for (ProtoField f; measure.Next(&f);) {
    if (f.number == number && measure.Expect(f, ProtoWire::kBytes)) bytes += f.value;
  }
  LLMD_RETURN_IF_ERROR(ProtoStatus(measure.error(), what));
  if (bytes > kExtProcMetadataBytesMax) {
    return std::unexpected(TooLong(what, bytes, kExtProcMetadataBytesMax));
  }
  char* const copy = static_cast<char*>(arena->Allocate(bytes, 1));
  char* end = copy;
  ProtoPieceReader in = message;
  for (ProtoField f; in.Next(&f);) {
    if (f.number != number) continue;
    in.CopyContent(end);
    end += f.value;
  }
  return std::string_view(copy, bytes);
}

ProtoError ReadHeaderValue(std::string_view message, ExtProcHeader* header) {
  std::string_view raw_value;
  ProtoReader in(message);
  for (ProtoField f; in.Next(&f);) {
    switch (f.number) {
      case kHeaderKey:
        if (in.Expect(f, ProtoWire::kBytes)) header->name = f.bytes;
        break;
      case kHeaderTextValue:
        if (in.Expect(f, ProtoWire::kBytes)) header->value = f.bytes;
        break;
      case kHeaderRawValue:
        if (in.Expect(f, ProtoWire::kBytes)) raw_value = f.bytes;
        break;
      default: break;
    }
  }
  if (!raw_value.empty()) header->value = raw_value;
  return in.error();
}

base::Status TooManyHeaders(std::string_view what) {
  return base::ResourceExhausted(
      base::Concat(what, " has more than ", std::to_string(kExtProcHeadersMax), " headers"));
}

base::Slice BodyGap(std::span<const base::Slice> body, ProtoWriter* out) {
  size_t body_bytes = 0;
  for (const base::Slice& slice : body) body_bytes += slice.size();
  if (body_bytes == 0) return {};
  base::Slice behind = out->Gap(body_bytes);
  out->RawVarint(body_bytes);
  out->Tag(kBody, ProtoWire::kBytes);
  return behind;
}

uint64_t TakeAround(std::span<const base::Slice> body, base::Slice behind, ProtoWriter* writer,
                    std::vector<base::Slice>* out) {
  const uint64_t message_bytes = writer->size();
  out->push_back(writer->Take());
  for (const base::Slice& slice : body) {
    if (!slice.empty()) out->push_back(slice);
  }
  if (!behind.empty()) out->push_back(std::move(behind));
  return message_bytes;
}

}  // namespace ext_proc

// --- ExtProcReader ------------------------------------------------------------------------------

base::Status ExtProcReader::Feed(base::Slice piece, bool last) {
  LLMD_RETURN_IF_ERROR(pieces_.Feed(std::move(piece), last, kRequestName));
  if (!last) return base::OkStatus();
  base::Status status = Parse();
  if (!status.ok()) {
    pieces_.Clear();
    message_ = {};
  }
  return status;
}

void ExtProcReader::Reset(base::Arena* arena) {
  arena_ = arena;
  pieces_.Clear();
  message_ = {};
}

base::Status ExtProcReader::Parse() {
  message_ = {};
  headers_ = ArenaList<ExtProcHeader>(arena_, kFirstHeaders);
  ProtoPieceReader in(pieces_.pieces());
  for (ProtoField f; in.Next(&f);) {
    switch (f.number) {
      case static_cast<uint32_t>(ExtProcKind::kRequestHeaders):
      case static_cast<uint32_t>(ExtProcKind::kResponseHeaders):
      case static_cast<uint32_t>(ExtProcKind::kRequestBody):
      case static_cast<uint32_t>(ExtProcKind::kResponseBody):
      case static_cast<uint32_t>(ExtProcKind::kRequestTrailers):
      case static_cast<uint32_t>(ExtProcKind::kResponseTrailers):
        if (!in.Expect(f, ProtoWire::kBytes)) break;
        LLMD_RETURN_IF_ERROR(ReadMember(in, static_cast<ExtProcKind>(f.number)));
        break;
      case ext_proc::kObservabilityMode:
        if (in.Expect(f, ProtoWire::kVarint)) message_.observability_mode = f.flag();
        break;
      case ext_proc::kProtocolConfig:
        if (!in.Expect(f, ProtoWire::kBytes)) break;
        LLMD_RETURN_IF_ERROR(ReadProtocolConfig(in.Enter()));
        break;
      default: break;
    }
  }
  message_.headers = headers_.items();
  return ProtoStatus(in.error(), kRequestName);
}

// A member of the oneof: the last kind counts; the same kind twice is merged, as messages are.
base::Status ExtProcReader::ReadMember(const ProtoPieceReader& member, ExtProcKind kind) {
  if (message_.kind != kind) {
    message_.kind = kind;
    message_.end_of_stream = false;
    message_.body_bytes = 0;
    headers_.Clear();
  }
  return IsBody(kind) ? ReadBody(member.Enter(), kind) : ReadHeaders(member, kind);
}

base::Status ExtProcReader::ReadBody(ProtoPieceReader body, ExtProcKind kind) {
  for (ProtoField f; body.Next(&f);) {
    if (f.number == ext_proc::kBody && body.Expect(f, ProtoWire::kBytes)) {
      body_begin_ = body.content_begin();
      message_.body_bytes = f.value;
    } else if (f.number == ext_proc::kBodyEndOfStream && body.Expect(f, ProtoWire::kVarint)) {
      message_.end_of_stream = f.flag();
    }
  }
  if (body.error() == ProtoError::kNone) [[likely]] return base::OkStatus();
  return ProtoStatus(body.error(), KindPath(kind));
}

base::Status ExtProcReader::ReadHeaders(const ProtoPieceReader& member, ExtProcKind kind) {
  ProtoPieceReader in = member.Enter();
  for (ProtoField f; in.Next(&f);) {
    if (f.number == ext_proc::kHeaderMap && in.Expect(f, ProtoWire::kBytes)) {
      LLMD_ASSIGN_OR_RETURN(const std::string_view map,
                            ext_proc::CopyHeaders(in, f.value, ExtProcKindName(kind), arena_));
      LLMD_RETURN_IF_ERROR(ReadHeaderMap(map, kind));
    } else if (f.number == ext_proc::kHeadersEndOfStream && !IsTrailers(kind) &&
               in.Expect(f, ProtoWire::kVarint)) {
      message_.end_of_stream = f.flag();
    }
  }
  if (in.error() == ProtoError::kNone) [[likely]] return base::OkStatus();
  return ProtoStatus(in.error(), KindPath(kind));
}

base::Status ExtProcReader::ReadHeaderMap(std::string_view map, ExtProcKind kind) {
  ProtoReader in(map);
  for (ProtoField f; in.Next(&f);) {
    if (f.number != ext_proc::kMapHeaders || !in.Expect(f, ProtoWire::kBytes)) continue;
    if (headers_.size() == kExtProcHeadersMax) return ext_proc::TooManyHeaders(KindPath(kind));
    ExtProcHeader header;
    in.Adopt(ext_proc::ReadHeaderValue(f.bytes, &header));
    headers_.Push(header);
  }
  if (in.error() == ProtoError::kNone) [[likely]] return base::OkStatus();
  return ProtoStatus(in.error(), KindPath(kind));
}

base::Status ExtProcReader::ReadProtocolConfig(ProtoPieceReader config) {
  message_.has_protocol_config = true;
  for (ProtoField f; config.Next(&f);) {
    if (f.number == ext_proc::kConfigRequestBodyMode && config.Expect(f, ProtoWire::kVarint)) {
      message_.request_body_mode = BodyModeOf(f.value);
    } else if (f.number == ext_proc::kConfigResponseBodyMode &&
               config.Expect(f, ProtoWire::kVarint)) {
      message_.response_body_mode = BodyModeOf(f.value);
    }
  }
  return ProtoStatus(config.error(), "ProcessingRequest.protocol_config");
}

base::Result<ExtProcMetadata> ExtProcReader::ReadMetadata() const {
  ExtProcMetadata metadata;
  ProtoPieceReader in(pieces_.pieces());
  for (ProtoField f; in.Next(&f);) {
    if (f.number != ext_proc::kMetadataContext || !in.Expect(f, ProtoWire::kBytes)) continue;
    ProtoPieceReader context = in.Enter();
    for (ProtoField entry; context.Next(&entry);) {
      if (entry.number != ext_proc::kFilterMetadata) continue;
      if (!context.Expect(entry, ProtoWire::kBytes)) break;
      LLMD_RETURN_IF_ERROR(ReadNamespace(context.Enter(), arena_, &metadata));
    }
    in.Adopt(context.error());
  }
  LLMD_RETURN_IF_ERROR(ProtoStatus(in.error(), "ProcessingRequest.metadata_context"));
  return metadata;
}

// --- ExtProcWriter ------------------------------------------------------------------------------

void ExtProcWriter::SetHeaders(std::span<const ExtProcHeader> headers) {
  for (size_t i = headers.size(); i-- > 0;) {
    const size_t mark = out_.size();
    out_.BytesIfAny(ext_proc::kHeaderRawValue, headers[i].value);
    out_.BytesIfAny(ext_proc::kHeaderKey, headers[i].name);
    out_.Wrap(ext_proc::kOptionHeader, mark);
    out_.Wrap(ext_proc::kSetHeaders, mark);
  }
}

void ExtProcWriter::HeaderMutation(uint32_t number, std::span<const ExtProcHeader> set_headers,
                                   std::span<const std::string_view> remove_headers) {
  if (set_headers.empty() && remove_headers.empty()) return;
  const size_t mark = out_.size();
  for (size_t i = remove_headers.size(); i-- > 0;) {
    out_.Bytes(ext_proc::kRemoveHeaders, remove_headers[i]);
  }
  SetHeaders(set_headers);
  out_.Wrap(number, mark);
}

base::Slice ExtProcWriter::Headers(ExtProcKind kind, const ExtProcHeadersReply& reply) {
  LLMD_DCHECK(ext_proc::IsHeaders(kind), "a headers reply needs a headers kind");
  WriteStructField(ext_proc::kDynamicMetadata, reply.dynamic_metadata, &out_);
  const size_t mark = out_.size();
  if (reply.clear_route_cache) out_.Varint(ext_proc::kCommonClearRouteCache, 1);
  HeaderMutation(ext_proc::kCommonHeaderMutation, reply.set_headers, reply.remove_headers);
  out_.Wrap(ext_proc::kCommonResponse, mark);
  out_.Wrap(ReplyNumber(kind), mark);
  return out_.Take();
}

uint64_t ExtProcWriter::Body(ExtProcKind kind, std::span<const base::Slice> body,
                             bool end_of_stream, std::span<const StructField> dynamic_metadata,
                             std::vector<base::Slice>* out) {
  LLMD_DCHECK(IsBody(kind), "a body reply needs a body kind");
  WriteStructField(ext_proc::kDynamicMetadata, dynamic_metadata, &out_);
  const size_t mark = out_.size();
  if (end_of_stream) out_.Varint(ext_proc::kBodyEndOfStream, 1);
  base::Slice behind = ext_proc::BodyGap(body, &out_);
  out_.Wrap(ext_proc::kMutationStreamedResponse, mark);
  out_.Wrap(ext_proc::kCommonBodyMutation, mark);
  out_.Wrap(ext_proc::kCommonResponse, mark);
  out_.Wrap(ReplyNumber(kind), mark);
  return ext_proc::TakeAround(body, std::move(behind), &out_, out);
}

base::Slice ExtProcWriter::Trailers(ExtProcKind kind) {
  LLMD_DCHECK(IsTrailers(kind), "a trailers reply needs a trailers kind");
  out_.Wrap(ReplyNumber(kind), out_.size());
  return out_.Take();
}

base::Slice ExtProcWriter::Immediate(const ExtProcImmediateReply& reply) {
  const size_t mark = out_.size();
  out_.BytesIfAny(ext_proc::kImmediateDetails, reply.details);
  if (reply.grpc_status) {
    const size_t status_mark = out_.size();
    if (*reply.grpc_status != 0) out_.Varint(ext_proc::kGrpcStatusCode, *reply.grpc_status);
    out_.Wrap(ext_proc::kImmediateGrpcStatus, status_mark);
  }
  out_.BytesIfAny(ext_proc::kImmediateBody, reply.body);
  HeaderMutation(ext_proc::kImmediateHeaders, reply.headers, {});
  const size_t status_mark = out_.size();
  out_.Varint(ext_proc::kHttpStatusCode, static_cast<uint64_t>(reply.status));
  out_.Wrap(ext_proc::kImmediateStatus, status_mark);
  out_.Wrap(ext_proc::kImmediateResponse, mark);
  return out_.Take();
}

std::span<const StructField> EndpointMetadata(std::string_view endpoints,
                                              std::span<const StructField> scores,
                                              base::Arena* arena) {
  const std::span<StructField> fields = arena->NewSpan<StructField>(scores.empty() ? 1 : 2);
  fields[0] = StructField::String(kEndpointKey, endpoints);
  if (!scores.empty()) fields[1] = StructField::Struct(kEndpointScoresKey, scores);
  const std::span<StructField> spaces = arena->NewSpan<StructField>(1);
  spaces[0] = StructField::Struct(kEndpointNamespace, fields);
  return spaces;
}

// --- ExtProcChunks ------------------------------------------------------------------------------

bool ExtProcChunks::Next(std::vector<base::Slice>* chunk) {
  if (done_) return false;
  chunk->clear();
  size_t room = kExtProcChunkBytesMax;
  while (room > 0 && !body_.empty()) {
    const base::Slice& slice = body_.front();
    const size_t bytes = std::min(room, slice.size() - offset_);
    if (bytes > 0) chunk->push_back(slice.Sub(offset_, bytes));
    room -= bytes;
    offset_ += bytes;
    if (offset_ < slice.size()) break;
    body_ = body_.subspan(1);
    offset_ = 0;
  }
  while (!body_.empty() && body_.front().empty()) body_ = body_.subspan(1);
  done_ = body_.empty();
  return true;
}

}  // namespace llmd::wire
