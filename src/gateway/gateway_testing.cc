#include "gateway/gateway_testing.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/strings.h"
#include "runtime/socket.h"

namespace llmd::gateway {

class ScriptedEngine::Exchange final : public net::ExchangeHandler {
 public:
  Exchange(ScriptedEngine& engine, net::ServerExchange& exchange)
      : engine_(engine), exchange_(exchange) {
    const wire::RequestHead& head = exchange.head();
    seen_.method = head.method_name;
    seen_.target = head.target;
    for (const wire::HttpField& field : head.fields) {
      seen_.fields.emplace(base::ToLower(field.name), field.value);
    }
  }
  void OnBody(base::Slice piece) override { seen_.body.append(piece.view()); }
  void OnBodyEnd() override {
    {
      std::lock_guard lock(engine_.mutex_);
      engine_.seen_.push_back(seen_);
    }
    if (engine_.script_) {
      engine_.script_(exchange_, seen_);
      return;
    }
    exchange_.Respond(
        200, "application/json",
        R"({"id":"x","object":"chat.completion","model":"m","choices":[],"name":")" +
            engine_.name_ +
            R"(","usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}})");
  }
  void OnFinished() override { delete this; }
  void OnClientGone(net::GoneReason) override {
    engine_.client_gone_.fetch_add(1);
    delete this;
  }

 private:
  ScriptedEngine& engine_;
  net::ServerExchange& exchange_;
  Seen seen_;
};

ScriptedEngine::ScriptedEngine(std::string name, Script script, uint16_t wanted_port)
    : name_(std::move(name)), script_(std::move(script)), pool_(1, "engine") {
  SetLoad(0, 0, 0);
  net::HttpService& service = *this;
  server_ = std::make_unique<net::HttpServer>(pool_.loop(0), service);
  const auto port = server_->Listen(runtime::SocketAddress::Ipv4(0x7f000001, wanted_port));
  EXPECT_TRUE(port) << port.error().ToString();
  host_port_ = "127.0.0.1:" + std::to_string(*port);
  pool_.Start();
}

ScriptedEngine::~ScriptedEngine() {
  pool_.Stop();
  server_.reset();
}

std::vector<ScriptedEngine::Seen> ScriptedEngine::seen() const {
  std::lock_guard lock(mutex_);
  return seen_;
}

void ScriptedEngine::SetLoad(double waiting, double running, double kv_usage) {
  std::lock_guard lock(mutex_);
  metrics_page_ = "vllm:num_requests_waiting{model_name=\"m\"} " + std::to_string(waiting) +
                  "\nvllm:num_requests_running{model_name=\"m\"} " + std::to_string(running) +
                  "\nvllm:kv_cache_usage_perc{model_name=\"m\"} " + std::to_string(kv_usage) + "\n";
}

void ScriptedEngine::Kill() {
  pool_.Stop();
  server_.reset();
}

net::ExchangeHandler* ScriptedEngine::OnRequest(net::ServerExchange& exchange) {
  const std::string_view path = exchange.head().path;
  if (path == "/metrics") {
    std::lock_guard lock(mutex_);
    exchange.Respond(200, "text/plain", metrics_page_);
    return nullptr;
  }
  if (path == "/v1/models") {
    exchange.Respond(200, "application/json",
                     R"({"object":"list","data":[{"id":"m","object":"model"},{"id":")" + name_ +
                         R"(","object":"model"}]})");
    return nullptr;
  }
  return new Exchange(*this, exchange);
}

BlockingClient::BlockingClient(uint16_t port) {
  const auto address = runtime::SocketAddress::Ipv4(0x7f000001, port);
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval limit{10, 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  EXPECT_EQ(connect(fd_, address.raw(), address.raw_size()), 0);
}

BlockingClient::~BlockingClient() { Close(); }

void BlockingClient::Close() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

void BlockingClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return;  // the peer closed: what it said is there to be read
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

bool BlockingClient::Fill() {
  char buffer[16384];
  const ssize_t n = recv(fd_, buffer, sizeof(buffer), 0);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) ADD_FAILURE() << "nothing in 10 s";
  if (n <= 0) return false;
  buffered_.append(buffer, static_cast<size_t>(n));
  return true;
}

std::string BlockingClient::ReadUntil(std::string_view text) {
  size_t at;
  while ((at = buffered_.find(text)) == std::string::npos) {
    if (!Fill()) return std::exchange(buffered_, {});
  }
  std::string out = buffered_.substr(0, at + text.size());
  buffered_.erase(0, out.size());
  return out;
}

std::string BlockingClient::ReadAll() {
  while (Fill()) {
  }
  return std::exchange(buffered_, {});
}

BlockingClient::Response BlockingClient::ReadResponse() {
  Response response;
  wire::ResponseHead head;
  wire::HeadParser parser;
  wire::ParseState state;
  while ((state = parser.ParseResponse(buffered_, head, false)) == wire::ParseState::kNeedMore) {
    if (!Fill()) return response;
  }
  EXPECT_EQ(state, wire::ParseState::kDone) << buffered_;
  if (state != wire::ParseState::kDone) return response;
  response.status = head.status;
  response.head = buffered_.substr(0, head.head_bytes);
  const wire::HttpFraming framing = head.framing;
  const uint64_t length = head.content_length;
  buffered_.erase(0, response.head.size());
  if (framing == wire::HttpFraming::kLength) {
    while (buffered_.size() < length) {
      if (!Fill()) return response;
    }
    response.body = buffered_.substr(0, length);
    buffered_.erase(0, length);
  } else if (framing == wire::HttpFraming::kChunked) {
    wire::ChunkedDecoder decoder;
    for (;;) {
      std::string_view input = buffered_;
      std::string_view piece;
      const auto step = decoder.Next(input, piece);
      response.body.append(piece);
      buffered_.erase(0, buffered_.size() - input.size());
      if (step == wire::ChunkedDecoder::Step::kEnd) break;
      if (step == wire::ChunkedDecoder::Step::kError) return response;
      if (step == wire::ChunkedDecoder::Step::kNeedMore && !Fill()) return response;
    }
  } else if (framing == wire::HttpFraming::kUntilClose) {
    response.body = ReadAll();
  }
  response.complete = true;
  return response;
}

std::string PostRequest(std::string_view path, std::string_view body,
                        std::string_view extra_lines) {
  return base::Concat("POST ", path, " HTTP/1.1\r\nHost: test\r\n",
                      "Content-Type: application/json\r\nContent-Length: ",
                      std::to_string(body.size()), "\r\n", extra_lines, "\r\n", body);
}

}  // namespace llmd::gateway
