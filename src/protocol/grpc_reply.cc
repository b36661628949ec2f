#include "protocol/grpc_reply.h"

namespace llmd::protocol {
namespace {

using wire::GrpcFrames;
using wire::ProtoEvent;

// Every event stream begins with a field name; a JSON document never does.
bool IsJson(std::string_view data) {
  const size_t at = data.find_first_not_of(" \t\r\n");
  return at != std::string_view::npos && (data[at] == '{' || data[at] == '[');
}

}  // namespace

GrpcReplyScanner::GrpcReplyScanner(Api api) : messages_{} {
  messages_[0] = api == Api::kVllmGrpcGenerate ? Message::kGenerate
                 : api == Api::kVllmGrpcEmbed  ? Message::kEmbed
                                               : Message::kHttpBody;
}

void GrpcReplyScanner::Feed(std::string_view chunk) {
  frames_.Feed(chunk);
  for (;;) {
    switch (frames_.Next()) {
      case GrpcFrames::Event::kMore: return;
      case GrpcFrames::Event::kMessage:
        readable_ = !frames_.compressed();
        inner_ = false;
        body_ = events_ ? Body::kEvents : Body::kUnknown;
        json_ = ReplyScanner();
        scan_.Begin(frames_.length());
        break;
      case GrpcFrames::Event::kPart:
        if (!readable_) break;
        scan_.Feed(frames_.part());
        ReadMessage();
        break;
    }
  }
}

void GrpcReplyScanner::ReadMessage() {
  for (;;) {
    switch (scan_.Next()) {
      case ProtoEvent::kMore: case ProtoEvent::kEnd: return;
      case ProtoEvent::kError: readable_ = false; return;
      case ProtoEvent::kVarint: OnNumber(); break;
      case ProtoEvent::kLeave: inner_ = false; break;
      case ProtoEvent::kBytes: OnData(scan_.part()); break;
      case ProtoEvent::kLength:
        if (top() == Message::kGenerate && (scan_.field() == 1 || scan_.field() == 2)) {
          messages_[1] = scan_.field() == 1 ? Message::kChunk : Message::kComplete;
          inner_ = true;
          scan_.Enter();
        } else if (top() == Message::kHttpBody && scan_.field() == 2) {
          scan_.Take();
        }
        break;
    }
  }
}

void GrpcReplyScanner::OnNumber() {
  uint32_t field = scan_.field();  // 1: prompt, 2: completion, 3: cached tokens
  switch (top()) {
    case Message::kChunk: field -= 1; break;
    case Message::kComplete: field -= 2; break;
    case Message::kEmbed: field = field == 2 ? 1 : 0; break;
    default: return;
  }
  // Zero is what proto3 leaves out: never told.
  const auto value = static_cast<int64_t>(static_cast<uint32_t>(scan_.value()));
  if (value == 0) return;
  switch (field) {
    case 1: usage_.prompt_tokens = value; break;
    case 2: usage_.completion_tokens = value; break;
    case 3:
      usage_.cached_tokens = value;
      usage_.has_cached = true;
      return;
    default: return;
  }
  usage_.present = true;
  // Upstream's messages have the number always, and leave a zero out as proto3 does.
  usage_.has_cached |= top() != Message::kEmbed;
  usage_.total_tokens = usage_.prompt_tokens + usage_.completion_tokens;
}

void GrpcReplyScanner::OnData(std::string_view data) {
  if (body_ == Body::kUnknown) {
    if (data.find_first_not_of(" \t\r\n") == std::string_view::npos) return;
    body_ = IsJson(data) ? Body::kJson : Body::kEvents;
    events_ = body_ == Body::kEvents;
  }
  if (body_ == Body::kEvents) return OnEvents(data);
  json_.Feed(data);
  if (json_.fields().usage.present) usage_ = json_.fields().usage;
}

void GrpcReplyScanner::OnEvents(std::string_view data) {
  sse_.Feed(data);
  for (wire::SseEvent event; sse_.Next(&event);) {
    if (!MayHoldUsage(event.data)) continue;
    ReplyFields fields;
    fields.usage = usage_;
    ScanPayload(event.data, &fields);
    usage_ = fields.usage;
  }
}

}  // namespace llmd::protocol
