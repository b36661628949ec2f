#include "net/zmq_replay.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <deque>

#include "net/zmq_socket.h"

namespace llmd::net {
namespace {

constexpr uint64_t kEndSequence = ~uint64_t{0};
constexpr size_t kSequenceBytes = 8;

uint64_t ReadSequence(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < kSequenceBytes; ++i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

std::array<char, kSequenceBytes> WriteSequence(uint64_t value) {
  std::array<char, kSequenceBytes> bytes;
  for (size_t i = kSequenceBytes; i-- > 0; value >>= 8) bytes[i] = static_cast<char>(value);
  return bytes;
}

std::string_view View(const std::array<char, kSequenceBytes>& bytes) {
  return {bytes.data(), bytes.size()};
}

}  // namespace

std::string_view ZmqReplayEndName(ZmqReplayEnd end) {
  switch (end) {
    case ZmqReplayEnd::kComplete: return "complete";
    case ZmqReplayEnd::kTimeout: return "timeout";
    case ZmqReplayEnd::kNoProgress: return "no-progress";
    case ZmqReplayEnd::kMalformed: return "malformed";
  }
  return "";
}

// --- client --------------------------------------------------------------------------------------

// Sockets come and go, and OnReplayEnd is called, only when the timer fires: never while a socket
// is being read. Each attempt has a socket, and so an identity, of its own: what an earlier attempt
// was still to get never mixes with it.
class ZmqReplayClient::Impl final : public ZmqSocketOwner {
 public:
  Impl(ZmqContext& context, const ZmqReplayOptions& options, ZmqReplaySink& sink)
      : context_(context), options_(options), sink_(sink),
        timer_(context.loop(), [this] { OnTimer(); }) {}

  base::Status Open() {
    ZmqSocketOptions options;
    options.connect = {options_.address};
    options.frame_bytes_max = options_.frame_bytes_max;
    options.security = options_.security;
    LLMD_ASSIGN_OR_RETURN(socket_,
                          ZmqSocket::Open(context_, ZmqKind::kDealer, options, {}, *this));
    return {};
  }

  void Start(uint64_t sequence) {
    state_ = State::kBetween;
    next_ = sequence;
    messages_ = 0;
    fruitless_ = 0;
    ends_at_ = loop().now() + options_.total_timeout;
    Wake(loop().now());
  }
  void Cancel() {
    // The socket goes when the timer fires.
    state_ = State::kIdle;
    if (socket_) Wake(loop().now());
  }
  bool running() const { return state_ != State::kIdle; }

 private:
  enum class State : uint8_t {
    kIdle,
    kBetween,  // an attempt is about to begin
    kAsked,
    kEnded,    // the sink is about to hear
  };

  runtime::EventLoop& loop() { return context_.loop(); }
  void Wake(base::TimePoint at) {
    timer_.Disarm();
    timer_.ArmAt(at);
  }

  void OnTimer() {
    switch (state_) {
      case State::kIdle: socket_.reset(); return;
      case State::kEnded: return Finish();
      case State::kAsked: return OnIdleTooLong();
      case State::kBetween: return Ask();
    }
  }

  void Ask() {
    socket_.reset();
    if (loop().now() >= ends_at_) return FinishWith(ZmqReplayEnd::kTimeout);
    attempt_messages_ = 0;
    state_ = State::kAsked;
    if (!Open().ok()) return OnIdleTooLong();
    const auto sequence = WriteSequence(next_);
    const std::string_view frames[] = {"", View(sequence)};
    socket_->Send(frames);
    socket_->LookAgain();
    idle_at_ = loop().now() + options_.idle_timeout;
    Wake(std::min(idle_at_, ends_at_));
  }

  void OnIdleTooLong() {
    if (loop().now() >= ends_at_) return FinishWith(ZmqReplayEnd::kTimeout);
    if (socket_ && loop().now() < idle_at_) return Wake(std::min(idle_at_, ends_at_));
    fruitless_ = attempt_messages_ > 0 ? 0 : fruitless_ + 1;
    if (fruitless_ >= options_.attempts_max) return FinishWith(ZmqReplayEnd::kNoProgress);
    state_ = State::kBetween;
    Wake(std::min(loop().now() + options_.retry_delay, ends_at_));
  }

  void OnZmqFrames(std::span<const std::string_view> frames) override {
    if (state_ != State::kAsked) return;
    if (!frames.empty() && frames[0].empty()) frames = frames.subspan(1);
    const bool with_topic = frames.size() == 3;
    if ((!with_topic && frames.size() != 2) ||
        frames[frames.size() - 2].size() < kSequenceBytes) {
      return EndSoon(ZmqReplayEnd::kMalformed);
    }
    const uint64_t sequence = ReadSequence(frames[frames.size() - 2]);
    const std::string_view payload = frames.back();
    if (payload.empty()) {
      return EndSoon(sequence == kEndSequence ? ZmqReplayEnd::kComplete
                                              : ZmqReplayEnd::kMalformed);
    }
    if (sequence < next_) return EndSoon(ZmqReplayEnd::kMalformed);
    idle_at_ = loop().now() + options_.idle_timeout;
    next_ = sequence + 1;
    ++messages_;
    ++attempt_messages_;
    sink_.OnReplayMessage(with_topic ? frames[0] : "", sequence, payload);
  }

  void EndSoon(ZmqReplayEnd end) {
    end_ = end;
    state_ = State::kEnded;
    Wake(loop().now());
  }
  void FinishWith(ZmqReplayEnd end) {
    end_ = end;
    Finish();
  }
  // The last act: the sink may destroy this.
  void Finish() {
    state_ = State::kIdle;
    socket_.reset();
    sink_.OnReplayEnd(end_, messages_);
  }

  ZmqContext& context_;
  const ZmqReplayOptions options_;
  ZmqReplaySink& sink_;
  State state_ = State::kIdle;
  ZmqReplayEnd end_ = ZmqReplayEnd::kComplete;
  uint64_t next_ = 0;
  uint64_t messages_ = 0;
  uint64_t attempt_messages_ = 0;
  uint32_t fruitless_ = 0;
  base::TimePoint idle_at_{};
  base::TimePoint ends_at_{};
  std::unique_ptr<ZmqSocket> socket_;
  runtime::Timer timer_;
};

ZmqReplayClient::ZmqReplayClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqReplayClient::~ZmqReplayClient() = default;

base::Result<std::unique_ptr<ZmqReplayClient>> ZmqReplayClient::Create(
    ZmqContext& context, const ZmqReplayOptions& options, ZmqReplaySink& sink) {
  auto impl = std::make_unique<Impl>(context, options, sink);
  LLMD_RETURN_IF_ERROR(impl->Open());  // only to find out whether it can be
  impl->Cancel();
  return std::unique_ptr<ZmqReplayClient>(new ZmqReplayClient(std::move(impl)));
}

void ZmqReplayClient::Start(uint64_t sequence) { impl_->Start(sequence); }
void ZmqReplayClient::Cancel() { impl_->Cancel(); }
bool ZmqReplayClient::running() const { return impl_->running(); }

// --- server --------------------------------------------------------------------------------------

class ZmqReplayServer::Impl final : public ZmqSocketOwner {
 public:
  Impl(const ZmqReplayServerOptions& options, ZmqReplaySource& source)
      : with_topic_(options.with_topic), source_(source) {}

  // [identity, "", sequence]; the delimiter comes back as it came.
  void OnZmqFrames(std::span<const std::string_view> frames) override {
    const bool delimited = frames.size() == 3 && frames[1].empty();
    if ((!delimited && frames.size() != 2) || frames.back().size() < kSequenceBytes) {
      ++stats.malformed;
      return;
    }
    ++stats.requests;
    const uint64_t sequence = ReadSequence(frames.back());
    // Who asks again does not want the rest of the old answer.
    const auto known = std::ranges::find(replays_, frames[0], &Replay::identity);
    if (known != replays_.end()) {
      known->next = sequence;
    } else if (replays_.size() >= kZmqReplaysMax) {
      ++stats.refused;
    } else {
      replays_.push_back({std::string(frames[0]), sequence, delimited});
    }
  }

  // Serves everybody in turn, a bounded number of messages each.
  void OnZmqIdle() override {
    bool more = false;
    for (size_t i = replays_.size(); i > 0; --i) {
      Replay replay = std::move(replays_.front());
      replays_.pop_front();
      const Progress progress = Serve(&replay);
      if (progress == Progress::kDone) continue;
      more |= progress == Progress::kMore;
      replays_.push_back(std::move(replay));
    }
    if (more) socket->LookAgain();
  }

  ZmqReplayServerStats stats;
  std::unique_ptr<ZmqSocket> socket;

 private:
  static constexpr int kServeMessagesMax = 64;
  struct Replay {
    std::string identity;
    uint64_t next = 0;
    bool delimited = true;
  };
  enum class Progress : uint8_t { kMore, kBlocked, kDone };

  Progress Serve(Replay* replay) {
    for (int n = 0; n < kServeMessagesMax; ++n) {
      ZmqReplaySource::Message message;
      const bool found = source_.FindReplay(replay->next, &message);
      if (!found) message = {.topic = "", .sequence = kEndSequence, .payload = ""};
      switch (Send(*replay, message)) {
        case ZmqSendResult::kFull: return Progress::kBlocked;
        case ZmqSendResult::kNoPeer: return Progress::kDone;
        case ZmqSendResult::kSent: break;
      }
      // Sending may have taken in what the descriptor would have told of.
      socket->LookAgain();
      if (!found) return Progress::kDone;
      ++stats.messages;
      replay->next = message.sequence + 1;
    }
    return Progress::kMore;
  }

  ZmqSendResult Send(const Replay& replay, const ZmqReplaySource::Message& message) {
    const auto sequence = WriteSequence(message.sequence);
    std::string_view frames[5];
    size_t count = 0;
    frames[count++] = replay.identity;
    if (replay.delimited) frames[count++] = "";
    if (with_topic_) frames[count++] = message.topic;
    frames[count++] = View(sequence);
    frames[count++] = message.payload;
    return socket->Send({frames, count});
  }

  const bool with_topic_;
  ZmqReplaySource& source_;
  std::deque<Replay> replays_;
};

ZmqReplayServer::ZmqReplayServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqReplayServer::~ZmqReplayServer() = default;

base::Result<std::unique_ptr<ZmqReplayServer>> ZmqReplayServer::Create(
    ZmqContext& context, const ZmqReplayServerOptions& options, ZmqReplaySource& source) {
  auto impl = std::make_unique<Impl>(options, source);
  ZmqSocketOptions socket_options;
  socket_options.bind = {options.bind};
  socket_options.queue_messages_max = options.queue_messages_max;
  socket_options.security = options.security;
  LLMD_ASSIGN_OR_RETURN(impl->socket, ZmqSocket::Open(context, ZmqKind::kRouter, socket_options,
                                                      {}, *impl));
  return std::unique_ptr<ZmqReplayServer>(new ZmqReplayServer(std::move(impl)));
}

const std::string& ZmqReplayServer::bound() const { return impl_->socket->bound().front(); }
const ZmqReplayServerStats& ZmqReplayServer::stats() const { return impl_->stats; }

}  // namespace llmd::net
