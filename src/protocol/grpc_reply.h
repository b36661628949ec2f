// GrpcReplyScanner: token usage out of the bytes of a gRPC reply that arrives in chunks.
//
// vLLM's messages tell it in every chunk of a stream and in the complete reply; the last word
// counts. google.api.HttpBody messages hold what the HTTP API would have sent: each a JSON
// document, or together a stream of events; both are read as in usage.h. Lenient: what cannot be
// read has no usage; compressed messages are passed over.
//
// Thread safety: none, one per reply. Heap: only the tail buffer of an event stream (wire/sse.h).
#pragma once

#include <cstdint>
#include <string_view>

#include "protocol/request.h"
#include "protocol/usage.h"
#include "wire/grpc_frames.h"
#include "wire/proto_scan.h"
#include "wire/sse.h"

namespace llmd::protocol {

class GrpcReplyScanner {
 public:
  // An API whose replies are gRPC (IsGrpc(InfoOf(api).reply)).
  explicit GrpcReplyScanner(Api api);

  void Feed(std::string_view chunk);
  // Valid at any time; complete after the last Feed.
  const Usage& usage() const { return usage_; }

 private:
  enum class Message : uint8_t { kGenerate, kEmbed, kChunk, kComplete, kHttpBody };
  enum class Body : uint8_t { kUnknown, kJson, kEvents };  // of an HttpBody

  void ReadMessage();
  void OnNumber();
  void OnData(std::string_view data);
  void OnEvents(std::string_view data);
  Message top() const { return inner_ ? messages_[1] : messages_[0]; }

  wire::GrpcFrames frames_;
  wire::ProtoScanner scan_;
  Message messages_[2];
  bool inner_ = false;
  bool readable_ = false;  // the message at hand
  Usage usage_;
  ReplyScanner json_;
  Body body_ = Body::kUnknown;
  bool events_ = false;    // the reply is a stream of events
  wire::SseParser sse_;
};

}  // namespace llmd::protocol
