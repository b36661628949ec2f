#include "protocol/grpc_request.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/strings.h"

namespace llmd::protocol {
namespace {

using wire::ProtoEvent;

constexpr std::string_view kGivenTwice = "a field is given twice";
constexpr std::string_view kBadIds = "malformed token ids";
constexpr std::string_view kCompressed = "compressed gRPC payload is not supported";
constexpr size_t kHashBytesMax = 256;     // BLAKE3 and SHA-512 in hex take 128
constexpr size_t kUnpackedRoom = 1024;    // ids that came one by one, per piece
constexpr size_t kIdBytesMax = 5;

// Bits of GrpcRequestReader::seen_.
enum Seen : uint32_t { kInput = 1, kSamplingSeen = 2, kMedia = 4, kBody = 8, kData = 16 };

constexpr Dialect Vertex(Api api, std::string_view message, std::string_view method, Api inner) {
  return {.info = {api, ApiFamily::kVertexAi, method, method, ReplyFormat::kVertexGrpc, false},
          .format = BodyFormat::kVertexGrpc,
          .message = message,
          .inner = inner};
}

constexpr std::string_view kGenerateMethod = "vllm.grpc.engine.VllmEngine/Generate";
constexpr std::string_view kEmbedMethod = "vllm.grpc.engine.VllmEngine/Embed";

constexpr Dialect kDialects[] = {
    {.info = {Api::kVllmGrpcGenerate, ApiFamily::kVllmGrpc, kGenerateMethod, kGenerateMethod,
              ReplyFormat::kVllmGrpc, false},
     .format = BodyFormat::kVllmGrpc,
     .content_error = "not supported request inputType",
     .message = "GenerateRequest"},
    {.info = {Api::kVllmGrpcEmbed, ApiFamily::kVllmGrpc, kEmbedMethod, kEmbedMethod,
              ReplyFormat::kVllmGrpc, false},
     .format = BodyFormat::kVllmGrpc,
     .content_error = "missing tokenized input in EmbedRequest",
     .message = "EmbedRequest"},
    {.info = {Api::kVllmGrpcOther, ApiFamily::kVllmGrpc, "vllm.grpc.engine.VllmEngine", "",
              ReplyFormat::kNone, false},
     .format = BodyFormat::kRaw},
    Vertex(Api::kVertexChatCompletions, "ChatCompletionsRequest",
           "PredictionService/ChatCompletions", Api::kChatCompletions),
    Vertex(Api::kVertexRawPredict, "RawPredictRequest", "PredictionService/RawPredict",
           Api::kResponses),
    Vertex(Api::kVertexStreamRawPredict, "StreamRawPredictRequest",
           "PredictionService/StreamRawPredict", Api::kResponses),
};

}  // namespace

std::span<const Dialect> GrpcDialects() { return kDialects; }

GrpcRequestReader::GrpcRequestReader(const Dialect& dialect, base::Arena& arena, PieceList* pieces,
                                     MediaFeatureList* features, Request* request)
    : dialect_(dialect), arena_(arena), pieces_(pieces), features_(features), request_(request) {
  if (dialect.format == BodyFormat::kVllmGrpc) request->encoding = Encoding::kProtobuf;
  messages_[0] = dialect.format == BodyFormat::kVertexGrpc     ? Message::kVertex
                 : dialect.info.api == Api::kVllmGrpcEmbed ? Message::kEmbed
                                                           : Message::kGenerate;
}

bool GrpcRequestReader::Next(std::string_view* json) {
  for (;;) {
    if (framed_ && !complete_ && good() && NextInMessage(json)) return true;
    switch (frames_.Next()) {
      case wire::GrpcFrames::Event::kMore: return false;
      case wire::GrpcFrames::Event::kMessage:
        if (framed_) break;
        framed_ = true;
        if (frames_.compressed()) Wrong(kCompressed, 0);
        scan_.Begin(frames_.length());
        break;
      case wire::GrpcFrames::Event::kPart:
        if (!complete_ && good()) scan_.Feed(frames_.part());
        break;
    }
  }
}

// Reads what the scanner holds.
bool GrpcRequestReader::NextInMessage(std::string_view* json) {
  while (good()) {
    switch (scan_.Next()) {
      case ProtoEvent::kMore: case ProtoEvent::kError: return false;
      case ProtoEvent::kEnd: complete_ = true; return false;
      case ProtoEvent::kVarint: OnNumber(); break;
      case ProtoEvent::kLength: OnLength(); break;
      case ProtoEvent::kLeave: OnLeave(); break;
      case ProtoEvent::kBytes:
        OnBytes();
        if (taken_ != Taken::kJson) break;
        *json = scan_.part();
        return true;
    }
  }
  return false;
}

void GrpcRequestReader::OnLength() {
  const uint32_t field = scan_.field();
  switch (top()) {
    case Message::kGenerate:
      if (field == 2 && Once(kInput)) Enter(Message::kTokenized);
      if (field == 3 && Once(kInput)) Take(Taken::kText);
      if (field == 4 && Once(kSamplingSeen)) Enter(Message::kSampling);
      if (field == 7 && Once(kMedia)) Enter(Message::kMediaInputs);
      return;
    case Message::kEmbed:
      if (field == 2 && Once(kInput)) Enter(Message::kTokenized);
      return;
    case Message::kTokenized:
      if (field == 2) Take(Taken::kTokenIds);
      return;
    case Message::kMediaInputs:
      if (field == 5) Enter(Message::kPlaceholder);
      if (field == 6) Take(Taken::kHash);
      placeholder_offset_ = placeholder_length_ = 0;
      return;
    case Message::kVertex:
      if (field == 2 && Once(kBody)) Enter(Message::kHttpBody);
      return;
    case Message::kHttpBody:
      if (field == 2 && Once(kData)) Take(Taken::kJson);
      return;
    case Message::kSampling: case Message::kPlaceholder: return;
  }
}

void GrpcRequestReader::OnNumber() {
  const uint32_t field = scan_.field();
  const auto value = static_cast<uint32_t>(scan_.value());
  switch (top()) {
    case Message::kGenerate:
      if (field == 5) request_->stream = scan_.value() != 0;
      return;
    case Message::kTokenized:
      if (field == 2) AddTokenId(value);
      return;
    case Message::kSampling:
      if (field == 8) request_->max_output_tokens = value;
      if (field == 15) request_->n = std::max(value, 1u);
      return;
    case Message::kPlaceholder:
      if (field == 1) placeholder_offset_ = value;
      if (field == 2) placeholder_length_ = value;
      return;
    default: return;
  }
}

void GrpcRequestReader::OnBytes() {
  switch (taken_) {
    case Taken::kText:
      pieces_->BeginPrompt();
      return pieces_->Add(PieceKind::kText, scan_.part(), scan_.last());
    case Taken::kTokenIds:
      if (!packed_.Feed(scan_.part()) || (scan_.last() && !packed_.complete())) {
        return Wrong(kBadIds, taken_at_);
      }
      pieces_->BeginPrompt();
      return pieces_->Add(PieceKind::kTokenIds, scan_.part(), /*last=*/false);
    case Taken::kHash: return OnHash();
    case Taken::kJson: return;
  }
}

void GrpcRequestReader::OnLeave() {
  switch (messages_[--message_count_]) {
    case Message::kTokenized:
      pieces_->BeginPrompt();
      return pieces_->Add(PieceKind::kTokenIds, {}, /*last=*/true,
                          packed_.count() + unpacked_count_);
    case Message::kPlaceholder:
      return features_->AddPlaceholder(PieceKind::kImage, placeholder_offset_,
                                       placeholder_length_);
    default: return;
  }
}

void GrpcRequestReader::OnHash() {
  const std::string_view part = scan_.part();
  if (scan_.last() && hash_size_ == 0) return features_->AddHash(PieceKind::kImage, part);
  if (!hash_) hash_ = static_cast<char*>(arena_.Allocate(kHashBytesMax, 1));
  if (hash_size_ + part.size() > kHashBytesMax) {
    return Wrong("a hash is too long", taken_at_);
  }
  if (!part.empty()) std::memcpy(hash_ + hash_size_, part.data(), part.size());
  hash_size_ += part.size();
  if (!scan_.last()) return;
  features_->AddHash(PieceKind::kImage, {hash_, hash_size_});
  hash_ = nullptr;
  hash_size_ = 0;
}

// An id outside of a packed run: it is packed into room of our own, which becomes a piece.
void GrpcRequestReader::AddTokenId(uint32_t id) {
  if (unpacked_end_ - unpacked_ < static_cast<ptrdiff_t>(kIdBytesMax)) {
    unpacked_ = static_cast<char*>(arena_.Allocate(kUnpackedRoom, 1));
    unpacked_end_ = unpacked_ + kUnpackedRoom;
  }
  char* const begin = unpacked_;
  for (; id >= 0x80; id >>= 7) *unpacked_++ = static_cast<char>(id | 0x80);
  *unpacked_++ = static_cast<char>(id);
  ++unpacked_count_;
  pieces_->BeginPrompt();
  pieces_->Add(PieceKind::kTokenIds, {begin, static_cast<size_t>(unpacked_ - begin)},
               /*last=*/false);
}

void GrpcRequestReader::Enter(Message message) {
  messages_[message_count_++] = message;
  scan_.Enter();
}

void GrpcRequestReader::Take(Taken taken) {
  taken_ = taken;
  taken_at_ = scan_.offset();
  scan_.Take();
}

bool GrpcRequestReader::Once(uint32_t bit) {
  const bool first = !(seen_ & bit);
  seen_ |= bit;
  if (!first) Wrong(kGivenTwice, scan_.offset());
  return first;
}

void GrpcRequestReader::Wrong(std::string_view what, uint64_t at) {
  wrong_ = what;
  wrong_at_ = at;
}

base::Status GrpcRequestReader::Finish() const {
  constexpr std::string_view kPayload = "invalid or unsupported gRPC payload: ";
  if (!framed_) {
    return base::InvalidArgument(base::Concat(
        kPayload, "invalid gRPC frame: expected at least ",
        std::to_string(wire::kGrpcPrefixBytes), " bytes for header, got ",
        std::to_string(frames_.prefix_bytes())));
  }
  if (wrong_ == kCompressed) return base::InvalidArgument(base::Concat(kPayload, wrong_));
  if (!good()) {
    const bool wire = wrong_.empty();
    return base::InvalidArgument(
        base::Concat("unmarshaling ", dialect_.message, ": ",
                     wire ? wire::ProtoErrorText(scan_.error()) : wrong_, " (at byte ",
                     std::to_string(wire ? scan_.offset() : wrong_at_), ")"));
  }
  if (!complete_) {
    return base::InvalidArgument(base::Concat(
        kPayload, "incomplete gRPC payload: header indicates ", std::to_string(frames_.length()),
        " bytes, but only ", std::to_string(frames_.length() - frames_.left()),
        " bytes are available"));
  }
  const bool vertex = dialect_.format == BodyFormat::kVertexGrpc;
  if (vertex && !(seen_ & kBody)) {
    return base::InvalidArgument(base::Concat(dialect_.message, " has no HttpBody"));
  }
  if (!vertex && !(seen_ & kInput)) {
    return base::InvalidArgument(std::string(dialect_.content_error));
  }
  return base::OkStatus();
}

}  // namespace llmd::protocol
