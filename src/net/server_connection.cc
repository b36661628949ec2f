#include "net/server_connection.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace llmd::net {
namespace {

// A request head with a typical prompt fits; larger bodies get a block of their own. After a large
// request the next head is read with room for as large a body.
constexpr size_t kHeadReadBytes = 16 << 10;
// Rooms beyond kUnsureReadBytesMax are only offered when bytes for them are known to wait, so that
// a sender of little cannot pin much.
constexpr size_t kUnsureReadBytesMax = 64 << 10;
constexpr size_t kBodyReadBytesMax = base::BufferPool::kLargestPooledBytes;
// While at least this much of a body is to come, the socket reports larger amounts at once: a
// sender on another core would otherwise wake us for every segment, which costs more than the
// copying.
constexpr uint64_t kLowWaterFromBytes = 96 << 10;
// A body rest up to this size is skipped to keep the connection after an early answer.
constexpr uint64_t kSkipBodyBytesMax = 256 << 10;
// Queued response bytes beyond this leave at once instead of at the end of the turn.
constexpr size_t kFlushEarlyBytes = 256 << 10;
// Room for the framing and connection fields that SendHead adds.
constexpr size_t kAddedFieldsBytes = 160;

}  // namespace

ServerConnection::ServerConnection(HttpServer::Impl& server, const runtime::SocketAddress& peer,
                                   uint64_t id)
    : server_(server),
      peer_(peer),
      timer_(server.loop, [this] { OnTimer(); }),
      out_(server.loop.buffers()),
      in_(server.loop.buffers()),
      parser_(server.options.limits),
      id_(id),
      head_read_bytes_(kHeadReadBytes),
      last_read_(server.loop.now()),
      last_write_(last_read_),
      head_began_(last_read_) {}

ServerConnection::~ServerConnection() = default;

void ServerConnection::Attach(std::unique_ptr<runtime::Stream> stream) {
  stream_ = std::move(stream);
  UpdateTimer();
}

void ServerConnection::OnIo(runtime::IoEvents events) {
  if (events.readable()) can_read_ = true;
  if (events.peer_closed()) peer_closed_ = true;
  if (events.failed() && phase_ == Phase::kExchange) {
    Break(GoneReason::kClosed);
  } else {
    if (!out_.empty()) Flush();
    ReadWhileWanted();
  }
  Settle();
}

void ServerConnection::OnTurnEnd() {
  if (!broken_ && !out_.empty() && !out_.blocked()) Flush();
  Settle();
}

bool ServerConnection::WantsRead() const {
  if (broken_ || read_ended_) return false;
  switch (phase_) {
    case Phase::kHead:
      return !closing_;
    case Phase::kExchange:
      return !exchange_->body_ended_ && !exchange_->body_paused_;
    case Phase::kLinger:
      return true;
    case Phase::kClosed:
      break;
  }
  return false;
}

size_t ServerConnection::ReadSize() const {
  if (phase_ == Phase::kHead) return head_read_bytes_;
  if (phase_ != Phase::kExchange) return kHeadReadBytes;
  if (exchange_->head_.framing == wire::HttpFraming::kLength) {
    const bool sure = filled_ || low_water_ > 1;
    return static_cast<size_t>(std::clamp<uint64_t>(
        exchange_->body_left_, kHeadReadBytes, sure ? kBodyReadBytesMax : kUnsureReadBytesMax));
  }
  return exchange_->body_bytes_ > kHeadReadBytes ? kUnsureReadBytesMax : kHeadReadBytes;
}

void ServerConnection::ReadWhileWanted() {
  while (can_read_ && WantsRead()) {
    const std::span<char> room = in_.Room(ReadSize());
    const runtime::IoResult result = stream_->Read(room);
    filled_ = result.bytes == room.size();
    if (result.bytes > 0) {
      if (phase_ == Phase::kHead && in_.empty()) head_began_ = loop().now();
      last_read_ = loop().now();
      server_.stats.bytes_read += result.bytes;
    }
    in_.Filled(result.bytes);
    // After a FIN a short read is not the end: the FIN is still to be read.
    if (result.status == runtime::IoStatus::kDrained) can_read_ = peer_closed_ && result.bytes > 0;
    if (result.status == runtime::IoStatus::kError) {
      if (server_.options.tls && request_count_ == 0) ++server_.stats.tls_failures;
      Break(GoneReason::kClosed);
      return;
    }
    if (result.status == runtime::IoStatus::kEnd) read_ended_ = true;
    Process();
    if (!can_read_) AdjustLowWater();
  }
}

void ServerConnection::SetLowWater(size_t bytes) {
  if (bytes == low_water_) return;
  low_water_ = bytes;
  stream_->SetReadLowWater(bytes);
}

// Called when the socket has been emptied.
void ServerConnection::AdjustLowWater() {
  const bool large = phase_ == Phase::kExchange && !broken_ && !exchange_->body_ended_ &&
                     exchange_->head_.framing == wire::HttpFraming::kLength &&
                     exchange_->body_left_ >= kLowWaterFromBytes;
  SetLowWater(
      large ? static_cast<size_t>(std::min<uint64_t>(exchange_->body_left_, kBodyReadBytesMax))
            : 1);
}

void ServerConnection::Process() {
  if (phase_ == Phase::kLinger) in_.Clear();
  // A pipelined request begins when the exchange before it has ended (Settle), so one pass
  // suffices.
  if (phase_ == Phase::kHead && !in_.empty()) ProcessHead();
  if (phase_ == Phase::kExchange && !broken_) ProcessBody();
  if (!read_ended_ || broken_) return;
  // A response that is complete still goes out, and so does any to a client that may half-close.
  const bool goes_on = phase_ == Phase::kExchange &&
                       (exchange_->finish_called_ ||
                        (exchange_->body_ended_ && !server_.options.half_close_is_gone));
  if (!goes_on) Break(GoneReason::kClosed);
}

void ServerConnection::BeginExchange() {
  phase_ = Phase::kExchange;
  ++server_.active_count;
  ++request_count_;
  exchange_->connection_ = this;
  exchange_->started_at_ = head_began_;
}

void ServerConnection::ProcessHead() {
  if (!exchange_) exchange_ = server_.NewExchange();
  const wire::ParseState state = parser_.ParseRequest(in_.unread(), exchange_->head_);
  if (state == wire::ParseState::kNeedMore) return;
  BeginExchange();
  if (state == wire::ParseState::kError) {
    const wire::HttpError error = parser_.error();
    ++server_.stats.bad_heads[static_cast<size_t>(error)];
    // What the failed parse left in the head must not speak for this request.
    exchange_->head_.method = wire::HttpMethod::kOther;
    exchange_->head_.framing = wire::HttpFraming::kNone;
    RefuseRequest(wire::HttpStatusOf(error), wire::HttpErrorName(error),
                  wire::HttpErrorText(error));
    return;
  }
  parser_.Reset();
  ++server_.stats.requests;
  StartExchange();
}

// Keeps the bytes that the views of the head look at, until the response is over. A large block
// that holds the body as well is not kept for so long: the head then moves.
void ServerConnection::HoldHead() {
  ServerExchange& exchange = *exchange_;
  const std::string_view bytes = in_.unread().substr(0, exchange.head_.head_bytes);
  if (head_read_bytes_ > kHeadReadBytes) {
    exchange.head_hold_ = loop().buffers().Copy(bytes);
    const wire::ParseState again =
        parser_.ParseRequest(exchange.head_hold_.view(), exchange.head_);
    parser_.Reset();
    LLMD_CHECK(again == wire::ParseState::kDone, "a request head was read in two ways");
  } else {
    exchange.head_hold_ = in_.Share(bytes);
  }
  in_.Consume(bytes.size());
}

void ServerConnection::StartExchange() {
  ServerExchange& exchange = *exchange_;
  const wire::RequestHead& head = exchange.head_;
  HoldHead();
  exchange.suppress_body_ = head.method == wire::HttpMethod::kHead;
  exchange.body_left_ = head.framing == wire::HttpFraming::kLength ? head.content_length : 0;
  exchange.body_ended_ = head.framing == wire::HttpFraming::kNone;
  exchange.continue_due_ = head.expects_continue && !exchange.body_ended_;
  const uint64_t requests_max = server_.options.requests_per_connection_max;
  if (!head.keep_alive || (requests_max > 0 && request_count_ >= requests_max)) closing_ = true;
  if (exchange.body_left_ > server_.options.body_bytes_max) {
    ++server_.stats.bodies_too_large;
    RefuseRequest(413, "body-too-large", "The request body is larger than this server takes.");
    return;
  }
  exchange.handler_ = server_.service.OnRequest(exchange);
  if (!exchange.handler_) {
    if (exchange.finish_called_ || broken_) return;
    LLMD_BUG("a service neither answered a request nor gave a handler");
    SendError(500, "no-handler", "The request was not handled.");
    return;
  }
  if (!exchange.body_ended_) {
    SendContinueIfDue();
  } else if (!exchange.finish_called_ && !broken_) {
    exchange.handler_->OnBodyEnd();
  }
}

void ServerConnection::SendContinueIfDue() {
  ServerExchange& exchange = *exchange_;
  if (!exchange.continue_due_ || exchange.head_sent_ || exchange.body_paused_ || broken_) return;
  exchange.continue_due_ = false;
  if (!in_.empty()) return;  // the client did not wait
  out_.AppendCopy("HTTP/1.1 100 Continue\r\n\r\n");
  Flush();
}

void ServerConnection::ProcessBody() {
  ServerExchange& exchange = *exchange_;
  if (exchange.body_ended_ || exchange.head_.framing == wire::HttpFraming::kNone) return;
  if (exchange.head_.framing == wire::HttpFraming::kChunked) {
    DeliverChunked();
    return;
  }
  if (in_.empty() || exchange.body_paused_) return;
  const std::string_view unread = in_.unread();
  const size_t size = static_cast<size_t>(std::min<uint64_t>(exchange.body_left_, unread.size()));
  base::Slice piece = in_.Share(unread.substr(0, size));
  exchange.body_left_ -= size;
  in_.Consume(size);
  DeliverBody(std::move(piece));
  if (!broken_ && exchange.body_left_ == 0) EndBody();
}

void ServerConnection::DeliverBody(base::Slice piece) {
  ServerExchange& exchange = *exchange_;
  exchange.body_bytes_ += piece.size();
  exchange.continue_due_ = false;
  if (exchange.handler_ && !exchange.finish_called_) exchange.handler_->OnBody(std::move(piece));
}

void ServerConnection::DeliverChunked() {
  ServerExchange& exchange = *exchange_;
  while (!broken_ && !exchange.body_ended_ && !exchange.body_paused_ && !in_.empty()) {
    std::string_view rest = in_.unread();
    const size_t before = rest.size();
    std::string_view piece;
    const wire::ChunkedDecoder::Step step = exchange.decoder_.Next(rest, piece);
    base::Slice slice =
        step == wire::ChunkedDecoder::Step::kData ? in_.Share(piece) : base::Slice();
    in_.Consume(before - rest.size());
    switch (step) {
      case wire::ChunkedDecoder::Step::kNeedMore:
        return;
      case wire::ChunkedDecoder::Step::kEnd:
        EndBody();
        return;
      case wire::ChunkedDecoder::Step::kError: {
        const wire::HttpError error = exchange.decoder_.error();
        ++server_.stats.bad_heads[static_cast<size_t>(error)];
        FailExchange(GoneReason::kBadBody, wire::HttpStatusOf(error), wire::HttpErrorName(error),
                     wire::HttpErrorText(error));
        return;
      }
      case wire::ChunkedDecoder::Step::kData:
        if (exchange.body_bytes_ + slice.size() > server_.options.body_bytes_max) {
          ++server_.stats.bodies_too_large;
          FailExchange(GoneReason::kBodyTooLarge, 413, "body-too-large",
                       "The request body is larger than this server takes.");
          return;
        }
        DeliverBody(std::move(slice));
    }
  }
}

void ServerConnection::EndBody() {
  ServerExchange& exchange = *exchange_;
  exchange.body_ended_ = true;
  if (exchange.handler_ && !exchange.finish_called_) exchange.handler_->OnBodyEnd();
}

void ServerConnection::FailExchange(GoneReason reason, int status, std::string_view code,
                                    std::string_view message) {
  ServerExchange& exchange = *exchange_;
  closing_ = true;
  const bool answer = !exchange.head_sent_;
  if (ExchangeHandler* handler = std::exchange(exchange.handler_, nullptr)) {
    handler->OnClientGone(reason);
  }
  if (!answer || exchange.head_sent_) {
    Break(reason);
    return;
  }
  server_.service.OnBadRequest(status, code);
  SendError(status, code, message);
}

void ServerConnection::RefuseRequest(int status, std::string_view code, std::string_view message) {
  closing_ = true;
  server_.service.OnBadRequest(status, code);
  SendError(status, code, message);
}

void ServerConnection::SendError(int status, std::string_view code, std::string_view message) {
  closing_ = true;
  exchange_->Respond(status, "application/json", server_.ErrorBody(status, code, message));
}

// The socket is of no more use. Settle tells the handler and destroys the connection.
void ServerConnection::Break(GoneReason reason) {
  if (broken_) return;
  broken_ = true;
  gone_reason_ = reason;
  out_.Clear();
  loop().AtTurnEnd(*this);
}

void ServerConnection::Flush() {
  if (broken_) return;
  const runtime::IoResult result = out_.Flush(*stream_);
  server_.stats.bytes_written += result.bytes;
  if (result.bytes > 0) last_write_ = loop().now();
  if (result.status == runtime::IoStatus::kError) Break(GoneReason::kClosed);
}

// A rest of the body that is short enough to read and drop, so that the connection can go on.
bool ServerConnection::CanSkipBodyRest() const {
  return exchange_->body_ended_ ||
         (exchange_->head_.framing == wire::HttpFraming::kLength && !exchange_->continue_due_ &&
          exchange_->body_left_ <= kSkipBodyBytesMax);
}

bool ServerConnection::MayKeepAlive() const {
  return !closing_ && !server_.draining && !exchange_->close_after_ && CanSkipBodyRest() &&
         exchange_->framing_ != ResponseFraming::kUntilClose;
}

void ServerConnection::EndExchange() {
  if (ExchangeHandler* handler = std::exchange(exchange_->handler_, nullptr)) handler->OnFinished();
  if (broken_) return;
  if (!exchange_->body_ended_ && CanSkipBodyRest() && !closing_ && !exchange_->close_after_) {
    exchange_->body_paused_ = false;
    if (can_read_ || !in_.empty()) {
      ProcessBody();
      ReadWhileWanted();
    }
    if (!exchange_->body_ended_) return;
  }
  const bool again =
      !closing_ && !server_.draining && !exchange_->close_after_ && exchange_->body_ended_;
  const bool all_read = exchange_->body_ended_ && in_.empty() && !read_ended_;
  head_read_bytes_ = static_cast<size_t>(std::clamp<uint64_t>(
      exchange_->head_.head_bytes + exchange_->body_bytes_, kHeadReadBytes, kBodyReadBytesMax));
  --server_.active_count;
  server_.Recycle(std::move(exchange_));
  last_read_ = loop().now();
  if (again && !broken_) {
    phase_ = Phase::kHead;
    head_began_ = loop().now();
    return;
  }
  if (broken_) return;
  in_.Clear();
  if (all_read) {
    // Nothing unread that would turn the close into a reset and take the response with it.
    phase_ = Phase::kClosed;
    return;
  }
  phase_ = Phase::kLinger;
  stream_->ShutdownWrite();
  if (read_ended_) phase_ = Phase::kClosed;
}

// One step towards rest; false when there is none.
bool ServerConnection::SettleExchange() {
  ServerExchange& exchange = *exchange_;
  if (exchange.finish_called_ && out_.empty()) {
    EndExchange();
    if (phase_ == Phase::kExchange) return false;  // a short rest of the body is still to come
    if (phase_ == Phase::kHead && !in_.empty()) Process();
    return true;
  }
  if (peer_closed_ && exchange.body_ended_ && !exchange.finish_called_ &&
      server_.options.half_close_is_gone) {
    Break(GoneReason::kClosed);
    return true;
  }
  if (exchange.above_high_ && out_.bytes() <= ServerExchange::kPendingLowBytes) {
    exchange.above_high_ = false;
    if (exchange.handler_ && !exchange.finish_called_) exchange.handler_->OnWritable();
    return true;
  }
  if (exchange.body_ended_ || exchange.body_paused_) return false;
  if (exchange.continue_due_) SendContinueIfDue();
  if (in_.empty()) return false;
  const size_t unread = in_.unread().size();
  ProcessBody();
  return exchange.body_ended_ || exchange.body_paused_ || in_.unread().size() < unread;
}

void ServerConnection::Settle() {
  // Each pass may finish one exchange and begin the next pipelined one.
  while (!broken_ && phase_ != Phase::kClosed) {
    if (phase_ == Phase::kExchange && SettleExchange()) continue;
    if (phase_ == Phase::kHead && (read_ended_ || (closing_ && in_.empty()))) {
      phase_ = Phase::kClosed;
    } else if (!broken_ && can_read_ && WantsRead()) {
      ReadWhileWanted();
    } else {
      break;
    }
  }
  if (broken_ || phase_ == Phase::kClosed) {
    Destroy();
  } else {
    UpdateTimer();
  }
}

void ServerConnection::Destroy() {
  if (phase_ == Phase::kExchange) {
    ++server_.stats.client_gone;
    --server_.active_count;
    if (ExchangeHandler* handler = std::exchange(exchange_->handler_, nullptr)) {
      handler->OnClientGone(gone_reason_);
    }
    if (gone_reason_ == GoneReason::kAborted) stream_->ResetOnClose();
  }
  server_.Remove(this);
}

base::TimePoint ServerConnection::Deadline() const {
  const HttpServerOptions& options = server_.options;
  base::TimePoint deadline = base::TimePoint::max();
  switch (phase_) {
    case Phase::kHead:
      deadline =
          in_.empty() ? last_read_ + options.idle_timeout : head_began_ + options.head_timeout;
      break;
    case Phase::kExchange:
      if (!exchange_->body_ended_ && !exchange_->body_paused_) {
        deadline = last_read_ + options.body_timeout;
      }
      break;
    case Phase::kLinger:
      deadline = last_write_ + options.linger_timeout;
      break;
    case Phase::kClosed:
      break;
  }
  if (out_.blocked()) deadline = std::min(deadline, last_write_ + options.write_timeout);
  return deadline;
}

void ServerConnection::UpdateTimer() {
  const base::TimePoint deadline = Deadline();
  if (deadline == base::TimePoint::max()) {
    timer_.Disarm();
  } else {
    timer_.ArmAt(deadline);
  }
}

void ServerConnection::OnTimer() {
  if (!broken_ && phase_ != Phase::kClosed && Deadline() <= loop().now()) TimedOut();
  Settle();
}

void ServerConnection::TimedOut() {
  if (out_.blocked() && loop().now() >= last_write_ + server_.options.write_timeout) {
    ++server_.stats.write_timeouts;
    stream_->ResetOnClose();
    Break(GoneReason::kWriteTimeout);
  } else if (phase_ == Phase::kHead && in_.empty()) {
    ++server_.stats.idle_closed;
    phase_ = Phase::kClosed;
  } else if (phase_ == Phase::kHead) {
    ++server_.stats.head_timeouts;
    BeginExchange();
    exchange_->head_.method = wire::HttpMethod::kOther;
    exchange_->head_.framing = wire::HttpFraming::kNone;
    RefuseRequest(408, "head-timeout", "The request head did not arrive in time.");
  } else if (phase_ == Phase::kExchange) {
    BodyTimedOut();
  } else {
    phase_ = Phase::kClosed;
  }
}

void ServerConnection::BodyTimedOut() {
  const base::TimePoint before = last_read_;
  if (low_water_ > 1) {
    // Bytes below the mark are progress too.
    SetLowWater(1);
    can_read_ = true;
    ReadWhileWanted();
  }
  if (broken_ || exchange_->body_ended_ || last_read_ != before) return;
  ++server_.stats.body_timeouts;
  FailExchange(GoneReason::kBodyTimeout, 408, "body-timeout",
               "The request body did not arrive in time.");
}

void ServerConnection::BeginDrain() {
  if (phase_ == Phase::kHead && in_.empty()) closing_ = true;
  loop().AtTurnEnd(*this);
}

void ServerConnection::AbortNow() { Break(GoneReason::kAborted); }

runtime::EventLoop& ServerExchange::loop() const { return connection_->loop(); }
const runtime::SocketAddress& ServerExchange::peer() const { return connection_->peer_; }
bool ServerExchange::is_tls() const { return connection_->server_.options.tls != nullptr; }
uint64_t ServerExchange::connection_id() const { return connection_->id_; }
size_t ServerExchange::pending_bytes() const { return connection_->out_.bytes(); }

void ServerExchange::PauseBody() { body_paused_ = true; }

void ServerExchange::ResumeBody() {
  if (!body_paused_) return;
  body_paused_ = false;
  loop().AtTurnEnd(*connection_);
}

void ServerExchange::SendHead(std::string_view lines, ResponseFraming framing,
                              uint64_t content_length) {
  if (head_sent_) {
    LLMD_BUG("the head of a response was sent twice");
    return;
  }
  head_sent_ = true;
  if (connection_->broken_) return;
  const bool is_old = head_.version_minor == 0;
  if (is_old && framing == ResponseFraming::kChunked) framing = ResponseFraming::kUntilClose;
  framing_ = framing;
  response_body_left_ = framing == ResponseFraming::kLength && !suppress_body_ ? content_length : 0;
  char room[kAddedFieldsBytes];
  wire::HeadWriter added(room);
  if (framing == ResponseFraming::kLength) {
    added.Field("Content-Length", content_length);
  } else if (framing == ResponseFraming::kChunked || framing == ResponseFraming::kRawChunked) {
    added.Raw("Transfer-Encoding: chunked\r\n");
  }
  if (!connection_->MayKeepAlive()) {
    close_after_ = true;
    added.Raw("Connection: close\r\n");
  } else if (is_old) {
    added.Raw("Connection: keep-alive\r\n");
  }
  added.EndOfHead();
  response_bytes_ += lines.size() + added.size();
  connection_->out_.AppendCopy(lines);
  connection_->out_.AppendCopy(added.view());
  loop().AtTurnEnd(*connection_);
}

void ServerExchange::SendHead(int status, std::span<const wire::HttpField> fields,
                              ResponseFraming framing, uint64_t content_length) {
  SendOwnHead(status, fields, "", framing, content_length);
}

void ServerExchange::SendOwnHead(int status, std::span<const wire::HttpField> fields,
                                 std::string_view extra_lines, ResponseFraming framing,
                                 uint64_t content_length) {
  HttpServer::Impl& server = connection_->server_;
  size_t bytes = 128 + server.options.server_name.size() + extra_lines.size();
  for (const wire::HttpField& field : fields) bytes += field.name.size() + field.value.size() + 4;
  char small[1024];
  std::string large;
  if (bytes > sizeof(small)) large.resize(bytes);
  wire::HeadWriter head(large.empty() ? std::span<char>(small) : std::span<char>(large));
  head.StatusLine(status, "");
  if (server.options.add_date) head.Raw(server.DateLine());
  if (!server.options.server_name.empty()) head.Field("Server", server.options.server_name);
  for (const wire::HttpField& field : fields) head.Field(field.name, field.value);
  head.Raw(extra_lines);
  LLMD_CHECK(head.ok(), "the room for a response head was computed wrongly");
  SendHead(head.view(), framing, content_length);
}

// Books `bytes` of body; false when they are not to be sent.
bool ServerExchange::TakeBody(size_t bytes) {
  if (connection_->broken_ || suppress_body_ || bytes == 0 || finish_called_) return false;
  if (!head_sent_) {
    LLMD_BUG("a response body was sent before its head");
    return false;
  }
  response_bytes_ += bytes;
  if (framing_ == ResponseFraming::kLength) {
    if (bytes > response_body_left_) {
      LLMD_BUG("a response is longer than its Content-Length");
      connection_->Break(GoneReason::kAborted);
      return false;
    }
    response_body_left_ -= bytes;
  }
  if (framing_ == ResponseFraming::kChunked) {
    char size_line[18];
    connection_->out_.AppendCopy({size_line, wire::WriteChunkSize(bytes, size_line)});
  }
  return true;
}

void ServerExchange::BodyQueued() {
  OutQueue& out = connection_->out_;
  if (framing_ == ResponseFraming::kChunked) out.AppendCopy("\r\n");
  if (out.bytes() >= kFlushEarlyBytes && !out.blocked()) connection_->Flush();
  if (out.bytes() >= kPendingHighBytes) above_high_ = true;
  loop().AtTurnEnd(*connection_);
}

void ServerExchange::SendBody(base::Slice bytes) {
  if (!TakeBody(bytes.size())) return;
  connection_->out_.Append(std::move(bytes));
  BodyQueued();
}

void ServerExchange::SendBody(std::string_view bytes) {
  if (!TakeBody(bytes.size())) return;
  connection_->out_.AppendCopy(bytes);
  BodyQueued();
}

void ServerExchange::Finish() {
  if (finish_called_) return;
  finish_called_ = true;
  ServerConnection& connection = *connection_;
  loop().AtTurnEnd(connection);
  if (connection.broken_) return;
  if (!head_sent_) {
    LLMD_BUG("a response was finished without a head");
    connection.Break(GoneReason::kAborted);
    return;
  }
  if (framing_ == ResponseFraming::kChunked && !suppress_body_) {
    connection.out_.AppendCopy("0\r\n\r\n");
  }
  // A response that is too short ends with the connection, so that the client notices.
  if (response_body_left_ > 0) close_after_ = true;
  if (!connection.out_.empty() && !connection.out_.blocked()) connection.Flush();
}

void ServerExchange::Respond(int status, std::string_view content_type, std::string_view body,
                             std::string_view extra_lines) {
  const wire::HttpField type{.name = "Content-Type", .value = content_type};
  const bool no_body = status == 204 || status == 304;
  SendOwnHead(status, {&type, content_type.empty() ? 0u : 1u}, extra_lines,
              no_body ? ResponseFraming::kNone : ResponseFraming::kLength, body.size());
  if (!no_body) SendBody(body);
  Finish();
}

void ServerExchange::Abort() { connection_->AbortNow(); }

}  // namespace llmd::net
