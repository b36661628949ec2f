// One accepted connection of an HttpServer: reads requests one after the other, runs one exchange
// at a time, writes its response. Private to the http_server files.
//
// Invariants: 1. Handlers are called from OnIo, OnTurnEnd and OnTimer only, never from inside their
// own calls into the exchange; those calls set state and queue the turn hook. 2. Settle() is the
// last act of each of the three, and the only place that ends an exchange or destroys the
// connection.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "net/http_server.h"
#include "net/in_buffer.h"
#include "net/out_queue.h"
#include "runtime/stream.h"

namespace llmd::net {

// What all connections of one server share.
struct HttpServer::Impl {
  Impl(runtime::EventLoop& event_loop, HttpService& http_service, HttpServerOptions opts);

  std::unique_ptr<ServerExchange> NewExchange();
  void Recycle(std::unique_ptr<ServerExchange> exchange);
  void Remove(ServerConnection* connection);
  void FinishDrainIfIdle();
  // "Date: Wed, ...\r\n", at most a second old.
  std::string_view DateLine();
  std::string ErrorBody(int status, std::string_view code, std::string_view message) const;

  runtime::EventLoop& loop;
  HttpService& service;
  HttpServerOptions options;
  HttpServerStats stats;

  class Listener;
  std::vector<std::unique_ptr<Listener>> listeners;
  void Place(int fd, const runtime::SocketAddress& peer);
  void Adopt(int fd, const runtime::SocketAddress& peer);
  void LookAtLoads();
  struct Sharer {
    Impl* server;
    base::Duration busy{};  // when last looked at
    ServerLoad load;
  };
  std::vector<Sharer> sharers;  // empty: all accepted connections are our own
  PlacementPolicy placement;
  base::TimePoint looked_at{};
  ServerConnection* connections = nullptr;  // doubly linked through the connections
  std::atomic<size_t> connection_count{0};  // with those on their way from another server
  size_t active_count = 0;
  uint64_t last_connection_id = 0;
  std::vector<std::unique_ptr<ServerExchange>> spare_exchanges;
  bool draining = false;
  runtime::Timer drain_timer;
  std::move_only_function<void()> drain_done;
  std::string date_line;
  base::TimePoint date_until{};
};

class ServerConnection final : public runtime::IoHandler, public runtime::TurnHook {
 public:
  // The stream is set with Attach, because it needs the handler.
  ServerConnection(HttpServer::Impl& server, const runtime::SocketAddress& peer, uint64_t id);
  ~ServerConnection();
  void Attach(std::unique_ptr<runtime::Stream> stream);

  void OnIo(runtime::IoEvents events) override;
  void OnTurnEnd() override;
  void OnTimer();
  // Idle: closes now. Otherwise: after the present exchange.
  void BeginDrain();
  // The handler hears kAborted.
  void AbortNow();

 private:
  friend class ServerExchange;
  friend struct HttpServer::Impl;
  friend class HttpServer;

  enum class Phase : uint8_t { kHead, kExchange, kLinger, kClosed };

  runtime::EventLoop& loop() const { return server_.loop; }
  void ReadWhileWanted();
  bool WantsRead() const;
  size_t ReadSize() const;
  void Process();
  void ProcessHead();
  void BeginExchange();
  void HoldHead();
  void StartExchange();
  void SendContinueIfDue();
  void ProcessBody();
  void DeliverBody(base::Slice piece);
  void SetLowWater(size_t bytes);
  void AdjustLowWater();
  void DeliverChunked();
  void EndBody();
  // Ends the exchange's handler with `reason`; answers `status` when no response had begun.
  void FailExchange(GoneReason reason, int status, std::string_view code, std::string_view message);
  // For requests that never became an exchange of the service.
  void RefuseRequest(int status, std::string_view code, std::string_view message);
  void SendError(int status, std::string_view code, std::string_view message);
  void EndExchange();
  void Break(GoneReason reason);
  void Flush();
  bool SettleExchange();
  void Settle();
  void Destroy();
  base::TimePoint Deadline() const;
  void UpdateTimer();
  void TimedOut();
  void BodyTimedOut();
  bool MayKeepAlive() const;
  bool CanSkipBodyRest() const;

  HttpServer::Impl& server_;
  ServerConnection* next_ = nullptr;
  ServerConnection* previous_ = nullptr;
  std::unique_ptr<runtime::Stream> stream_;
  std::unique_ptr<ServerExchange> exchange_;
  runtime::SocketAddress peer_;
  runtime::Timer timer_;
  OutQueue out_;
  InBuffer in_;
  wire::HeadParser parser_;
  uint64_t id_;
  uint64_t request_count_ = 0;
  size_t low_water_ = 1;  // as last told to the stream
  size_t head_read_bytes_;  // room for a head and what comes with it, by the request before
  bool filled_ = false;     // the last read filled its room: more is there
  base::TimePoint last_read_;
  base::TimePoint last_write_;
  base::TimePoint head_began_;
  Phase phase_ = Phase::kHead;
  GoneReason gone_reason_ = GoneReason::kClosed;
  bool can_read_ = true;
  bool peer_closed_ = false;
  bool read_ended_ = false;
  bool broken_ = false;
  bool closing_ = false;  // no further request after the present exchange
};

}  // namespace llmd::net
