#include "net/redis.h"

#include <hiredis/read.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "base/strings.h"
#include "net/out_queue.h"
#include "net/resolver.h"
#include "net/tls.h"
#include "runtime/socket.h"
#include "runtime/stream.h"

namespace llmd::net {
namespace {

using wire::RespValue;

constexpr size_t kReadBytes = 64 << 10;
// Items of one array: a hash of more fields than there can be endpoints and tiers is none of ours,
// and 1M values are 64 MB.
constexpr int64_t kItemsMax = 1 << 20;

// --- replies, built by hiredis' reader in an arena
// ------------------------------------------------

struct Replies {
  base::Arena arena{16 << 10};
};

RespValue* NewValue(const redisReadTask* task) {
  if (task->parent == nullptr) {
    return static_cast<Replies*>(task->privdata)->arena.New<RespValue>();
  }
  // Made by NewArray, which is not const.
  const auto* parent = static_cast<const RespValue*>(task->parent->obj);
  return const_cast<RespValue*>(&parent->items[static_cast<size_t>(task->idx)]);
}

void* NewText(const redisReadTask* task, char* text, size_t size) {
  RespValue* value = NewValue(task);
  value->type =
      task->type == REDIS_REPLY_ERROR ? RespValue::Type::kError : RespValue::Type::kText;
  value->text = static_cast<Replies*>(task->privdata)->arena.Copy({text, size});
  return value;
}

// The number's type differs between versions of hiredis.
template <class N>
void* NewArray(const redisReadTask* task, N count) {
  if (static_cast<int64_t>(count) > kItemsMax) return nullptr;
  RespValue* value = NewValue(task);
  value->type = RespValue::Type::kArray;
  value->items = static_cast<Replies*>(task->privdata)
                     ->arena.NewSpan<RespValue>(static_cast<size_t>(count));
  return value;
}

void* NewInteger(const redisReadTask* task, long long integer) {
  RespValue* value = NewValue(task);
  value->type = RespValue::Type::kInteger;
  value->integer = integer;
  return value;
}

void* NewNil(const redisReadTask* task) { return NewValue(task); }

void FreeNothing(void*) {}

redisReplyObjectFunctions kFunctions = [] {
  redisReplyObjectFunctions functions{};
  functions.createString = NewText;
  functions.createArray = NewArray;
  functions.createInteger = NewInteger;
  functions.createNil = NewNil;
  functions.freeObject = FreeNothing;
  return functions;
}();

struct FreeReader {
  void operator()(redisReader* reader) const { redisReaderFree(reader); }
};

// --- what every connection begins with
// ------------------------------------------------------------

class Greeting final : public wire::RespProgram {
 public:
  explicit Greeting(const RedisAddress& address) : address_(address) {}

  size_t NextRound(std::string* commands) override {
    status_ = {};
    size_t count = 1;
    if (!address_.password.empty()) {
      ++count;
      if (address_.user.empty()) {
        wire::AppendRespCommand({"AUTH", address_.password}, commands);
      } else {
        wire::AppendRespCommand({"AUTH", address_.user, address_.password}, commands);
      }
    }
    if (address_.database != 0) {
      ++count;
      wire::AppendRespCommand({"SELECT", std::to_string(address_.database)}, commands);
    }
    // Tells of a server that wants a password, or still loads its data.
    wire::AppendRespCommand({"PING"}, commands);
    return count;
  }
  void OnReply(size_t, const RespValue& reply) override {
    if (reply.type != RespValue::Type::kError || !status_.ok()) return;
    const bool refused = reply.text.starts_with("WRONGPASS") || reply.text.starts_with("NOAUTH") ||
                         reply.text.starts_with("ERR AUTH") ||
                         reply.text.starts_with("ERR invalid password");
    status_ = base::Status(
        refused ? base::StatusCode::kUnauthenticated : base::StatusCode::kUnavailable,
        std::string(reply.text.substr(0, 200)));
  }
  const base::Status& status() const { return status_; }

 private:
  const RedisAddress& address_;
  base::Status status_;
};

base::Result<int> ConnectUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return std::unexpected(base::InvalidArgument("the path of the socket is too long"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return std::unexpected(base::ErrnoStatus(errno, "socket"));
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    base::Status status = base::ErrnoStatus(errno, "connect");
    runtime::CloseFd(fd);
    return std::unexpected(std::move(status));
  }
  return fd;
}

}  // namespace

class RedisClient::Impl final : public runtime::IoHandler, public runtime::TurnHook {
 public:
  Impl(runtime::EventLoop& loop, runtime::ThreadPool& lookups, RedisOptions options)
      : loop_(loop),
        options_(std::move(options)),
        resolver_(loop, lookups),
        greeting_(options_.address),
        out_(loop.buffers()),
        room_(std::make_unique<char[]>(kReadBytes)),
        connect_timer_(loop, [this] {
          Lost(base::DeadlineExceeded("no connection in time"));
        }),
        stall_timer_(loop, [this] {
          if (!rounds_.empty()) Lost(base::DeadlineExceeded("the server does not answer"));
        }),
        reconnect_timer_(loop, [this] { Connect(); }) {
    Connect();
  }
  ~Impl() = default;

  base::Result<RedisRunId> Run(wire::RespProgram& program, RedisWaiter& waiter,
                               base::Duration timeout);
  void Cancel(RedisRunId id) { runs_.erase(id); }
  base::Status status() const {
    if (phase_ == Phase::kReady) return base::OkStatus();
    if (last_error_.ok()) return base::Unavailable(Where() + ": not connected yet");
    return last_error_;
  }

  RedisStats stats;
  std::move_only_function<void()> connected;

 private:
  enum class Phase : uint8_t { kConnecting, kReady, kPause };
  struct Waiting {
    wire::RespProgram* program;
    RedisWaiter* waiter;
    std::unique_ptr<runtime::Timer> timer;
  };
  struct Round {
    RedisRunId run;  // kGreeting, or one that may be over
    size_t commands;
    size_t answered = 0;
  };
  enum class Next : uint8_t { kSent, kDone, kFull };
  static constexpr RedisRunId kGreeting = 0;

  std::string Where() const { return options_.address.Where(); }
  void Connect();
  void ConnectTo(const Addresses& addresses);
  void Watch(base::Result<int> fd);
  void Greeted();
  void OnIo(runtime::IoEvents events) override;
  void OnTurnEnd() override;
  void Flush();
  void ReadAll();
  bool ParseReplies();
  void Answer(const RespValue& reply);
  Next SendRound(RedisRunId id, wire::RespProgram& program);
  void Continue(RedisRunId id);
  void End(RedisRunId id, const base::Status& status);
  void Lost(base::Status why);

  runtime::EventLoop& loop_;
  const RedisOptions options_;
  Resolver resolver_;
  Greeting greeting_;
  Phase phase_ = Phase::kConnecting;
  std::shared_ptr<TlsClientContext> tls_;
  std::unique_ptr<runtime::Stream> stream_;
  bool is_open_ = false;  // TCP is there
  bool peer_closed_ = false;
  OutQueue out_;
  Replies replies_;
  std::unique_ptr<redisReader, FreeReader> reader_;
  size_t reply_bytes_ = 0;  // read since the last whole reply
  std::unique_ptr<char[]> room_;
  std::string commands_;  // scratch
  std::deque<Round> rounds_;  // sent, in order
  size_t outstanding_ = 0;    // commands of rounds_
  std::unordered_map<RedisRunId, Waiting> runs_;
  std::vector<RedisRunId> waiting_;  // for a connection
  std::vector<RedisRunId> done_;     // to be told at the end of the turn
  RedisRunId last_run_ = 0;
  runtime::Timer connect_timer_, stall_timer_, reconnect_timer_;
  base::Duration pause_{};
  size_t attempts_ = 0;
  base::Status last_error_;
};

// --- the connection
// --------------------------------------------------------------------------------

void RedisClient::Impl::Connect() {
  phase_ = Phase::kConnecting;
  connect_timer_.ArmAfter(options_.connect_timeout);
  const RedisAddress& address = options_.address;
  if (address.tls && !tls_) {
    TlsClientOptions options;
    options.ca_file = options_.ca_file;
    options.insecure_skip_verify = address.skip_verify;
    options.alpn.clear();
    auto context = TlsClientContext::Create(options);
    if (!context) return Lost(context.error());
    tls_ = *std::move(context);
  }
  if (!address.unix_path.empty()) return Watch(ConnectUnix(address.unix_path));
  resolver_.Resolve(address.host, address.port, [this, attempt = attempts_](auto addresses) {
    if (phase_ != Phase::kConnecting || stream_ || attempt != attempts_) return;  // too late
    if (!addresses) return Lost(addresses.error());
    if (addresses->empty()) return Lost(base::Unavailable("the name has no address"));
    ConnectTo(*addresses);
  });
}

void RedisClient::Impl::ConnectTo(const Addresses& addresses) {
  Watch(runtime::ConnectTcp(addresses[attempts_ % addresses.size()]));
}

void RedisClient::Impl::Watch(base::Result<int> fd) {
  if (!fd) return Lost(fd.error());
  auto stream = tls_ ? tls_->NewStream(loop_, *fd, *this, options_.address.host)
                     : runtime::NewTcpStream(loop_, *fd, *this);
  if (!stream) return Lost(stream.error());
  stream_ = *std::move(stream);
  is_open_ = peer_closed_ = false;
  reader_.reset(redisReaderCreateWithFunctions(&kFunctions));
  reader_->privdata = &replies_;
  reply_bytes_ = 0;
  SendRound(kGreeting, greeting_);
}

void RedisClient::Impl::Greeted() {
  if (!greeting_.status().ok()) return Lost(greeting_.status());
  ++stats.connects;
  connect_timer_.Disarm();
  phase_ = Phase::kReady;
  pause_ = {};
  if (connected) connected();
  for (const RedisRunId id : std::exchange(waiting_, {})) Continue(id);
}

void RedisClient::Impl::OnIo(runtime::IoEvents events) {
  if (!stream_) return;
  if (events.peer_closed()) peer_closed_ = true;
  if (!is_open_) {
    if (!events.writable() && !events.failed()) return;
    if (const int error = runtime::SocketError(stream_->fd()); error != 0) {
      return Lost(base::ErrnoStatus(error, "connect"));
    }
    is_open_ = true;
  }
  if (!out_.empty()) Flush();
  ReadAll();
}

void RedisClient::Impl::OnTurnEnd() {
  if (is_open_ && !out_.empty() && !out_.blocked()) Flush();
  for (const RedisRunId id : std::exchange(done_, {})) End(id, base::OkStatus());
}

void RedisClient::Impl::Flush() {
  const runtime::IoResult result = out_.Flush(*stream_);
  if (result.status == runtime::IoStatus::kError) {
    Lost(base::Unavailable(base::Concat("write: ", stream_->error_text())));
  }
}

void RedisClient::Impl::ReadAll() {
  while (stream_) {
    const runtime::IoResult result = stream_->Read({room_.get(), kReadBytes});
    if (result.bytes > 0) {
      stall_timer_.ArmAfter(options_.stall_timeout);
      reply_bytes_ += result.bytes;
      redisReaderFeed(reader_.get(), room_.get(), result.bytes);
      if (!ParseReplies()) return;
    }
    switch (result.status) {
      case runtime::IoStatus::kOk: break;
      case runtime::IoStatus::kDrained:
        if (peer_closed_ && result.bytes > 0) break;
        return;
      case runtime::IoStatus::kEnd: return Lost(base::Unavailable("the server closed"));
      case runtime::IoStatus::kError:
        return Lost(base::Unavailable(base::Concat("read: ", stream_->error_text())));
    }
  }
}

// False: the connection is gone.
bool RedisClient::Impl::ParseReplies() {
  for (;;) {
    void* reply = nullptr;
    if (redisReaderGetReply(reader_.get(), &reply) != REDIS_OK) {
      Lost(base::Status(base::StatusCode::kDataLoss,
                        base::Concat("not a reply: ", reader_->errstr)));
      return false;
    }
    if (reply == nullptr) break;
    reply_bytes_ = reader_->len - reader_->pos;
    Answer(*static_cast<const RespValue*>(reply));
    if (!stream_) return false;
    replies_.arena.Reset();
  }
  if (reply_bytes_ <= options_.reply_bytes_max) return true;
  Lost(base::ResourceExhausted("a reply larger than the limit"));
  return false;
}

void RedisClient::Impl::Lost(base::Status why) {
  last_error_ = why.WithContext(Where());
  ++stats.failures;
  ++attempts_;
  stream_.reset();
  reader_.reset();
  replies_.arena.Reset();
  is_open_ = false;
  out_.Clear();
  rounds_.clear();
  outstanding_ = 0;
  connect_timer_.Disarm();
  phase_ = Phase::kPause;
  pause_ = std::clamp(pause_ * 2, options_.reconnect_min, options_.reconnect_max);
  reconnect_timer_.ArmAfter(pause_);
  waiting_.clear();
  std::vector<RedisRunId> ids;
  for (const auto& [id, run] : runs_) ids.push_back(id);
  std::ranges::sort(ids);
  const base::Status told = base::Unavailable(std::string(last_error_.message()));
  for (const RedisRunId id : ids) End(id, told);
}

// --- runs
// -------------------------------------------------------------------------------------------

base::Result<RedisRunId> RedisClient::Impl::Run(wire::RespProgram& program, RedisWaiter& waiter,
                                                base::Duration timeout) {
  if (phase_ == Phase::kPause) {
    ++stats.refused;
    return std::unexpected(base::Unavailable(std::string(last_error_.message())));
  }
  const RedisRunId id = ++last_run_;
  if (phase_ == Phase::kConnecting) {
    if (waiting_.size() >= options_.waiting_max) {
      ++stats.refused;
      return std::unexpected(base::ResourceExhausted("too many wait for a connection to Redis"));
    }
    waiting_.push_back(id);
  } else {
    switch (SendRound(id, program)) {
      case Next::kSent: break;
      case Next::kDone:
        done_.push_back(id);
        loop_.AtTurnEnd(*this);
        break;
      case Next::kFull:
        ++stats.refused;
        return std::unexpected(base::ResourceExhausted("too many commands wait for Redis"));
    }
  }
  auto timer = std::make_unique<runtime::Timer>(loop_, [this, id] {
    ++stats.timeouts;
    End(id, base::DeadlineExceeded(Where() + ": no answer in time"));
  });
  timer->ArmAfter(timeout);
  runs_.emplace(id, Waiting{&program, &waiter, std::move(timer)});
  return id;
}

RedisClient::Impl::Next RedisClient::Impl::SendRound(RedisRunId id, wire::RespProgram& program) {
  commands_.clear();
  const size_t count = program.NextRound(&commands_);
  if (count == 0) return Next::kDone;
  if (count > options_.commands_max - outstanding_ ||
      commands_.size() + out_.bytes() > options_.unsent_bytes_max) {
    return Next::kFull;
  }
  if (rounds_.empty()) stall_timer_.ArmAfter(options_.stall_timeout);
  out_.AppendCopy(commands_);
  rounds_.push_back({id, count});
  outstanding_ += count;
  if (id != kGreeting) stats.commands += count;
  loop_.AtTurnEnd(*this);
  return Next::kSent;
}

void RedisClient::Impl::Answer(const RespValue& reply) {
  if (rounds_.empty()) {
    return Lost(base::Status(base::StatusCode::kDataLoss, "a reply that nobody asked for"));
  }
  if (reply.type == RespValue::Type::kError) ++stats.error_replies;
  Round& round = rounds_.front();
  const RedisRunId id = round.run;
  const size_t index = round.answered++;
  const bool is_last = round.answered == round.commands;
  --outstanding_;
  if (is_last) rounds_.pop_front();
  if (id == kGreeting) {
    greeting_.OnReply(index, reply);
    if (is_last) Greeted();
    return;
  }
  const auto it = runs_.find(id);
  if (it == runs_.end()) return;
  it->second.program->OnReply(index, reply);
  if (is_last) Continue(id);
}

void RedisClient::Impl::Continue(RedisRunId id) {
  const auto it = runs_.find(id);
  if (it == runs_.end()) return;
  switch (SendRound(id, *it->second.program)) {
    case Next::kSent: return;
    case Next::kDone: return End(id, base::OkStatus());
    case Next::kFull:
      ++stats.refused;
      return End(id, base::ResourceExhausted("too many commands wait for Redis"));
  }
}

void RedisClient::Impl::End(RedisRunId id, const base::Status& status) {
  auto run = runs_.extract(id);
  if (!run.empty()) run.mapped().waiter->OnRedisEnd(status);
}

// --- the face
// ---------------------------------------------------------------------------------------

RedisClient::RedisClient(runtime::EventLoop& loop, runtime::ThreadPool& lookups,
                         RedisOptions options)
    : impl_(std::make_unique<Impl>(loop, lookups, std::move(options))) {}

RedisClient::~RedisClient() = default;

base::Result<RedisRunId> RedisClient::Run(wire::RespProgram& program, RedisWaiter& waiter,
                                          base::Duration timeout) {
  return impl_->Run(program, waiter, timeout);
}
void RedisClient::Cancel(RedisRunId run) { impl_->Cancel(run); }
base::Status RedisClient::status() const { return impl_->status(); }
void RedisClient::SetConnectedHook(std::move_only_function<void()> connected) {
  impl_->connected = std::move(connected);
}
const RedisStats& RedisClient::stats() const { return impl_->stats; }

}  // namespace llmd::net
