#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "net/grpc_gzip.h"
#include "net/grpc_text.h"
#include "net/http2_connection.h"

namespace llmd::net {
namespace {

// A piece below this size costs more as an entry of its own than as a copy.
constexpr size_t kCopyBytes = 512;
// Room that a recycled call keeps.
constexpr size_t kTextKept = 4096;
constexpr size_t kFieldsKept = 64;
constexpr size_t kPiecesKept = 256;
// Of what a compressed message may become: a few KB can stand for gigabytes.
constexpr uint32_t kInflatedBytesMax = 64u << 20;

}  // namespace

std::string_view GrpcEndName(GrpcEnd end) {
  switch (end) {
    case GrpcEnd::kFinished:
      return "finished";
    case GrpcEnd::kClientReset:
      return "client-reset";
    case GrpcEnd::kConnectionLost:
      return "connection-lost";
    case GrpcEnd::kDeadline:
      return "deadline";
    case GrpcEnd::kBadMessage:
      return "bad-message";
    case GrpcEnd::kStalled:
      return "stalled";
    case GrpcEnd::kReset:
      return "reset";
  }
  return "";
}

GrpcCall::GrpcCall(runtime::EventLoop& loop)
    : deadline_timer_(loop, [this] {
        Fail(GrpcEnd::kDeadline, base::StatusCode::kDeadlineExceeded, "the deadline has passed");
      }) {}

GrpcCall::~GrpcCall() = default;

// Ready for the next stream, as if new but with its memory.
void GrpcCall::Clear() {
  connection_ = nullptr;
  handler_ = nullptr;
  next_ = previous_ = nullptr;
  counted_ = too_many_fields_ = response_begun_ = deferred_ = half_closed_ = finish_called_ =
      reset_called_ = trailers_sent_ = ended_ = reading_paused_ = above_high_ = compressed_ =
          accepts_gzip_ = false;
  frames_ = {};
  message_bytes_ = header_bytes_ = 0;
  owed_window_ = 0;
  received_bytes_ = sent_bytes_ = 0;
  deadline_ = base::TimePoint::max();
  deadline_timer_.Disarm();
  path_ = {};
  text_.clear();
  if (text_.capacity() > kTextKept) text_.shrink_to_fit();
  fields_.clear();
  if (fields_.capacity() > kFieldsKept) fields_.shrink_to_fit();
  if (unsent_.capacity() > kPiecesKept) unsent_.shrink_to_fit();
  status_ = base::StatusCode::kOk;
  status_message_.clear();
  gzip_.reset();
}

// --- the request ---------------------------------------------------------------------------------

void GrpcCall::AddField(std::string_view name, std::string_view value, uint32_t list_bytes_max) {
  constexpr size_t kFieldOverheadBytes = 32;  // RFC 9113, 6.5.2
  const size_t bytes = name.size() + value.size() + kFieldOverheadBytes;
  if (too_many_fields_ || bytes > list_bytes_max - header_bytes_) {
    too_many_fields_ = true;
    return;
  }
  header_bytes_ += static_cast<uint32_t>(bytes);
  const auto begin = static_cast<uint32_t>(text_.size());
  const auto name_size = static_cast<uint32_t>(name.size());
  fields_.push_back({begin, name_size, begin + name_size, static_cast<uint32_t>(value.size())});
  text_ += name;
  text_ += value;
}

std::string_view GrpcCall::Metadata(std::string_view name) const {
  for (const Field& field : fields_) {
    if (Text(field.name_begin, field.name_size) == name) {
      return Text(field.value_begin, field.value_size);
    }
  }
  return "";
}

void GrpcCall::Deliver(base::Slice chunk) {
  frames_.Feed(chunk.view());
  while (Listening()) {
    const wire::GrpcFrames::Event event = frames_.Next();
    if (event == wire::GrpcFrames::Event::kMore) return;
    if (event == wire::GrpcFrames::Event::kMessage) {
      if (!BeginMessage()) return;
      continue;
    }
    const std::string_view part = frames_.part();
    const bool last = frames_.last();
    base::Slice piece = chunk.Sub(static_cast<size_t>(part.data() - chunk.data()), part.size());
    received_bytes_ += part.size();
    if (compressed_) {
      DeliverCompressed(std::move(piece), last);
    } else {
      handler_->OnMessagePiece(std::move(piece), last);
    }
  }
}

bool GrpcCall::BeginMessage() {
  const uint32_t size = frames_.length();
  GrpcServer::Impl& server = connection_->server_;
  compressed_ = frames_.compressed();
  if (size > server.options.message_bytes_max) {
    ++server.stats.messages_too_large;
    Fail(GrpcEnd::kBadMessage, base::StatusCode::kResourceExhausted,
         base::Concat("a message of ", std::to_string(size), " bytes is larger than ",
                      std::to_string(server.options.message_bytes_max)));
    return false;
  }
  const bool malformed = frames_.flag() > 1;
  if (malformed || (compressed_ && !accepts_gzip_)) {
    ++server.stats.bad_messages;
    if (malformed) {
      Fail(GrpcEnd::kBadMessage, base::StatusCode::kInternal, "malformed message prefix");
    } else {
      Fail(GrpcEnd::kBadMessage, base::StatusCode::kUnimplemented,
           "messages may be compressed with gzip only (grpc-encoding)");
    }
    return false;
  }
  message_bytes_ = compressed_ ? 0 : size;
  if (compressed_) {
    if (!gzip_) gzip_ = std::make_unique<GzipReader>(loop().buffers());
    gzip_->Begin(std::min(server.options.message_bytes_max, kInflatedBytesMax));
  }
  return true;
}

void GrpcCall::DeliverCompressed(base::Slice piece, bool last) {
  std::string_view input = piece.view();
  GzipReader::Step step;
  do {
    base::Slice inflated;
    step = gzip_->Next(input, inflated);
    if (!inflated.empty()) handler_->OnMessagePiece(std::move(inflated), false);
    if (!Listening()) return;
  } while (step == GzipReader::Step::kMore);
  if (step == GzipReader::Step::kTooLarge) {
    ++connection_->server_.stats.messages_too_large;
    Fail(GrpcEnd::kBadMessage, base::StatusCode::kResourceExhausted,
         "a message is too large when decompressed");
  } else if (step == GzipReader::Step::kError || (last && step != GzipReader::Step::kEnd)) {
    ++connection_->server_.stats.bad_messages;
    Fail(GrpcEnd::kBadMessage, base::StatusCode::kInternal, "a message is not valid gzip");
  } else if (last) {
    handler_->OnMessagePiece(base::Slice(), true);
  }
}

void GrpcCall::HalfClose() {
  half_closed_ = true;
  if (!Listening()) return;
  if (frames_.inside()) {
    ++connection_->server_.stats.bad_messages;
    Fail(GrpcEnd::kBadMessage, base::StatusCode::kInternal, "the last message is cut off");
    return;
  }
  handler_->OnHalfClose();
}

void GrpcCall::PauseReading() { reading_paused_ = true; }

void GrpcCall::ResumeReading() {
  reading_paused_ = false;
  if (ended_) return;
  connection_->GiveWindow(*this);
  connection_->QueueTurn();
}

// --- the answer ----------------------------------------------------------------------------------

void GrpcCall::Send(std::span<base::Slice> pieces) {
  if (ended_ || finish_called_ || reset_called_) return;
  size_t size = 0;
  for (const base::Slice& piece : pieces) size += piece.size();
  if (size > UINT32_MAX) {
    LLMD_BUG("a gRPC message of more than 4 GiB");
    Reset();
    return;
  }
  char prefix[wire::kGrpcPrefixBytes];
  wire::WriteGrpcPrefix(size, prefix);
  GrpcServer::Impl& server = connection_->server_;
  if (unsent_bytes_ == 0) last_progress_ = loop().now();
  if (size < kCopyBytes) {
    AppendUnsent(server.CopySmall({prefix, sizeof(prefix)}, pieces));
  } else {
    AppendUnsent(server.CopySmall({prefix, sizeof(prefix)}, {}));
    for (base::Slice& piece : pieces) {
      if (piece.empty()) continue;
      AppendUnsent(piece.size() < kCopyBytes ? server.CopySmall(piece.view(), {})
                                             : std::move(piece));
    }
  }
  sent_bytes_ += sizeof(prefix) + size;
  if (unsent_bytes_ >= kUnsentHighBytes) above_high_ = true;
  connection_->ResumeData(*this);
}

void GrpcCall::Send(std::string_view message) { Send(buffers().Copy(message)); }

void GrpcCall::AppendUnsent(base::Slice piece) {
  unsent_bytes_ += piece.size();
  connection_->unsent_bytes_ += piece.size();
  unsent_.push_back(std::move(piece));
}

void GrpcCall::MoveUnsent(size_t bytes, OutQueue& out) {
  if (bytes == 0) return;
  unsent_bytes_ -= bytes;
  connection_->unsent_bytes_ -= bytes;
  last_progress_ = loop().now();
  while (bytes > 0) {
    base::Slice& piece = unsent_[unsent_begin_];
    const size_t size = std::min(bytes, piece.size());
    bytes -= size;
    if (size == piece.size()) {
      out.Append(std::move(piece));
      ++unsent_begin_;
    } else {
      out.Append(piece.Sub(0, size));
      piece.RemovePrefix(size);
    }
  }
  if (unsent_begin_ == unsent_.size()) {
    unsent_.clear();
    unsent_begin_ = 0;
  } else if (unsent_begin_ > kPiecesKept && unsent_begin_ * 2 > unsent_.size()) {
    // Amortised: the dead front is moved out once it outweighs the rest.
    unsent_.erase(unsent_.begin(), unsent_.begin() + static_cast<ptrdiff_t>(unsent_begin_));
    unsent_begin_ = 0;
  }
  if (above_high_ && unsent_bytes_ <= kUnsentLowBytes) connection_->writable_due_ = true;
}

void GrpcCall::DropUnsent() {
  connection_->unsent_bytes_ -= unsent_bytes_;
  unsent_bytes_ = 0;
  unsent_.clear();
  unsent_begin_ = 0;
}

void GrpcCall::Finish(base::StatusCode code, std::string_view message) {
  if (ended_ || finish_called_ || reset_called_) return;
  Conclude(code, message);
}

void GrpcCall::Conclude(base::StatusCode code, std::string_view message) {
  finish_called_ = true;
  status_ = code;
  AppendGrpcMessage(&status_message_, message, kMessageBytesMax);
  if (response_begun_) {
    connection_->ResumeData(*this);
  } else {
    connection_->SubmitTrailers(*this, true);
  }
}

void GrpcCall::Reset() {
  if (ended_ || reset_called_) return;
  connection_->SubmitCancel(*this);
}

void GrpcCall::Fail(GrpcEnd why, base::StatusCode code, std::string_view message) {
  if (ended_) return;
  End(why);
  if (finish_called_ || reset_called_) return;
  const bool begun = unsent_bytes_ > 0 && unsent_bytes_ < sent_bytes_;
  if (begun) {  // perhaps inside a message: trailers would be taken for a part of it
    connection_->SubmitCancel(*this);
    return;
  }
  DropUnsent();
  Conclude(code, message);
}

void GrpcCall::End(GrpcEnd why) {
  if (ended_) return;
  ended_ = true;
  deadline_timer_.Disarm();
  if (counted_) {
    GrpcServerStats& stats = connection_->server_.stats;
    if (why == GrpcEnd::kFinished) ++stats.finished;
    if (why == GrpcEnd::kClientReset) ++stats.client_resets;
    if (why == GrpcEnd::kConnectionLost) ++stats.connection_lost_calls;
    if (why == GrpcEnd::kDeadline) ++stats.deadlines_exceeded;
  }
  if (GrpcHandler* handler = std::exchange(handler_, nullptr)) handler->OnEnd(why);
}

runtime::EventLoop& GrpcCall::loop() const { return connection_->server_.loop; }
const runtime::SocketAddress& GrpcCall::peer() const { return connection_->peer_; }
bool GrpcCall::is_tls() const { return connection_->server_.options.tls != nullptr; }
uint64_t GrpcCall::connection_id() const { return connection_->id_; }

}  // namespace llmd::net
