#include "net/client_connection.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "net/tls.h"

namespace llmd::net {
namespace {

constexpr size_t kFirstReadBytes = 16 << 10;
constexpr size_t kReadBytesMax = base::BufferPool::kLargestPooledBytes;
constexpr size_t kPiecesMax = 64;  // decoded parts per OnResponseBody
constexpr size_t kFlushEarlyBytes = 256 << 10;

}  // namespace

ClientConnection::ClientConnection(HttpClient::Impl& client, ClientTarget* target)
    : client_(client),
      target_(target),
      timer_(client.loop, [this] { OnTimer(); }),
      out_(client.loop.buffers()),
      in_(client.loop.buffers()),
      parser_(client.options.limits),
      decoder_(client.options.limits.trailer_bytes_max),
      last_read_(client.loop.now()),
      last_write_(last_read_),
      idle_since_(last_read_) {
  next_ = client_.connections;
  if (next_) next_->previous_ = this;
  client_.connections = this;
  ++target_->connection_count;
}

ClientConnection::~ClientConnection() {
  Unlink();
  (previous_ ? previous_->next_ : client_.connections) = next_;
  if (next_) next_->previous_ = previous_;
  --target_->connection_count;
  client_.ReleaseTarget(target_);
}

void ClientConnection::Connect() {
  ++client_.stats.connects;
  auto fd = runtime::ConnectTcp(target_->spec.address);
  if (!fd) {
    FailAtTurnEnd(ClientErrorKind::kConnectFailed, 0, fd.error().ToString());
    return;
  }
  auto stream = target_->spec.tls
                    ? target_->spec.tls->NewStream(loop(), *fd, *this, target_->spec.tls_name)
                    : runtime::NewTcpStream(loop(), *fd, *this);
  if (!stream) {
    FailAtTurnEnd(ClientErrorKind::kConnectFailed, 0, stream.error().ToString());
    return;
  }
  stream_ = *std::move(stream);
}

void ClientConnection::FailAtTurnEnd(ClientErrorKind kind, int errno_value, std::string detail) {
  pending_error_ = std::make_unique<ClientError>(
      ClientError{.kind = kind, .errno_value = errno_value, .detail = std::move(detail)});
  loop().AtTurnEnd(*this);
}

void ClientConnection::Begin(ClientHandler& handler, base::Slice head,
                             std::span<const base::Slice> body, const StartOptions& options) {
  handler_ = &handler;
  options_ = options;
  ++exchange_number_;
  sent_bytes_ = response_bytes_ = 0;
  read_bytes_ = std::max(options.reply_bytes_hint, kFirstReadBytes);
  request_finished_ = options.request_body == RequestBody::kComplete;
  reply_complete_ = write_failed_ = paused_ = above_high_ = false;
  parser_.Reset();
  last_read_ = last_write_ = loop().now();
  out_.Append(std::move(head));
  for (const base::Slice& piece : body) SendPart(piece);
  if (phase_ == Phase::kIdle) {
    reused_ = true;
    ++client_.stats.reused;
    phase_ = Phase::kHead;
    Flush();
    // Written later events lead on; a failed write is looked at when the turn ends.
    if (write_failed_) loop().AtTurnEnd(*this);
  }
  UpdateTimer();
}

void ClientConnection::SendPart(const base::Slice& bytes) {
  if (bytes.empty()) return;
  if (options_.request_body != RequestBody::kStreamedChunked) {
    out_.Append(bytes);
    return;
  }
  char size_line[18];
  out_.AppendCopy({size_line, wire::WriteChunkSize(bytes.size(), size_line)});
  out_.Append(bytes);
  out_.AppendCopy("\r\n");
}

void ClientConnection::FinishConnect() {
  if (int error = runtime::SocketError(stream_->fd()); error != 0) {
    ++client_.stats.connect_failures;
    Fail(ClientErrorKind::kConnectFailed, error);
    return;
  }
  phase_ = Phase::kHead;
  last_write_ = loop().now();
  Flush();
}

void ClientConnection::OnIo(runtime::IoEvents events) {
  if (phase_ == Phase::kClosed) return;
  if (events.readable()) can_read_ = true;
  if (events.peer_closed()) peer_closed_ = true;
  if (phase_ == Phase::kConnecting) {
    if (events.writable() || events.failed()) FinishConnect();
  } else if (!out_.empty()) {
    Flush();
  }
  if (phase_ != Phase::kClosed && phase_ != Phase::kConnecting) ReadWhileWanted();
  UpdateTimer();
}

void ClientConnection::OnTurnEnd() {
  if (phase_ == Phase::kClosed) {
    delete this;
    return;
  }
  if (pending_error_) {
    ++client_.stats.connect_failures;
    Fail(pending_error_->kind, pending_error_->errno_value, std::move(pending_error_->detail));
    return;
  }
  if (phase_ == Phase::kConnecting) return;
  if (active() && !out_.empty() && !out_.blocked()) Flush();
  if (active() && above_high_ && out_.bytes() <= kPendingLowBytes) {
    above_high_ = false;
    handler_->OnRequestWritable();
  }
  if (write_failed_) can_read_ = true;
  if (phase_ != Phase::kClosed && active()) {
    Process();
    ReadWhileWanted();
  }
  UpdateTimer();
}

void ClientConnection::Flush() {
  if (out_.empty() || write_failed_) return;
  const runtime::IoResult result = out_.Flush(*stream_);
  client_.stats.bytes_written += result.bytes;
  sent_bytes_ += result.bytes;
  if (result.bytes > 0) last_write_ = loop().now();
  if (result.status == runtime::IoStatus::kError) {
    // The server may have answered before it stopped reading: what can be read decides.
    write_failed_ = true;
    out_.Clear();
    can_read_ = true;
  }
  if (above_high_ && out_.bytes() <= kPendingLowBytes) loop().AtTurnEnd(*this);
}

size_t ClientConnection::ReadSize() const {
  if (phase_ == Phase::kBody && framing_ == wire::HttpFraming::kLength) {
    return static_cast<size_t>(std::clamp<uint64_t>(body_left_, kFirstReadBytes, kReadBytesMax));
  }
  return read_bytes_;
}

void ClientConnection::ReadWhileWanted() {
  while (can_read_ && phase_ != Phase::kClosed && !paused_ && !reply_complete_) {
    const std::span<char> room = in_.Room(ReadSize());
    const runtime::IoResult result = stream_->Read(room);
    client_.stats.bytes_read += result.bytes;
    in_.Filled(result.bytes);
    if (result.bytes > 0) last_read_ = loop().now();
    if (result.bytes == room.size()) read_bytes_ = std::min(read_bytes_ * 2, kReadBytesMax);
    if (result.status == runtime::IoStatus::kDrained) can_read_ = peer_closed_ && result.bytes > 0;
    if (phase_ == Phase::kIdle) {
      // Bytes that nobody asked for, or the end. (A TLS record without content is neither.)
      if (result.bytes > 0 || result.status == runtime::IoStatus::kEnd ||
          result.status == runtime::IoStatus::kError) {
        ++client_.stats.idle_closed_by_server;
        Close();
      }
      continue;
    }
    response_bytes_ += result.bytes;
    const uint64_t number = exchange_number_;
    Process();
    if (number != exchange_number_ || !active()) return;
    if (result.status == runtime::IoStatus::kEnd || result.status == runtime::IoStatus::kError) {
      can_read_ = false;
      ReadEnded(result.status == runtime::IoStatus::kEnd);
      return;
    }
    if (write_failed_ && !can_read_) {
      Fail(response_bytes_ == 0 ? ClientErrorKind::kResetBeforeReply : ClientErrorKind::kBodyCut,
           stream_->error());
      return;
    }
  }
}

void ClientConnection::Process() {
  if (!active() || paused_) return;
  if (reply_complete_) {
    EndReply();
    return;
  }
  if (phase_ == Phase::kHead && !in_.empty()) ProcessHead();
  if (phase_ == Phase::kBody && active() && !paused_) ProcessBody();
}

void ClientConnection::ProcessHead() {
  wire::ResponseHead& head = client_.head;
  while (phase_ == Phase::kHead && !in_.empty()) {
    const wire::ParseState state = parser_.ParseResponse(in_.unread(), head, options_.head_request);
    if (state == wire::ParseState::kNeedMore) return;
    if (state == wire::ParseState::kError) {
      Fail(ClientErrorKind::kBadReply, 0, std::string(wire::HttpErrorName(parser_.error())));
      return;
    }
    parser_.Reset();
    // Keeps the bytes that the views of `head` look at.
    const base::Slice hold = in_.Share(in_.unread().substr(0, head.head_bytes));
    in_.Consume(head.head_bytes);
    if (head.status == 101) {
      Fail(ClientErrorKind::kBadReply, 0, "101 without an Upgrade");
      return;
    }
    if (head.status < 200) continue;
    phase_ = Phase::kBody;
    framing_ = head.framing;
    body_left_ = head.framing == wire::HttpFraming::kLength ? head.content_length : 0;
    reply_keeps_alive_ = head.keep_alive;
    decoder_ = wire::ChunkedDecoder(client_.options.limits.trailer_bytes_max);
    const uint64_t number = exchange_number_;
    handler_->OnResponseHead(head);
    if (number != exchange_number_ || !active()) return;
    if (framing_ == wire::HttpFraming::kNone) ReplyEnded();
    return;
  }
}

void ClientConnection::ProcessBody() {
  if (in_.empty() || reply_complete_) return;
  if (framing_ == wire::HttpFraming::kChunked) {
    ProcessChunked();
    return;
  }
  std::string_view part = in_.unread();
  if (framing_ == wire::HttpFraming::kLength) {
    part = part.substr(0, static_cast<size_t>(std::min<uint64_t>(body_left_, part.size())));
    body_left_ -= part.size();
  }
  if (!Deliver(part, {&part, 1})) return;
  if (framing_ == wire::HttpFraming::kLength && body_left_ == 0) ReplyEnded();
}

void ClientConnection::ProcessChunked() {
  using Step = wire::ChunkedDecoder::Step;
  std::array<std::string_view, kPiecesMax> pieces;
  while (!in_.empty() && !paused_) {
    const std::string_view unread = in_.unread();
    std::string_view rest = unread;
    size_t count = 0;
    Step step = Step::kData;
    while (count < kPiecesMax && step == Step::kData) {
      step = decoder_.Next(rest, pieces[count]);
      if (step == Step::kData) ++count;
    }
    const std::string_view raw = unread.substr(0, unread.size() - rest.size());
    if (step == Step::kError) {
      Fail(ClientErrorKind::kBadReply, 0, std::string(wire::HttpErrorName(decoder_.error())));
      return;
    }
    if (!Deliver(raw, {pieces.data(), count})) return;
    if (step == Step::kEnd) {
      ReplyEnded();
      return;
    }
  }
}

bool ClientConnection::Deliver(std::string_view raw, std::span<const std::string_view> decoded) {
  if (raw.empty()) return true;
  const uint64_t number = exchange_number_;
  const base::Slice slice = in_.Share(raw);
  in_.Consume(raw.size());
  handler_->OnResponseBody(slice, decoded);
  return number == exchange_number_ && active();
}

void ClientConnection::ReplyEnded() {
  reply_complete_ = true;
  if (!paused_) EndReply();
}

void ClientConnection::ReadEnded(bool cleanly) {
  if (phase_ == Phase::kBody && framing_ == wire::HttpFraming::kUntilClose && cleanly) {
    ReplyEnded();
    return;
  }
  const ClientErrorKind kind = response_bytes_ > 0 ? ClientErrorKind::kBodyCut
                               : sent_bytes_ == 0 && target_->spec.tls && !reused_
                                   ? ClientErrorKind::kTlsFailed
                                   : ClientErrorKind::kResetBeforeReply;
  Fail(kind, stream_->error(), stream_->error_text());
}

// The last act of a call: the handler may start the next exchange on this very connection.
void ClientConnection::EndReply() {
  ClientHandler* handler = std::exchange(handler_, nullptr);
  ++exchange_number_;
  const bool usable = reply_keeps_alive_ && request_done() && in_.empty() && !write_failed_ &&
                      !peer_closed_ && !target_->removed &&
                      target_->idle_count < client_.options.idle_per_target_max;
  if (usable) {
    GoIdle();
  } else {
    Close();
  }
  handler->OnResponseEnd();
}

void ClientConnection::Fail(ClientErrorKind kind, int errno_value, std::string detail) {
  ClientHandler* handler = std::exchange(handler_, nullptr);
  ++exchange_number_;
  ClientError error{.kind = kind,
                    .reused_connection = reused_,
                    .head_received = phase_ == Phase::kBody,
                    .request_sent = request_done() && !write_failed_ && sent_bytes_ > 0,
                    .request_bytes_sent = sent_bytes_,
                    .response_bytes = response_bytes_,
                    .errno_value = errno_value,
                    .detail = std::move(detail)};
  if (error.detail.empty() && errno_value != 0) error.detail = std::strerror(errno_value);
  Close();
  if (handler) handler->OnResponseError(error);
}

void ClientConnection::GoIdle() {
  phase_ = Phase::kIdle;
  reply_complete_ = false;
  idle_since_ = loop().now();
  next_idle_ = target_->idle;
  previous_idle_ = nullptr;
  if (next_idle_) next_idle_->previous_idle_ = this;
  target_->idle = this;
  ++target_->idle_count;
}

void ClientConnection::Unlink() {
  if (phase_ != Phase::kIdle) return;
  (previous_idle_ ? previous_idle_->next_idle_ : target_->idle) = next_idle_;
  if (next_idle_) next_idle_->previous_idle_ = previous_idle_;
  next_idle_ = previous_idle_ = nullptr;
  --target_->idle_count;
}

void ClientConnection::Close() {
  Unlink();
  phase_ = Phase::kClosed;
  stream_.reset();
  out_.Clear();
  in_.Clear();
  timer_.Disarm();
  loop().AtTurnEnd(*this);
}

void ClientConnection::CloseIdle() { Close(); }

base::TimePoint ClientConnection::Deadline() const {
  const ClientTimeouts& timeouts = options_.timeouts;
  switch (phase_) {
    case Phase::kConnecting:
      return last_write_ + timeouts.connect;
    case Phase::kIdle:
      return idle_since_ + client_.options.idle_timeout;
    case Phase::kHead:
    case Phase::kBody: {
      base::TimePoint deadline = base::TimePoint::max();
      if (out_.blocked()) deadline = last_write_ + timeouts.write;
      if (phase_ == Phase::kHead && request_done()) {
        deadline = std::min(deadline, std::max(last_write_, last_read_) + timeouts.head);
      } else if (phase_ == Phase::kBody && !paused_) {
        deadline = std::min(deadline, last_read_ + timeouts.body_idle);
      }
      return deadline;
    }
    case Phase::kClosed:
      break;
  }
  return base::TimePoint::max();
}

void ClientConnection::UpdateTimer() {
  const base::TimePoint deadline = Deadline();
  if (deadline == base::TimePoint::max()) {
    timer_.Disarm();
  } else {
    timer_.ArmAt(deadline);
  }
}

void ClientConnection::OnTimer() {
  if (Deadline() > loop().now()) {
    UpdateTimer();
    return;
  }
  if (phase_ == Phase::kIdle) {
    Close();
  } else if (phase_ == Phase::kConnecting) {
    ++client_.stats.connect_failures;
    Fail(ClientErrorKind::kConnectTimeout);
  } else if (out_.blocked() && loop().now() >= last_write_ + options_.timeouts.write) {
    Fail(ClientErrorKind::kWriteTimeout);
  } else {
    Fail(phase_ == Phase::kHead ? ClientErrorKind::kHeadTimeout : ClientErrorKind::kBodyTimeout);
  }
}

namespace {
ClientConnection& Of(ClientExchange* exchange) { return *static_cast<ClientConnection*>(exchange); }
const ClientConnection& Of(const ClientExchange* exchange) {
  return *static_cast<const ClientConnection*>(exchange);
}
}  // namespace

void ClientExchange::SendBody(base::Slice bytes) {
  ClientConnection& connection = Of(this);
  if (connection.request_finished_ || connection.write_failed_) return;
  connection.SendPart(bytes);
  if (connection.phase_ != ClientConnection::Phase::kConnecting && !connection.out_.blocked() &&
      connection.out_.bytes() >= kFlushEarlyBytes) {
    connection.Flush();
  }
  if (connection.out_.bytes() >= kPendingHighBytes) connection.above_high_ = true;
  loop().AtTurnEnd(connection);
}

void ClientExchange::FinishBody() {
  ClientConnection& connection = Of(this);
  if (connection.request_finished_) return;
  connection.request_finished_ = true;
  if (connection.options_.request_body == RequestBody::kStreamedChunked) {
    connection.out_.AppendCopy("0\r\n\r\n");
  }
  loop().AtTurnEnd(connection);
}

size_t ClientExchange::request_pending_bytes() const { return Of(this).out_.bytes(); }
void ClientExchange::Pause() { Of(this).paused_ = true; }

void ClientExchange::Resume() {
  ClientConnection& connection = Of(this);
  if (!connection.paused_) return;
  connection.paused_ = false;
  connection.last_read_ = loop().now();
  loop().AtTurnEnd(connection);
}

void ClientExchange::Cancel() {
  ClientConnection& connection = Of(this);
  if (!connection.active()) {
    LLMD_BUG("an exchange was cancelled that had ended");
    return;
  }
  connection.handler_ = nullptr;
  ++connection.exchange_number_;
  ++connection.client_.stats.cancelled;
  connection.Close();
}

bool ClientExchange::reused_connection() const { return Of(this).reused_; }
runtime::EventLoop& ClientExchange::loop() const { return Of(this).client_.loop; }

}  // namespace llmd::net
