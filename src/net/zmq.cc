#include "net/zmq.h"

#include "net/zmq_socket.h"

namespace llmd::net {

// --- subscriber ----------------------------------------------------------------------------------

class ZmqSubscriber::Impl final : public ZmqSocketOwner {
 public:
  explicit Impl(ZmqSink& to) : sink(to) {}

  void OnZmqFrames(std::span<const std::string_view> frames) override {
    sink.OnZmqMessage(frames);
  }
  void OnZmqLink(bool up, bool again) override {
    up ? sink.OnZmqConnected(again) : sink.OnZmqDisconnected();
  }

  ZmqSink& sink;
  std::unique_ptr<ZmqSocket> socket;
};

ZmqSubscriber::ZmqSubscriber(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqSubscriber::~ZmqSubscriber() = default;

base::Result<std::unique_ptr<ZmqSubscriber>> ZmqSubscriber::Create(
    ZmqContext& context, const ZmqSocketOptions& options, std::span<const std::string> topics,
    ZmqSink& sink) {
  auto impl = std::make_unique<Impl>(sink);
  LLMD_ASSIGN_OR_RETURN(impl->socket, ZmqSocket::Open(context, ZmqKind::kSubscriber, options,
                                                      topics, *impl));
  return std::unique_ptr<ZmqSubscriber>(new ZmqSubscriber(std::move(impl)));
}

base::Status ZmqSubscriber::Connect(const std::string& address) {
  return impl_->socket->Connect(address);
}
void ZmqSubscriber::Disconnect(const std::string& address) { impl_->socket->Disconnect(address); }
const std::vector<std::string>& ZmqSubscriber::bound() const { return impl_->socket->bound(); }
const ZmqStats& ZmqSubscriber::stats() const { return impl_->socket->stats(); }

// --- publisher -----------------------------------------------------------------------------------

class ZmqPublisher::Impl final : public ZmqSocketOwner {
 public:
  void OnZmqFrames(std::span<const std::string_view>) override {}

  std::unique_ptr<ZmqSocket> socket;
};

ZmqPublisher::ZmqPublisher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqPublisher::~ZmqPublisher() = default;

base::Result<std::unique_ptr<ZmqPublisher>> ZmqPublisher::Create(ZmqContext& context,
                                                                 const ZmqSocketOptions& options) {
  auto impl = std::make_unique<Impl>();
  LLMD_ASSIGN_OR_RETURN(impl->socket,
                        ZmqSocket::Open(context, ZmqKind::kPublisher, options, {}, *impl));
  return std::unique_ptr<ZmqPublisher>(new ZmqPublisher(std::move(impl)));
}

bool ZmqPublisher::Send(std::span<const std::string_view> frames) {
  ZmqSocket& socket = *impl_->socket;
  if (socket.Send(frames) == ZmqSendResult::kSent) return true;
  // Nobody got it yet. Those with room shall; libzmq leaves the others out until they have some.
  ++socket.stats().overflows;
  socket.SetDropWhenFull(true);
  socket.Send(frames);
  socket.SetDropWhenFull(false);
  return false;
}

const std::vector<std::string>& ZmqPublisher::bound() const { return impl_->socket->bound(); }
const ZmqStats& ZmqPublisher::stats() const { return impl_->socket->stats(); }

}  // namespace llmd::net
