#include "bench/model_list.h"

#include "base/strings.h"
#include "nlohmann/json.hpp"

namespace llmd::bench {
namespace {

constexpr base::Duration kWait = std::chrono::seconds(10);
// A list of a thousand adapters is about 300 KB.
constexpr size_t kBodyBytesMax = 4 << 20;

// Collects one reply and stops the loop.
class Get final : public net::ClientHandler {
 public:
  explicit Get(runtime::EventLoop& loop) : loop_(loop) {}

  void OnResponseHead(const wire::ResponseHead& head) override { status_ = head.status; }
  void OnResponseBody(const base::Slice& raw, std::span<const std::string_view> decoded) override {
    for (const std::string_view piece : decoded) {
      body_.append(piece.substr(0, kBodyBytesMax - std::min(kBodyBytesMax, body_.size())));
    }
  }
  void OnResponseEnd() override {
    done_ = true;
    loop_.Stop();
  }
  void OnResponseError(const net::ClientError& error) override {
    done_ = true;
    result_ = base::Unavailable(base::Concat("GET /v1/models: ", net::ClientErrorName(error.kind),
                                             error.detail.empty() ? "" : ": ", error.detail));
    loop_.Stop();
  }

  bool done() const { return done_; }
  base::Result<std::string> Take() {
    if (!result_.ok()) return std::unexpected(result_);
    if (status_ != 200) {
      return std::unexpected(base::Unavailable(base::Concat(
          "GET /v1/models: status ", std::to_string(status_), ": ", body_.substr(0, 200))));
    }
    return FirstModelIn(body_);
  }

 private:
  runtime::EventLoop& loop_;
  bool done_ = false;
  int status_ = 0;
  base::Status result_;
  std::string body_;
};

}  // namespace

base::Result<std::string> FirstModelIn(const std::string& body) {
  const auto json = nlohmann::json::parse(body, nullptr, false);
  const auto data = json.is_object() ? json.find("data") : json.end();
  if (!json.is_object() || data == json.end() || !data->is_array()) {
    return std::unexpected(base::NotFound("GET /v1/models: no list of models in the reply"));
  }
  for (const auto& model : *data) {
    if (!model.is_object()) continue;
    const auto id = model.find("id");
    if (id != model.end() && id->is_string()) return id->get<std::string>();
  }
  return std::unexpected(
      base::NotFound("GET /v1/models: the list is empty; name one with --model"));
}

base::Result<std::string> FetchFirstModel(runtime::EventLoop& loop, const net::TargetSpec& target,
                                          const std::string& head) {
  Get get(loop);
  net::HttpClient client(loop);
  runtime::Timer limit(loop, [&] { loop.Stop(); });
  limit.ArmAfter(kWait);
  client.Start(client.AddTarget(target), base::Slice::Unowned(head), {}, get);
  loop.Run();
  if (!get.done()) {
    return std::unexpected(base::DeadlineExceeded("GET /v1/models: no answer within 10 s"));
  }
  return get.Take();
}

}  // namespace llmd::bench
