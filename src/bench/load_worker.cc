#include "bench/load_worker.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/strings.h"
#include "bench/stream_event.h"
#include "protocol/usage.h"
#include "runtime/clock.h"
#include "wire/sse.h"

namespace llmd::bench {
namespace {

// How often timeouts and the end of the drain are looked at: bounds by how much either is late.
constexpr base::Duration kTick = std::chrono::milliseconds(100);
// Pause after a connection failed, so that a closed loop against a dead server does not spin.
constexpr base::Duration kHoldBack = std::chrono::milliseconds(10);
// What an interrupted run still waits for.
constexpr base::Duration kInterruptedDrain = std::chrono::seconds(3);

net::HttpClientOptions ClientOptions(const workload::PacerOptions& pacing) {
  net::HttpClientOptions options;
  options.idle_per_target_max =
      pacing.arrival == workload::Arrival::kClosedLoop ? pacing.concurrency : pacing.in_flight_max;
  options.connections_per_target_max = kInFlightMax;
  return options;
}

}  // namespace

// One request at a time, from Start to its end; reused.
class LoadWorker::Request final : public net::ClientHandler {
 public:
  explicit Request(LoadWorker& worker) : worker_(worker) {}

  void Begin(const workload::Start& start, const RunPlan::Target& target, net::ClientTarget* pool,
             base::TimePoint now);
  void Cancel(std::string_view kind);
  base::TimePoint sent_at() const { return sent_at_; }

  void OnResponseHead(const wire::ResponseHead& head) override;
  void OnResponseBody(const base::Slice& raw, std::span<const std::string_view> decoded) override;
  void OnResponseEnd() override;
  void OnResponseError(const net::ClientError& error) override;

  size_t active_index = 0;  // where the worker keeps it

 private:
  void OnStreamBytes(std::string_view piece, base::TimePoint now);
  void OnEvent(std::string_view payload, base::TimePoint now);
  void Succeed();
  void Fail(std::string_view kind, std::string_view detail);

  LoadWorker& worker_;
  net::ClientExchange* exchange_ = nullptr;
  std::string head_;
  workload::RenderedBody body_;
  bool warm_up_ = false;
  base::TimePoint sent_at_{};
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

// Starts what is due at the end of the turn in which places became free.
class LoadWorker::Pump final : public runtime::TurnHook {
 public:
  explicit Pump(LoadWorker& worker) : worker_(worker) {}

 private:
  void OnTurnEnd() override { worker_.StartDue(); }
  LoadWorker& worker_;
};

void LoadWorker::Request::Begin(const workload::Start& start, const RunPlan::Target& target,
                                net::ClientTarget* pool, base::TimePoint now) {
  const RunPlan& plan = worker_.plan_;
  plan.body.Render(plan.prompts.At(start.index, start.warm_up), plan.prompts.corpus(), &body_);
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof(digits), body_.bytes());
  head_ = target.head;
  head_.append(digits, end.ptr).append("\r\n\r\n");
  std::vector<base::Slice>& slices = worker_.slices_;
  slices.clear();
  for (const std::string_view piece : body_.pieces()) slices.push_back(base::Slice::Unowned(piece));
  warm_up_ = start.warm_up;
  sent_at_ = now;
  status_ = 0;
  streamed_ = done_seen_ = error_event_ = false;
  success_ = Success();
  error_text_.clear();
  net::StartOptions options;
  options.timeouts.head = options.timeouts.body_idle = plan.request_timeout;
  exchange_ = worker_.client_.Start(pool, base::Slice::Unowned(head_), slices, *this, options);
  if (!warm_up_) worker_.measurements_.RecordSent(start.due, now, body_.bytes());
}

void LoadWorker::Request::Cancel(std::string_view kind) {
  exchange_->Cancel();
  Fail(kind, "");
}

void LoadWorker::Request::OnResponseHead(const wire::ResponseHead& head) {
  status_ = head.status;
  const wire::HttpField* type = head.fields.Find(wire::HttpFieldId::kContentType);
  streamed_ = status_ == 200 && type != nullptr && type->value.starts_with("text/event-stream");
  if (streamed_) {
    sse_ = wire::SseParser();
  } else {
    scanner_ = protocol::ReplyScanner();
  }
}

void LoadWorker::Request::OnResponseBody(const base::Slice& raw,
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

void LoadWorker::Request::OnStreamBytes(std::string_view piece, base::TimePoint now) {
  sse_.Feed(piece);
  for (wire::SseEvent event; sse_.Next(&event);) OnEvent(event.data, now);
}

void LoadWorker::Request::OnEvent(std::string_view payload, base::TimePoint now) {
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
        success_.ttft = now - sent_at_;
      } else if (!warm_up_) {
        worker_.measurements_.inter_token.Record(
            static_cast<uint64_t>((now - last_token_at_).count()));
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

void LoadWorker::Request::OnResponseEnd() {
  if (status_ < 200 || status_ > 299) {
    Fail("http " + std::to_string(status_), error_text_);
  } else if (error_event_) {
    Fail("error-event", error_text_);
  } else if (streamed_ && !done_seen_) {
    Fail("stream-without-done", "the stream ended without [DONE]");
  } else {
    Succeed();
  }
}

void LoadWorker::Request::OnResponseError(const net::ClientError& error) {
  if (error.kind == net::ClientErrorKind::kConnectFailed ||
      error.kind == net::ClientErrorKind::kTlsFailed) {
    worker_.HoldBack();
  }
  Fail(net::ClientErrorName(error.kind), error.detail);
}

void LoadWorker::Request::Succeed() {
  const base::TimePoint now = runtime::Now();
  success_.latency = now - sent_at_;
  if (!streamed_) success_.usage = scanner_.fields().usage;
  ++worker_.progress_.succeeded;
  if (!warm_up_) worker_.measurements_.RecordSuccess(success_, now);
  worker_.Finished(this);
}

void LoadWorker::Request::Fail(std::string_view kind, std::string_view detail) {
  ++worker_.progress_.failed;
  if (!warm_up_) worker_.measurements_.RecordFailure(kind, detail, runtime::Now());
  worker_.Finished(this);
}

LoadWorker::LoadWorker(runtime::EventLoop& loop, const RunPlan& plan,
                       const workload::PacerOptions& pacing, base::TimePoint begin,
                       std::move_only_function<void()> done)
    : loop_(loop),
      plan_(plan),
      pacer_(pacing, begin),
      open_loop_(pacing.arrival != workload::Arrival::kClosedLoop),
      done_(std::move(done)),
      next_target_(pacing.worker),
      pump_(std::make_unique<Pump>(*this)),
      due_timer_(loop, [this] { StartDue(); }),
      tick_timer_(loop, [this] { OnTick(); }),
      client_(loop, ClientOptions(pacing)) {
  for (const RunPlan::Target& target : plan.targets)
    targets_.push_back(client_.AddTarget(target.spec));
}

LoadWorker::~LoadWorker() = default;

void LoadWorker::Start() {
  due_timer_.ArmAt(std::max(pacer_.next_due(), loop_.now()));
  tick_timer_.ArmAfter(kTick);
}

void LoadWorker::StopStarting() {
  pacer_.Stop();
  drain_deadline_ = std::min(drain_deadline_, runtime::Now() + kInterruptedDrain);
  loop_.AtTurnEnd(*pump_);
}

void LoadWorker::CancelAll() {
  pacer_.Stop();
  while (!active_.empty()) active_.back()->Cancel("unfinished");
}

base::Duration LoadWorker::MeasuredCpuTime() const {
  return cpu_at_measured_.count() < 0 ? base::Duration(0)
                                      : runtime::ThreadCpuTime() - cpu_at_measured_;
}

void LoadWorker::StartDue() {
  base::TimePoint now = runtime::Now();
  if (cpu_at_measured_.count() < 0 && now >= pacer_.measured_from()) {
    cpu_at_measured_ = runtime::ThreadCpuTime();
  }
  if (now < hold_until_) {
    due_timer_.ArmAt(hold_until_);
    return;
  }
  while (const auto start = pacer_.TryStart(now)) {
    StartOne(*start, now);
    now = runtime::Now();
  }
  if (pacer_.exhausted()) {
    if (active_.empty() && done_) {
      tick_timer_.Disarm();
      std::exchange(done_, nullptr)();
    }
    return;
  }
  ArmForNextDue();
}

void LoadWorker::ArmForNextDue() {
  const base::TimePoint due = pacer_.next_due();
  if (due != base::TimePoint::max()) {
    counted_at_limit_ = false;
    if (open_loop_) due_timer_.ArmAt(due);
  } else if (open_loop_ && !counted_at_limit_) {
    counted_at_limit_ = true;
    ++measurements_.starts_at_limit;
  }
}

void LoadWorker::StartOne(const workload::Start& start, base::TimePoint now) {
  if (idle_.empty()) {
    requests_.push_back(std::make_unique<Request>(*this));
    idle_.push_back(requests_.back().get());
  }
  Request* request = idle_.back();
  idle_.pop_back();
  request->active_index = active_.size();
  active_.push_back(request);
  ++progress_.sent;
  ++progress_.in_flight;
  const size_t target = next_target_++ % targets_.size();
  request->Begin(start, plan_.targets[target], targets_[target], now);
}

void LoadWorker::Finished(Request* request) {
  active_.back()->active_index = request->active_index;
  active_[request->active_index] = active_.back();
  active_.pop_back();
  idle_.push_back(request);
  --progress_.in_flight;
  pacer_.OnFinished();
  loop_.AtTurnEnd(*pump_);
}

void LoadWorker::HoldBack() {
  if (!open_loop_) hold_until_ = runtime::Now() + kHoldBack;
}

void LoadWorker::OnTick() {
  const base::TimePoint now = runtime::Now();
  // Backwards: a cancelled request is replaced by the last one, which was looked at already.
  for (size_t i = active_.size(); i-- > 0;) {
    if (now - active_[i]->sent_at() > plan_.request_timeout) active_[i]->Cancel("timeout");
  }
  if (drain_deadline_ == base::TimePoint::max() && (pacer_.exhausted() || now >= pacer_.until()) &&
      plan_.drain_timeout < base::TimePoint::max() - now) {
    drain_deadline_ = now + plan_.drain_timeout;
  }
  if (now >= drain_deadline_) CancelAll();
  // A closed loop learns that its time is over by trying; and a missed wake-up would end here.
  loop_.AtTurnEnd(*pump_);
  if (done_) tick_timer_.ArmAt(now + kTick);
}

}  // namespace llmd::bench
