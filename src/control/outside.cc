#include "control/outside.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <utility>

#include "base/strings.h"
#include "net/grpc_client.h"
#include "net/redis.h"
#include "net/tls.h"
#include "plugin/redis.h"
#include "runtime/clock.h"
#include "runtime/files.h"

namespace llmd::control {
namespace {

using plugin::OutsideCall;
using plugin::OutsideJob;
using plugin::OutsideRedis;
using plugin::OutsideTask;

// On a pool thread.
base::Status RunJob(OutsideJob& job) {
  if (job.cancelled()) return {base::StatusCode::kCancelled, "nobody waits for it any more"};
  for (OutsideJob::File& file : job.files) {
    file.content = runtime::ReadFile(file.path, file.bytes_max);
  }
  return job.Run();
}

enum class Kind : uint8_t { kJob, kHttp, kGrpc, kRedis };
constexpr std::string_view kKindNames[] = {"job", "http", "grpc", "redis"};

enum class Outcome : uint8_t { kOk, kError, kFull, kTimeout, kCancelled };
constexpr std::string_view kOutcomeNames[] = {"ok", "error", "full", "timeout", "cancelled"};

// A Unix socket has a path for its address.
bool IsUnix(const OutsideCall& call) { return call.server.starts_with('/'); }
std::string_view AuthorityOf(const OutsideCall& call) {
  return IsUnix(call) ? std::string_view("localhost") : std::string_view(call.server);
}

Outcome OutcomeOf(const base::Status& status) {
  switch (status.code()) {
    case base::StatusCode::kOk: return Outcome::kOk;
    case base::StatusCode::kResourceExhausted: return Outcome::kFull;
    case base::StatusCode::kDeadlineExceeded: return Outcome::kTimeout;
    case base::StatusCode::kCancelled: return Outcome::kCancelled;
    default: return Outcome::kError;
  }
}

}  // namespace

class Outside::Impl {
 public:
  Impl(runtime::EventLoop& loop, OutsidePools& pools, telemetry::Metrics& metrics, size_t writer,
       OutsideOptions options)
      : loop_(loop),
        pools_(pools),
        writer_(writer),
        options_(std::move(options)),
        resolver_(loop, pools.lookups),
        http_(loop),
        self_(std::make_shared<Impl*>(this)) {
    using telemetry::MetricId;
    for (size_t kind = 0; kind < std::size(kKindNames); ++kind) {
      seconds_[kind] = metrics.Histogram(MetricId::kOutsideSeconds, {kKindNames[kind]});
      for (size_t i = 0; i < std::size(kOutcomeNames); ++i) {
        totals_[kind][i] =
            metrics.Counter(MetricId::kOutsideTotal, {kKindNames[kind], kOutcomeNames[i]});
      }
    }
  }
  ~Impl() { entries_.clear(); }

  bool Begin(std::shared_ptr<OutsideTask> task, uint64_t* ticket, OutsideWaiter& waiter);
  void Forget(uint64_t ticket);
  void SetEngineOptions(OutsideOptions options) { options_ = std::move(options); }

 private:
  class Call;
  class RedisRun;
  struct Server {
    std::string host;
    uint16_t port = 0;
    runtime::SocketAddress address;
    base::TimePoint resolved_at{};  // TimePoint{}: not yet, or not any more
    base::TimePoint used_at{};
    size_t calls = 0;  // under way
    net::ClientTarget* http = nullptr;
    std::unique_ptr<net::GrpcChannel> grpc;
  };
  struct Entry {
    OutsideWaiter* waiter = nullptr;
    std::shared_ptr<OutsideTask> task;
    base::TimePoint begun{};
    Kind kind = Kind::kJob;
    std::unique_ptr<Call> call;
    std::unique_ptr<RedisRun> redis;
  };
  struct RedisServer {
    std::unique_ptr<net::RedisClient> client;
    size_t runs = 0;  // under way
    base::TimePoint used_at{};
  };

  base::Status Submit(std::shared_ptr<OutsideJob> job, uint64_t ticket);
  base::Status StartCall(OutsideCall& call, uint64_t ticket, Entry& entry);
  base::Status StartRedis(OutsideRedis& task, uint64_t ticket, Entry& entry);
  base::Result<RedisServer*> RedisServerFor(const std::string& address);
  base::Result<Server*> ServerFor(const OutsideCall& call);
  void Connect(Server& server, const OutsideCall& call);
  std::shared_ptr<net::TlsClientContext> TlsFor(const OutsideCall& call);
  void Ended(uint64_t ticket);
  void Count(Kind kind, Outcome outcome) {
    totals_[static_cast<size_t>(kind)][static_cast<size_t>(outcome)].Add(writer_);
  }

  runtime::EventLoop& loop_;
  OutsidePools& pools_;
  const size_t writer_;
  OutsideOptions options_;
  telemetry::CounterHandle totals_[std::size(kKindNames)][std::size(kOutcomeNames)];
  telemetry::HistogramHandle seconds_[std::size(kKindNames)];
  std::shared_ptr<net::TlsClientContext> http_tls_, grpc_tls_;  // made with the first that needs it
  net::Resolver resolver_;
  net::HttpClient http_;
  std::map<std::string, Server> servers_;
  std::map<std::string, RedisServer> redis_servers_;
  std::unordered_map<uint64_t, Entry> entries_;
  size_t calls_ = 0;
  uint64_t last_ticket_ = 0;
  std::shared_ptr<Impl*> self_;  // what comes late finds it gone
};

// One call under way. Dropping it cuts the call off.
class Outside::Impl::Call final : net::ClientHandler, net::GrpcClientHandler {
 public:
  Call(Impl& owner, uint64_t ticket, OutsideCall& task, Server& server)
      : owner_(owner), ticket_(ticket), task_(task), server_(server), limit_(owner.loop_, [this] {
          End(base::DeadlineExceeded(base::Concat(task_.server, ": no answer in time")));
        }) {
    ++server_.calls;
    ++owner_.calls_;
    limit_.ArmAfter(task_.timeout);
  }
  ~Call() override {
    --server_.calls;
    --owner_.calls_;
    if (exchange_) exchange_->Cancel();
    if (rpc_) rpc_->Reset();
  }

  void Send() {
    if (task_.protocol == OutsideCall::Protocol::kGrpc) return SendGrpc();
    SendHttp();
  }
  // Once; destroys this.
  void End(base::Status status) {
    if (!status.ok()) server_.resolved_at = {};
    task_.End(std::move(status));
    owner_.Ended(ticket_);
  }

 private:
  void SendHttp() {
    const bool post = !task_.body.empty();
    std::string head = base::Concat(post ? "POST " : "GET ", task_.path, " HTTP/1.1\r\nhost: ",
                                    AuthorityOf(task_), "\r\n");
    if (post) {
      head.append("content-type: application/json\r\ncontent-length: ")
          .append(std::to_string(task_.body.size()))
          .append("\r\n");
    }
    if (task_.engine) head.append(owner_.options_.engine_lines);
    head.append("\r\n");
    std::vector<base::Slice> body;
    // A copy: a call that is cut off may leave bytes with the socket.
    if (post) body.push_back(owner_.loop_.buffers().Copy(task_.body));
    exchange_ = owner_.http_.Start(server_.http, owner_.loop_.buffers().Copy(head), body, *this,
                                   {.timeouts = {.connect = task_.timeout,
                                                 .write = task_.timeout,
                                                 .head = task_.timeout,
                                                 .body_idle = task_.timeout}});
  }
  void SendGrpc() {
    rpc_ = server_.grpc->Start(task_.path, {}, *this);
    rpc_->Send(owner_.loop_.buffers().Copy(task_.body));
    rpc_->CloseSend();
  }

  bool Keep(std::string_view piece) {
    if (piece.size() > task_.reply_bytes_max - task_.reply.size()) return false;
    task_.reply.append(piece);
    return true;
  }
  base::Status TooLarge() const {
    return base::ResourceExhausted(base::Concat(task_.server, ": the reply is larger than ",
                                                std::to_string(task_.reply_bytes_max), " bytes"));
  }

  void OnResponseHead(const wire::ResponseHead& head) override { task_.http_status = head.status; }
  void OnResponseBody(const base::Slice&, std::span<const std::string_view> decoded) override {
    for (const std::string_view piece : decoded) {
      if (!Keep(piece)) return End(TooLarge());
    }
  }
  void OnResponseEnd() override {
    exchange_ = nullptr;
    End(base::OkStatus());
  }
  void OnResponseError(const net::ClientError& error) override {
    exchange_ = nullptr;
    // A connection that the server had closed meanwhile says nothing about the server.
    if (error.reused_connection && !error.head_received && !std::exchange(again_, true)) {
      return SendHttp();
    }
    End(base::Unavailable(
        base::Concat(task_.server, ": ", net::ClientErrorName(error.kind))));
  }
  void OnMessagePiece(base::Slice piece, bool) override {
    if (!Keep(piece.view())) End(TooLarge());
  }
  void OnEnd(const net::GrpcClientEnd& end) override {
    rpc_ = nullptr;
    End(end.status.WithContext(task_.server));
  }

  Impl& owner_;
  const uint64_t ticket_;
  OutsideCall& task_;  // kept by the entry
  Server& server_;
  runtime::Timer limit_;
  net::ClientExchange* exchange_ = nullptr;
  net::GrpcClientCall* rpc_ = nullptr;
  bool again_ = false;
};

// One program under way. Dropping it cancels it.
class Outside::Impl::RedisRun final : net::RedisWaiter {
 public:
  RedisRun(Impl& owner, uint64_t ticket, OutsideRedis& task, RedisServer& server)
      : owner_(owner), ticket_(ticket), task_(task), server_(server) {
    ++server_.runs;
  }
  ~RedisRun() {
    --server_.runs;
    if (run_ != 0) server_.client->Cancel(run_);
  }
  base::Status Start() {
    LLMD_ASSIGN_OR_RETURN(run_, server_.client->Run(task_.program(), *this, task_.timeout));
    return base::OkStatus();
  }

 private:
  void OnRedisEnd(const base::Status& status) override {
    run_ = 0;
    task_.End(status);
    owner_.Ended(ticket_);
  }

  Impl& owner_;
  const uint64_t ticket_;
  OutsideRedis& task_;  // kept by the entry
  RedisServer& server_;
  net::RedisRunId run_ = 0;
};

bool Outside::Impl::Begin(std::shared_ptr<OutsideTask> task, uint64_t* ticket,
                          OutsideWaiter& waiter) {
  *ticket = ++last_ticket_;
  Entry& entry = entries_[*ticket];
  entry = {.waiter = &waiter, .task = task, .begun = loop_.now(), .kind = Kind::kJob, .call = {},
           .redis = {}};
  base::Status begun;
  if (auto job = std::dynamic_pointer_cast<OutsideJob>(task)) {
    begun = Submit(std::move(job), *ticket);
  } else if (auto* call = dynamic_cast<OutsideCall*>(task.get())) {
    entry.kind = call->protocol == OutsideCall::Protocol::kHttp ? Kind::kHttp : Kind::kGrpc;
    begun = StartCall(*call, *ticket, entry);
  } else if (auto* redis = dynamic_cast<OutsideRedis*>(task.get())) {
    entry.kind = Kind::kRedis;
    begun = StartRedis(*redis, *ticket, entry);
  } else {
    begun = base::Unimplemented("an unknown kind of task");
  }
  if (begun.ok()) return true;
  Count(entry.kind, OutcomeOf(begun));
  entries_.erase(*ticket);
  *ticket = 0;
  task->End(std::move(begun));
  return false;
}

base::Status Outside::Impl::Submit(std::shared_ptr<OutsideJob> job, uint64_t ticket) {
  const bool queued = pools_.jobs.TrySubmit(
      [job = std::move(job), ticket, &loop = loop_, self = std::weak_ptr(self_)]() mutable {
        job->End(RunJob(*job));
        job.reset();
        loop.Post([ticket, self = std::move(self)] {
          if (const auto impl = self.lock()) (*impl)->Ended(ticket);
        });
      });
  return queued ? base::OkStatus() : base::ResourceExhausted("the queue of jobs is full");
}

base::Status Outside::Impl::StartCall(OutsideCall& task, uint64_t ticket, Entry& entry) {
  if (calls_ >= kCallsMax) return base::ResourceExhausted("too many calls are under way");
  auto found = ServerFor(task);
  if (!found) return found.error();
  Server& server = **found;
  server.used_at = loop_.now();
  entry.call = std::make_unique<Call>(*this, ticket, task, server);
  const bool fresh = server.resolved_at != base::TimePoint{} &&
                     loop_.now() - server.resolved_at < kResolveInterval;
  if (fresh) {
    entry.call->Send();
    return base::OkStatus();
  }
  resolver_.Resolve(server.host, server.port,
                    [this, ticket, &server](base::Result<net::Addresses> addresses) {
                      const auto it = entries_.find(ticket);
                      if (it == entries_.end()) return;
                      Call& call = *it->second.call;
                      if (!addresses || addresses->empty()) {
                        return call.End(base::Unavailable(
                            base::Concat(server.host, ": the name has no address")));
                      }
                      const auto& task = static_cast<OutsideCall&>(*it->second.task);
                      const bool connected = server.http || server.grpc;
                      const bool moved = server.address != addresses->front();
                      // Others' calls end where they began; then the server may move.
                      if (!connected || (moved && server.calls == 1)) {
                        server.address = addresses->front();
                        Connect(server, task);
                      }
                      server.resolved_at = loop_.now();
                      call.Send();
                    });
  return base::OkStatus();
}

base::Status Outside::Impl::StartRedis(OutsideRedis& task, uint64_t ticket, Entry& entry) {
  auto found = RedisServerFor(task.server);
  if (!found) return found.error();
  (*found)->used_at = loop_.now();
  entry.redis = std::make_unique<RedisRun>(*this, ticket, task, **found);
  return entry.redis->Start();
}

base::Result<Outside::Impl::RedisServer*> Outside::Impl::RedisServerFor(
    const std::string& address) {
  if (const auto it = redis_servers_.find(address); it != redis_servers_.end()) return &it->second;
  LLMD_ASSIGN_OR_RETURN(net::RedisAddress parsed, net::RedisAddress::Parse(address));
  if (redis_servers_.size() >= kRedisServersMax) {
    auto oldest = redis_servers_.end();
    for (auto it = redis_servers_.begin(); it != redis_servers_.end(); ++it) {
      if (it->second.runs > 0) continue;
      if (oldest == redis_servers_.end() || it->second.used_at < oldest->second.used_at) {
        oldest = it;
      }
    }
    if (oldest == redis_servers_.end()) {
      return std::unexpected(base::ResourceExhausted("too many Redis servers are in use"));
    }
    redis_servers_.erase(oldest);
  }
  RedisServer& server = redis_servers_[address];
  server.client = std::make_unique<net::RedisClient>(
      loop_, pools_.lookups, net::RedisOptions{.address = std::move(parsed)});
  return &server;
}

base::Result<Outside::Impl::Server*> Outside::Impl::ServerFor(const OutsideCall& call) {
  const bool grpc = call.protocol == OutsideCall::Protocol::kGrpc;
  const std::string key = base::Concat(grpc ? "grpc" : "http", call.engine ? "+engine" : "",
                                       call.tls ? "+tls" : "", " ", call.server);
  if (const auto it = servers_.find(key); it != servers_.end()) return &it->second;
  if (servers_.size() >= kServersMax) {
    auto oldest = servers_.end();
    for (auto it = servers_.begin(); it != servers_.end(); ++it) {
      if (it->second.calls > 0) continue;
      if (oldest == servers_.end() || it->second.used_at < oldest->second.used_at) oldest = it;
    }
    if (oldest == servers_.end()) {
      return std::unexpected(base::ResourceExhausted("calls to too many servers are under way"));
    }
    if (oldest->second.http) http_.RemoveTarget(oldest->second.http);
    servers_.erase(oldest);
  }
  runtime::HostPort where;
  if (IsUnix(call)) {
    LLMD_ASSIGN_OR_RETURN(const auto path, runtime::SocketAddress::Unix(call.server));
    where.host = path.ToString();
  } else {
    LLMD_ASSIGN_OR_RETURN(where, runtime::SplitHostPort(call.server));
  }
  Server& server = servers_[key];
  server.host = where.host;
  server.port = where.port;
  return &server;
}

void Outside::Impl::Connect(Server& server, const OutsideCall& call) {
  net::TargetSpec spec{.address = server.address, .tls_name = server.host, .tls = TlsFor(call)};
  if (call.protocol == OutsideCall::Protocol::kGrpc) {
    server.grpc = std::make_unique<net::GrpcChannel>(
        loop_, std::move(spec),
        net::GrpcChannelOptions{.authority = std::string(AuthorityOf(call)),
                                .message_bytes_max = call.reply_bytes_max});
    return;
  }
  if (server.http) http_.RemoveTarget(server.http);
  server.http = http_.AddTarget(std::move(spec));
}

std::shared_ptr<net::TlsClientContext> Outside::Impl::TlsFor(const OutsideCall& call) {
  if (call.engine) return options_.engine_tls;
  if (!call.tls) return nullptr;
  const bool grpc = call.protocol == OutsideCall::Protocol::kGrpc;
  auto& context = grpc ? grpc_tls_ : http_tls_;
  if (!context) {
    auto made = net::TlsClientContext::Create({.alpn = grpc ? "h2" : "http/1.1"});
    if (made) context = std::move(*made);
  }
  return context;
}

void Outside::Impl::Forget(uint64_t ticket) {
  const auto it = entries_.find(ticket);
  if (it == entries_.end()) return;
  it->second.task->Cancel();
  Count(it->second.kind, Outcome::kCancelled);
  entries_.erase(it);
}

void Outside::Impl::Ended(uint64_t ticket) {
  const auto it = entries_.find(ticket);
  if (it == entries_.end()) return;
  const Entry entry = std::move(it->second);
  entries_.erase(it);
  Count(entry.kind, OutcomeOf(entry.task->status()));
  seconds_[static_cast<size_t>(entry.kind)].Observe(writer_,
                                                    base::ToSeconds(loop_.now() - entry.begun));
  entry.waiter->outside_ticket_ = 0;
  entry.waiter->OnOutsideEnd();
}

Outside::Outside(runtime::EventLoop& loop, OutsidePools& pools, telemetry::Metrics& metrics,
                 size_t writer, OutsideOptions options)
    : impl_(std::make_unique<Impl>(loop, pools, metrics, writer, std::move(options))) {}

Outside::~Outside() = default;

bool Outside::Begin(std::shared_ptr<plugin::OutsideTask> task, OutsideWaiter& waiter) {
  Forget(waiter);
  return impl_->Begin(std::move(task), &waiter.outside_ticket_, waiter);
}

void Outside::Forget(OutsideWaiter& waiter) {
  if (waiter.outside_ticket_ != 0) impl_->Forget(std::exchange(waiter.outside_ticket_, 0));
}

void Outside::SetEngineOptions(OutsideOptions options) {
  impl_->SetEngineOptions(std::move(options));
}

}  // namespace llmd::control
