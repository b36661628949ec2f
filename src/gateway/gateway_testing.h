// For the gateway's tests: engines that do what a test says, and a client that blocks.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "net/http_server.h"
#include "runtime/worker.h"

namespace llmd::gateway {

// A model server on a loopback port. `script` answers POSTs once the body is complete; without one
// it replies with a chat completion that names the engine. GET /metrics and /v1/models answer as
// vLLM.
class ScriptedEngine final : private net::HttpService {
 public:
  struct Seen {
    std::string method, target, body;
    std::multimap<std::string, std::string> fields;  // names lower-cased
  };
  using Script = std::function<void(net::ServerExchange&, const Seen&)>;

  explicit ScriptedEngine(std::string name, Script script = nullptr, uint16_t port = 0);
  ~ScriptedEngine() override;

  const std::string& host_port() const { return host_port_; }
  std::vector<Seen> seen() const;
  size_t client_gone_count() const { return client_gone_.load(); }
  // What /metrics says from now on.
  void SetLoad(double waiting, double running, double kv_usage);
  // Stops listening and resets every connection.
  void Kill();

 private:
  class Exchange;
  net::ExchangeHandler* OnRequest(net::ServerExchange& exchange) override;

  const std::string name_;
  const Script script_;
  std::string host_port_;
  mutable std::mutex mutex_;
  std::vector<Seen> seen_;
  std::string metrics_page_;
  std::atomic<size_t> client_gone_{0};
  runtime::WorkerPool pool_;
  std::unique_ptr<net::HttpServer> server_;
};

// A blocking connection to 127.0.0.1:port; every call fails the test after ten seconds.
class BlockingClient {
 public:
  explicit BlockingClient(uint16_t port);
  ~BlockingClient();
  BlockingClient(const BlockingClient&) = delete;
  BlockingClient& operator=(const BlockingClient&) = delete;

  void Send(std::string_view bytes);
  // Reads until `text` was seen (and returns all so far), the peer closed, or the limit passed.
  std::string ReadUntil(std::string_view text);
  // Until the peer closes.
  std::string ReadAll();
  // One response: head and body by Content-Length or chunks (decoded). What follows is kept.
  struct Response {
    int status = 0;
    std::string head, body;
    bool complete = false;
  };
  Response ReadResponse();
  void Close();

 private:
  bool Fill();

  int fd_ = -1;
  std::string buffered_;
};

// POST with a JSON body, keep-alive.
std::string PostRequest(std::string_view path, std::string_view body,
                        std::string_view extra_lines = "");

}  // namespace llmd::gateway
