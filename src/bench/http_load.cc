#include "bench/http_load.h"

#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "bench/load_worker.h"
#include "bench/stream_event.h"
#include "net/http_client.h"
#include "protocol/usage.h"
#include "runtime/clock.h"
#include "wire/sse.h"

namespace llmd::bench {
namespace {

net::HttpClientOptions ClientOptions(const workload::PacerOptions& pacing) {
  net::HttpClientOptions options;
  options.idle_per_target_max =
      pacing.arrival == workload::Arrival::kClosedLoop ? pacing.concurrency : pacing.in_flight_max;
  options.connections_per_target_max = kInFlightMax;
  return options;
}

class HttpLoad final : public LoadClient {
 public:
  HttpLoad(runtime::EventLoop& loop, const RunPlan& plan, const workload::PacerOptions& pacing)
      : plan_(plan), next_target_(pacing.worker), client_(loop, ClientOptions(pacing)) {
    for (const HttpTarget& target : plan.targets)
      targets_.push_back(client_.AddTarget(target.spec));
  }
  std::unique_ptr<LoadRequest> NewRequest(LoadWorker& worker) override;
  // Sends `body` to the next target; `head` keeps the head until the exchange has ended.
  net::ClientExchange* Send(const workload::RenderedBody& body, std::string* head,
                            net::ClientHandler& handler);

 private:
  const RunPlan& plan_;
  size_t next_target_;
  std::vector<net::ClientTarget*> targets_;
  std::vector<base::Slice> slices_;  // of the body being started
  net::HttpClient client_;
};

class HttpRequest final : public LoadRequest, public net::ClientHandler {
 public:
  HttpRequest(LoadWorker& worker, HttpLoad& client)
      : LoadRequest(worker), plan_(worker.plan()), client_(client) {}

  void OnResponseHead(const wire::ResponseHead& head) override;
  void OnResponseBody(const base::Slice& raw, std::span<const std::string_view> decoded) override;
  void OnResponseEnd() override;
  void OnResponseError(const net::ClientError& error) override;

 private:
  uint64_t Begin(const workload::Start& start) override;
  void Abandon() override { exchange_->Cancel(); }
  void OnStreamBytes(std::string_view piece, base::TimePoint now);
  void OnEvent(std::string_view payload, base::TimePoint now);

  const RunPlan& plan_;
  HttpLoad& client_;
  net::ClientExchange* exchange_ = nullptr;
  std::string head_;
  workload::RenderedBody body_;
  // The reply.
  int status_ = 0;
  bool streamed_ = false;
  bool done_seen_ = false;
  bool error_event_ = false;
  base::TimePoint last_token_at_{};
  Success success_;
  std::string error_text_;  // the start of a refusal's body
  wire::SseParser sse_;
  protocol::ReplyScanner scanner_;
};

std::unique_ptr<LoadRequest> HttpLoad::NewRequest(LoadWorker& worker) {
  return std::make_unique<HttpRequest>(worker, *this);
}

net::ClientExchange* HttpLoad::Send(const workload::RenderedBody& body, std::string* head,
                                    net::ClientHandler& handler) {
  const size_t number = next_target_++ % targets_.size();
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof(digits), body.bytes());
  *head = plan_.targets[number].head;
  head->append(digits, end.ptr).append("\r\n\r\n");
  slices_.clear();
  for (const std::string_view piece : body.pieces()) slices_.push_back(base::Slice::Unowned(piece));
  net::StartOptions options;
  options.timeouts.head = options.timeouts.body_idle = plan_.request_timeout;
  return client_.Start(targets_[number], base::Slice::Unowned(*head), slices_, handler, options);
}

uint64_t HttpRequest::Begin(const workload::Start& start) {
  plan_.body.Render(plan_.prompts.At(start.index, start.warm_up), plan_.prompts.corpus(), &body_);
  status_ = 0;
  streamed_ = done_seen_ = error_event_ = false;
  success_ = Success();
  error_text_.clear();
  exchange_ = client_.Send(body_, &head_, *this);
  return body_.bytes();
}

void HttpRequest::OnResponseHead(const wire::ResponseHead& head) {
  status_ = head.status;
  const wire::HttpField* type = head.fields.Find(wire::HttpFieldId::kContentType);
  streamed_ = status_ == 200 && type != nullptr && type->value.starts_with("text/event-stream");
  if (streamed_) {
    sse_ = wire::SseParser();
  } else {
    scanner_ = protocol::ReplyScanner();
  }
}

void HttpRequest::OnResponseBody(const base::Slice& raw,
                                 std::span<const std::string_view> decoded) {
  const base::TimePoint now = streamed_ ? runtime::Now() : base::TimePoint();
  for (const std::string_view piece : decoded) {
    success_.reply_bytes += piece.size();
    if (streamed_) {
      OnStreamBytes(piece, now);
    } else if (status_ == 200) {
      if (!scanner_.done()) scanner_.Feed(piece);
    } else if (error_text_.size() < Measurements::kDetailBytesMax) {
      error_text_.append(piece.substr(0, Measurements::kDetailBytesMax));
    }
  }
}

void HttpRequest::OnStreamBytes(std::string_view piece, base::TimePoint now) {
  sse_.Feed(piece);
  for (wire::SseEvent event; sse_.Next(&event);) OnEvent(event.data, now);
}

void HttpRequest::OnEvent(std::string_view payload, base::TimePoint now) {
  switch (ClassifyEvent(payload)) {
    case EventKind::kDone:
      done_seen_ = true;
      return;
    case EventKind::kError:
      error_event_ = true;
      error_text_ = payload.substr(0, Measurements::kDetailBytesMax);
      break;
    case EventKind::kToken:
      ++success_.token_events;
      if (success_.ttft.count() < 0) {
        success_.ttft = now - sent_at();
      } else if (Measurements* m = measured()) {
        m->inter_token.Record(static_cast<uint64_t>((now - last_token_at_).count()));
      }
      last_token_at_ = now;
      break;
    case EventKind::kOther:
      break;
  }
  ++success_.events;
  if (protocol::MayHoldUsage(payload)) {
    protocol::ReplyFields fields;
    protocol::ScanPayload(payload, &fields);
    if (fields.usage.present) success_.usage = fields.usage;
  }
}

void HttpRequest::OnResponseEnd() {
  if (status_ < 200 || status_ > 299) {
    Fail("http " + std::to_string(status_), error_text_);
  } else if (error_event_) {
    Fail("error-event", error_text_);
  } else if (streamed_ && !done_seen_) {
    Fail("stream-without-done", "the stream ended without [DONE]");
  } else {
    if (!streamed_) success_.usage = scanner_.fields().usage;
    Succeed(success_);
  }
}

void HttpRequest::OnResponseError(const net::ClientError& error) {
  if (error.kind == net::ClientErrorKind::kConnectFailed ||
      error.kind == net::ClientErrorKind::kTlsFailed) {
    Unreachable();
  }
  Fail(net::ClientErrorName(error.kind), error.detail);
}

}  // namespace

std::unique_ptr<LoadClient> NewHttpLoad(runtime::EventLoop& loop, const RunPlan& plan,
                                        const workload::PacerOptions& pacing) {
  return std::make_unique<HttpLoad>(loop, plan, pacing);
}

}  // namespace llmd::bench
