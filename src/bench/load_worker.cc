#include "bench/load_worker.h"

#include <algorithm>
#include <utility>

#include "bench/ext_proc_load.h"
#include "bench/http_load.h"
#include "runtime/clock.h"

namespace llmd::bench {
namespace {

// How often timeouts and the end of the drain are looked at: bounds by how much either is late.
constexpr base::Duration kTick = std::chrono::milliseconds(100);
// Pause after a connection failed, so that a closed loop against a dead server does not spin.
constexpr base::Duration kHoldBack = std::chrono::milliseconds(10);
// What an interrupted run still waits for.
constexpr base::Duration kInterruptedDrain = std::chrono::seconds(3);

}  // namespace

Measurements* LoadRequest::measured() const { return warm_up_ ? nullptr : &worker_.measurements_; }

void LoadRequest::Succeed(Success success) {
  const base::TimePoint now = runtime::Now();
  success.latency = now - sent_at_;
  ++worker_.progress_.succeeded;
  if (!warm_up_) worker_.measurements_.RecordSuccess(success, now);
  worker_.Finished(this);
}

void LoadRequest::Fail(std::string_view kind, std::string_view detail) {
  ++worker_.progress_.failed;
  if (!warm_up_) worker_.measurements_.RecordFailure(kind, detail, runtime::Now());
  worker_.Finished(this);
}

void LoadRequest::Unreachable() { worker_.HoldBack(); }

// Starts what is due at the end of the turn in which places became free.
class LoadWorker::Pump final : public runtime::TurnHook {
 public:
  explicit Pump(LoadWorker& worker) : worker_(worker) {}

 private:
  void OnTurnEnd() override { worker_.StartDue(); }
  LoadWorker& worker_;
};

LoadWorker::LoadWorker(runtime::EventLoop& loop, const RunPlan& plan,
                       const workload::PacerOptions& pacing, base::TimePoint begin,
                       std::move_only_function<void()> done)
    : loop_(loop),
      plan_(plan),
      pacer_(pacing, begin),
      open_loop_(pacing.arrival != workload::Arrival::kClosedLoop),
      done_(std::move(done)),
      pump_(std::make_unique<Pump>(*this)),
      due_timer_(loop, [this] { StartDue(); }),
      tick_timer_(loop, [this] { OnTick(); }),
      client_(plan.ext_proc ? NewExtProcLoad(loop, plan, pacing)
                            : NewHttpLoad(loop, plan, pacing)) {}

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
  while (!active_.empty()) Cancel(active_.back(), "unfinished");
}

void LoadWorker::Cancel(LoadRequest* request, std::string_view kind) {
  request->Abandon();
  request->Fail(kind, "");
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
    requests_.push_back(client_->NewRequest(*this));
    idle_.push_back(requests_.back().get());
  }
  LoadRequest* request = idle_.back();
  idle_.pop_back();
  request->active_index_ = active_.size();
  request->warm_up_ = start.warm_up;
  request->sent_at_ = now;
  active_.push_back(request);
  ++progress_.sent;
  ++progress_.in_flight;
  const uint64_t body_bytes = request->Begin(start);
  if (!start.warm_up) measurements_.RecordSent(start.due, now, body_bytes);
}

void LoadWorker::Finished(LoadRequest* request) {
  active_.back()->active_index_ = request->active_index_;
  active_[request->active_index_] = active_.back();
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
    if (now - active_[i]->sent_at_ > plan_.request_timeout) Cancel(active_[i], "timeout");
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
