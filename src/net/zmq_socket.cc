#include "net/zmq_socket.h"

#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/strings.h"

namespace llmd::net {
namespace {

// A connection whose peer vanished without a word is noticed after about 30 + 3 * 10 seconds.
constexpr int kKeepaliveIdleSeconds = 30;
constexpr int kKeepaliveIntervalSeconds = 10;
constexpr int kKeepaliveProbes = 3;
constexpr int kMonitoredEvents = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                                 ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                                 ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                                 ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

int TypeOf(ZmqKind kind) {
  switch (kind) {
    case ZmqKind::kSubscriber: return ZMQ_SUB;
    case ZmqKind::kPublisher: return ZMQ_PUB;
    case ZmqKind::kDealer: return ZMQ_DEALER;
    case ZmqKind::kRouter: return ZMQ_ROUTER;
  }
  return ZMQ_SUB;
}

base::Status ZmqError(std::string_view what) {
  const int error = errno;
  std::string text = base::Concat(what, ": ", zmq_strerror(error));
  switch (error) {
    case EINVAL:
    case EPROTONOSUPPORT:
    case ENOCOMPATPROTO: return base::InvalidArgument(std::move(text));
    case EMFILE: return base::ResourceExhausted(std::move(text));
    default: return base::Unavailable(std::move(text));
  }
}

base::Status SetInt(void* socket, int option, int value, std::string_view name) {
  if (zmq_setsockopt(socket, option, &value, sizeof(value)) == 0) return {};
  return ZmqError(name);
}

base::Status SetText(void* socket, int option, std::string_view value, std::string_view name) {
  if (zmq_setsockopt(socket, option, value.data(), value.size()) == 0) return {};
  return ZmqError(name);
}

int Milliseconds(base::Duration d) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
  return static_cast<int>(std::clamp<int64_t>(ms, 1, INT32_MAX));
}

int DescriptorOf(void* socket) {
  int fd = -1;
  size_t size = sizeof(fd);
  zmq_getsockopt(socket, ZMQ_FD, &fd, &size);
  return fd;
}

}  // namespace

// --- context -------------------------------------------------------------------------------------

ZmqContext::ZmqContext(runtime::EventLoop& loop)
    : impl_(new Impl{.loop = loop, .handle = zmq_ctx_new(), .authenticator = nullptr}) {
  LLMD_CHECK(impl_->handle != nullptr, "zmq_ctx_new failed: out of file descriptors?");
  zmq_ctx_set(impl_->handle, ZMQ_BLOCKY, 0);
  zmq_ctx_set(impl_->handle, ZMQ_MAX_SOCKETS, zmq_ctx_get(impl_->handle, ZMQ_SOCKET_LIMIT));
  impl_->authenticator = std::make_unique<ZmqAuthenticator>(loop, impl_->handle);
}

ZmqContext::~ZmqContext() {
  LLMD_CHECK(impl_->sockets == 0, "a ZmqContext was destroyed before its sockets");
  impl_->authenticator.reset();
  while (zmq_ctx_term(impl_->handle) != 0 && errno == EINTR) {}
}

runtime::EventLoop& ZmqContext::loop() const { return impl_->loop; }
uint64_t ZmqContext::refused() const { return impl_->authenticator->refused(); }

// --- what happens to the connections -------------------------------------------------------------

class ZmqSocket::Monitor final : private runtime::IoHandler {
 public:
  explicit Monitor(ZmqSocket& socket) : socket_(socket) {}
  ~Monitor() {
    zmq_socket_monitor(socket_.handle_, nullptr, 0);
    if (handle_ == nullptr) return;
    if (watched_) socket_.loop_.Unwatch(fd_, *this);
    zmq_close(handle_);
  }

  base::Status Start() {
    ZmqContext::Impl& context = socket_.context_.impl();
    const std::string address =
        "inproc://llmd-monitor-" + std::to_string(context.monitors_made++);
    if (zmq_socket_monitor(socket_.handle_, address.c_str(), kMonitoredEvents) != 0) {
      return ZmqError("zmq_socket_monitor");
    }
    handle_ = zmq_socket(context.handle, ZMQ_PAIR);
    if (handle_ == nullptr) return ZmqError("zmq_socket");
    // libzmq's thread waits when this queue is full, so it never is.
    LLMD_RETURN_IF_ERROR(SetInt(handle_, ZMQ_RCVHWM, 0, "ZMQ_RCVHWM"));
    if (zmq_connect(handle_, address.c_str()) != 0) return ZmqError("monitor");
    fd_ = DescriptorOf(handle_);
    LLMD_RETURN_IF_ERROR(socket_.loop_.WatchReadable(fd_, *this));
    watched_ = true;
    Read();
    return {};
  }

  // First frame: event, 2 bytes, value, 4 bytes, in host order; second: the address.
  void Read() {
    while (true) {
      char event[6];
      char address[512];
      const int size = zmq_recv(handle_, event, sizeof(event), ZMQ_DONTWAIT);
      if (size < 0) return;
      const int length = zmq_recv(handle_, address, sizeof(address), 0);
      uint16_t id;
      std::memcpy(&id, event, sizeof(id));
      socket_.OnMonitor(id, {address, std::min<size_t>(std::max(length, 0), sizeof(address))});
    }
  }

 private:
  void OnIo(runtime::IoEvents) override { Read(); }

  ZmqSocket& socket_;
  void* handle_ = nullptr;
  int fd_ = -1;
  bool watched_ = false;
};

// At a bound address the events do not say which of its connections they are of, so ends of failed
// handshakes are told from ends of real ones by counting.
void ZmqSocket::OnMonitor(uint16_t event, std::string_view address) {
  const bool incoming = std::ranges::find(bound_, address) != bound_.end();
  const auto target = std::ranges::find(targets_, address, &Target::address);
  switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: return OnUp(incoming ? "" : address);
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
      ++stats_.handshakes_failed;
      failed_pending_ += incoming;
      return;
    case ZMQ_EVENT_DISCONNECTED:
      if (incoming && failed_pending_ > 0) {
        --failed_pending_;
      } else if (incoming || (target != targets_.end() && target->connected)) {
        if (!incoming) target->connected = false;
        OnDown();
      }
      return;
    default: return;
  }
}

void ZmqSocket::OnUp(std::string_view target_address) {
  bool again = false;
  if (!target_address.empty()) {
    auto target = std::ranges::find(targets_, target_address, &Target::address);
    again = target != targets_.end();
    if (!again) target = targets_.insert(target, {.address = std::string(target_address)});
    target->connected = true;
  }
  ++stats_.connections;
  ++stats_.connected;
  stats_.reconnections += again;
  owner_.OnZmqLink(true, again);
}

void ZmqSocket::OnDown() {
  if (stats_.connected == 0) return;
  ++stats_.disconnections;
  --stats_.connected;
  owner_.OnZmqLink(false, false);
}

// --- socket --------------------------------------------------------------------------------------

struct ZmqSocket::Message {
  zmq_msg_t parts[kZmqFramesMax];
  std::string_view frames[kZmqFramesMax];
  size_t count = 0;
  size_t bytes = 0;
  bool whole = true;  // else it had more frames than fit

  Message() {
    for (zmq_msg_t& part : parts) zmq_msg_init(&part);
  }
  ~Message() {
    for (zmq_msg_t& part : parts) zmq_msg_close(&part);
  }
};

ZmqSocket::ZmqSocket(ZmqContext& context, ZmqKind kind, ZmqSocketOwner& owner)
    : context_(context),
      loop_(context.loop()),
      kind_(kind),
      owner_(owner),
      message_(std::make_unique<Message>()),
      again_(loop_, [this] { Drain(); }) {
  ++context_.impl().sockets;
}

ZmqSocket::~ZmqSocket() {
  monitor_.reset();
  if (fd_ >= 0) loop_.Unwatch(fd_, *this);
  message_.reset();
  if (handle_ != nullptr) zmq_close(handle_);
  if (!domain_.empty()) context_.impl().authenticator->Remove(domain_);
  --context_.impl().sockets;
}

base::Result<std::unique_ptr<ZmqSocket>> ZmqSocket::Open(ZmqContext& context, ZmqKind kind,
                                                         const ZmqSocketOptions& options,
                                                         std::span<const std::string> topics,
                                                         ZmqSocketOwner& owner) {
  std::unique_ptr<ZmqSocket> socket(new ZmqSocket(context, kind, owner));
  LLMD_RETURN_IF_ERROR(socket->SetUp(options, topics));
  return socket;
}

base::Status ZmqSocket::SetUp(const ZmqSocketOptions& options,
                              std::span<const std::string> topics) {
  handle_ = zmq_socket(context_.impl().handle, TypeOf(kind_));
  if (handle_ == nullptr) return ZmqError("zmq_socket");
  LLMD_RETURN_IF_ERROR(SetOptions(options));
  LLMD_RETURN_IF_ERROR(SetCurve(options));
  if (kind_ == ZmqKind::kSubscriber) {
    for (const std::string& topic : topics) {
      LLMD_RETURN_IF_ERROR(SetText(handle_, ZMQ_SUBSCRIBE, topic, "ZMQ_SUBSCRIBE"));
    }
    if (topics.empty()) LLMD_RETURN_IF_ERROR(SetText(handle_, ZMQ_SUBSCRIBE, "", "ZMQ_SUBSCRIBE"));
  }
  const int fd = DescriptorOf(handle_);
  LLMD_RETURN_IF_ERROR(loop_.WatchReadable(fd, *this));
  fd_ = fd;
  monitor_ = std::make_unique<Monitor>(*this);
  LLMD_RETURN_IF_ERROR(monitor_->Start());
  for (const std::string& address : options.bind) LLMD_RETURN_IF_ERROR(Bind(address));
  for (const std::string& address : options.connect) LLMD_RETURN_IF_ERROR(Connect(address));
  return {};
}

base::Status ZmqSocket::SetOptions(const ZmqSocketOptions& options) {
  const int hwm = static_cast<int>(std::min<uint32_t>(options.queue_messages_max, INT32_MAX));
  struct Row {
    int option;
    int value;
    std::string_view name;
  };
  const Row rows[] = {
      {ZMQ_LINGER, 0, "ZMQ_LINGER"},
      {ZMQ_SNDHWM, hwm, "ZMQ_SNDHWM"},
      {ZMQ_RCVHWM, hwm, "ZMQ_RCVHWM"},
      {ZMQ_RECONNECT_IVL, Milliseconds(options.reconnect_min), "ZMQ_RECONNECT_IVL"},
      {ZMQ_RECONNECT_IVL_MAX, Milliseconds(options.reconnect_max), "ZMQ_RECONNECT_IVL_MAX"},
      {ZMQ_TCP_KEEPALIVE, 1, "ZMQ_TCP_KEEPALIVE"},
      {ZMQ_TCP_KEEPALIVE_IDLE, kKeepaliveIdleSeconds, "ZMQ_TCP_KEEPALIVE_IDLE"},
      {ZMQ_TCP_KEEPALIVE_INTVL, kKeepaliveIntervalSeconds, "ZMQ_TCP_KEEPALIVE_INTVL"},
      {ZMQ_TCP_KEEPALIVE_CNT, kKeepaliveProbes, "ZMQ_TCP_KEEPALIVE_CNT"},
  };
  for (const Row& row : rows) {
    LLMD_RETURN_IF_ERROR(SetInt(handle_, row.option, row.value, row.name));
  }
  const int64_t bytes_max = static_cast<int64_t>(options.frame_bytes_max);
  if (zmq_setsockopt(handle_, ZMQ_MAXMSGSIZE, &bytes_max, sizeof(bytes_max)) != 0) {
    return ZmqError("ZMQ_MAXMSGSIZE");
  }
  if (kind_ == ZmqKind::kRouter) {
    LLMD_RETURN_IF_ERROR(SetInt(handle_, ZMQ_ROUTER_MANDATORY, 1, "ZMQ_ROUTER_MANDATORY"));
  }
  if (kind_ == ZmqKind::kPublisher) SetDropWhenFull(false);
  return {};
}

base::Status ZmqSocket::SetCurve(const ZmqSocketOptions& options) {
  const ZmqSecurity& security = options.security;
  const bool server = !security.server_secret_key.empty();
  if (server && !security.server_public_key.empty()) {
    return base::InvalidArgument("a socket is the server of CURVE or a client, not both");
  }
  if (server) {
    LLMD_RETURN_IF_ERROR(SetInt(handle_, ZMQ_CURVE_SERVER, 1, "ZMQ_CURVE_SERVER"));
    LLMD_RETURN_IF_ERROR(SetText(handle_, ZMQ_CURVE_SECRETKEY, security.server_secret_key,
                                 "the server's secret key"));
  } else if (!security.server_public_key.empty()) {
    const ZmqKeyPair own =
        security.client.secret_key.empty() ? ZmqKeyPair::Generate() : security.client;
    LLMD_RETURN_IF_ERROR(SetText(handle_, ZMQ_CURVE_SERVERKEY, security.server_public_key,
                                 "the server's public key"));
    LLMD_RETURN_IF_ERROR(
        SetText(handle_, ZMQ_CURVE_PUBLICKEY, own.public_key, "the client's public key"));
    LLMD_RETURN_IF_ERROR(
        SetText(handle_, ZMQ_CURVE_SECRETKEY, own.secret_key, "the client's secret key"));
  }
  LLMD_ASSIGN_OR_RETURN(ZmqPolicy policy, ZmqPolicy::Make(security));
  if (!policy.keys.empty() && !server) {
    return base::InvalidArgument("client keys are checked by a server of CURVE only");
  }
  if (policy.networks.empty() && policy.keys.empty()) return {};
  LLMD_ASSIGN_OR_RETURN(domain_, context_.impl().authenticator->Add(std::move(policy)));
  return SetText(handle_, ZMQ_ZAP_DOMAIN, domain_, "ZMQ_ZAP_DOMAIN");
}

// Literal IPv4 stays IPv4, so that addresses read as they were written; all else may be both.
void ZmqSocket::ChooseFamily(std::string_view address) {
  const size_t slashes = address.find("://");
  std::string_view host = slashes == std::string_view::npos ? "" : address.substr(slashes + 3);
  host = host.substr(0, host.rfind(':'));
  const bool ipv4 = !host.empty() && host.find_first_not_of("0123456789.") == host.npos;
  const int value = ipv4 ? 0 : 1;
  zmq_setsockopt(handle_, ZMQ_IPV6, &value, sizeof(value));
}

base::Status ZmqSocket::Bind(const std::string& address) {
  ChooseFamily(address);
  if (zmq_bind(handle_, address.c_str()) != 0) return ZmqError("cannot bind " + address);
  char bound[512];
  size_t size = sizeof(bound);
  if (zmq_getsockopt(handle_, ZMQ_LAST_ENDPOINT, bound, &size) != 0) {
    return ZmqError("ZMQ_LAST_ENDPOINT");
  }
  bound_.emplace_back(bound);
  LookAgain();
  return {};
}

base::Status ZmqSocket::Connect(const std::string& address) {
  ChooseFamily(address);
  if (zmq_connect(handle_, address.c_str()) != 0) return ZmqError("cannot connect to " + address);
  LookAgain();
  return {};
}

void ZmqSocket::Disconnect(const std::string& address) {
  zmq_disconnect(handle_, address.c_str());
  LookAgain();
  // libzmq does not tell of ends that were asked for.
  const auto target = std::ranges::find(targets_, address, &Target::address);
  if (target == targets_.end()) return;
  const bool was_connected = target->connected;
  targets_.erase(target);
  if (was_connected) OnDown();
}

void ZmqSocket::SetDropWhenFull(bool drop) {
  const int no_drop = drop ? 0 : 1;
  zmq_setsockopt(handle_, ZMQ_XPUB_NODROP, &no_drop, sizeof(no_drop));
}

ZmqSendResult ZmqSocket::Send(std::span<const std::string_view> frames) {
  for (size_t i = 0; i < frames.size(); ++i) {
    const int flags = ZMQ_DONTWAIT | (i + 1 < frames.size() ? ZMQ_SNDMORE : 0);
    if (zmq_send(handle_, frames[i].data(), frames[i].size(), flags) >= 0) continue;
    return errno == EAGAIN ? ZmqSendResult::kFull : ZmqSendResult::kNoPeer;
  }
  ++stats_.messages;
  for (const std::string_view frame : frames) stats_.bytes += frame.size();
  return ZmqSendResult::kSent;
}

bool ZmqSocket::Receive(Message* message) {
  message->count = 0;
  message->bytes = 0;
  message->whole = true;
  for (bool more = true; more;) {
    // What does not fit overwrites the last part.
    const size_t i = std::min(message->count, kZmqFramesMax - 1);
    message->whole = message->count < kZmqFramesMax;
    zmq_msg_t* part = &message->parts[i];
    // Parts of one message arrive together: only the first can be missing.
    if (zmq_msg_recv(part, handle_, ZMQ_DONTWAIT) < 0) return false;
    message->frames[i] = {static_cast<const char*>(zmq_msg_data(part)), zmq_msg_size(part)};
    message->bytes += zmq_msg_size(part);
    ++message->count;
    more = zmq_msg_more(part) != 0;
  }
  return true;
}

// Ends only when libzmq says that nothing is left (then the descriptor tells of what comes next),
// or with a timer for the rest.
void ZmqSocket::Drain() {
  if (kind_ == ZmqKind::kPublisher) {
    // Asking is what makes libzmq take in subscriptions.
    int events;
    size_t size = sizeof(events);
    zmq_getsockopt(handle_, ZMQ_EVENTS, &events, &size);
    return;
  }
  size_t bytes = 0;
  for (int n = 0; n < kZmqTurnMessagesMax && bytes < kZmqTurnBytesMax; ++n) {
    if (!Receive(message_.get())) return owner_.OnZmqIdle();
    bytes += message_->bytes;
    if (!message_->whole) {
      ++stats_.malformed;
      continue;
    }
    ++stats_.messages;
    stats_.bytes += message_->bytes;
    owner_.OnZmqFrames({message_->frames, message_->count});
  }
  LookAgain();
}

}  // namespace llmd::net
