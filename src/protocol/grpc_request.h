// GrpcRequestReader: the request message of a gRPC body, read while it arrives: vLLM's own, or the
// JSON document in a google.api.HttpBody. Internal to protocol/; RequestParser drives it.
//
// Thread safety: none. Memory: the request's arena only.
// Invariants: those of request.h. A field that is read and given twice is an error, although
// protobuf would take the last one: no client writes that. Bytes behind the first message are not
// read. Compressed messages are refused.
// Formats: upstream's vllm_engine.proto; google/cloud/aiplatform/v1beta1/prediction_service.proto,
// google/api/httpbody.proto.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/arena.h"
#include "base/status.h"
#include "protocol/dialect.h"
#include "protocol/pieces.h"
#include "wire/grpc_frames.h"
#include "wire/proto_scan.h"

namespace llmd::protocol {

class GrpcRequestReader {
 public:
  // All outlive the reader.
  GrpcRequestReader(const Dialect& dialect, base::Arena& arena, PieceList* pieces,
                    MediaFeatureList* features, Request* request);

  // `chunk` must live until the next Feed; the one before is used up (Next returned false).
  void Feed(std::string_view chunk) { frames_.Feed(chunk); }
  // Reads on; true with a part of the JSON document inside. Never true for vLLM's messages.
  bool Next(std::string_view* json);
  // Nothing is wrong so far.
  bool good() const { return wrong_.empty() && scan_.error() == wire::ProtoError::kNone; }
  base::Status Finish() const;

 private:
  enum class Message : uint8_t {
    kGenerate, kEmbed, kTokenized, kSampling, kMediaInputs, kPlaceholder,  // vllm.grpc.engine
    kVertex, kHttpBody,
  };
  enum class Taken : uint8_t { kText, kTokenIds, kHash, kJson };

  bool NextInMessage(std::string_view* json);
  void OnLength();
  void OnNumber();
  void OnBytes();
  void OnLeave();
  void OnHash();
  void AddTokenId(uint32_t id);
  void Enter(Message message);
  void Take(Taken taken);
  bool Once(uint32_t bit);
  void Wrong(std::string_view what, uint64_t at);
  Message top() const { return messages_[message_count_ - 1]; }

  const Dialect& dialect_;
  base::Arena& arena_;
  PieceList* pieces_;
  MediaFeatureList* features_;
  Request* request_;
  wire::GrpcFrames frames_;
  wire::ProtoScanner scan_;
  wire::PackedVarints packed_;
  std::string_view wrong_;        // what is wrong beyond the wire format
  uint64_t wrong_at_ = 0;         // in the message
  uint64_t taken_at_ = 0;         // where the content that is taken begins
  Message messages_[wire::kProtoScanDepthMax];
  uint8_t message_count_ = 1;
  Taken taken_ = Taken::kText;
  bool framed_ = false;           // the message has begun
  bool complete_ = false;         // the message has ended well
  uint32_t seen_ = 0;
  uint64_t unpacked_count_ = 0;
  uint32_t placeholder_offset_ = 0;
  uint32_t placeholder_length_ = 0;
  char* unpacked_ = nullptr;      // ids that came one by one, packed: room and its end
  char* unpacked_end_ = nullptr;
  char* hash_ = nullptr;          // a hash being put together
  size_t hash_size_ = 0;
};

}  // namespace llmd::protocol
