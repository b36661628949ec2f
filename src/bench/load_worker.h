// LoadWorker: one loop's share of a run. Starts requests when the pacer says so and keeps the
// measurements; how a request goes over the wire is a LoadClient's business.
//
// Thread safety: belongs to its loop's thread (or to the owner while the loop does not run). The
// plan outlives it and is only read.
// Invariants: 1. A started request is recorded exactly once, as success or failure, unless it
// belongs to the warm-up. 2. `done` is called once, when nothing is in flight and nothing more will
// start.
// Limits: requests in flight are bounded by the pacer; their objects are reused.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "bench/measure.h"
#include "bench/run_plan.h"
#include "runtime/loop.h"
#include "workload/pacer.h"

namespace llmd::bench {

class LoadWorker;

// One request at a time, from Begin to its end; reused.
class LoadRequest {
 public:
  virtual ~LoadRequest() = default;

 protected:
  explicit LoadRequest(LoadWorker& worker) : worker_(worker) {}

  // Sends the request and returns the size of its body. Ends with one call of Succeed or Fail, not
  // before this returned, or with Abandon.
  virtual uint64_t Begin(const workload::Start& start) = 0;
  // Lets go of what is under way, without a word.
  virtual void Abandon() = 0;

  base::TimePoint sent_at() const { return sent_at_; }
  // Where to put what was measured; nullptr in the warm-up.
  Measurements* measured() const;
  void Succeed(Success success);  // its latency is filled in
  void Fail(std::string_view kind, std::string_view detail);
  // Before Fail: the target cannot be reached.
  void Unreachable();

 private:
  friend class LoadWorker;

  LoadWorker& worker_;
  size_t active_index_ = 0;  // where the worker keeps it
  bool warm_up_ = false;
  base::TimePoint sent_at_{};
};

// What requests of one protocol share on one loop.
class LoadClient {
 public:
  virtual ~LoadClient() = default;
  // `worker` outlives the request, and the request outlives the client.
  virtual std::unique_ptr<LoadRequest> NewRequest(LoadWorker& worker) = 0;
};

// For the progress line; warm-up included.
struct WorkerProgress {
  uint64_t sent = 0;
  uint64_t succeeded = 0;
  uint64_t failed = 0;
  uint64_t in_flight = 0;
};

class LoadWorker {
 public:
  LoadWorker(runtime::EventLoop& loop, const RunPlan& plan, const workload::PacerOptions& pacing,
             base::TimePoint begin, std::move_only_function<void()> done);
  ~LoadWorker();
  LoadWorker(const LoadWorker&) = delete;
  LoadWorker& operator=(const LoadWorker&) = delete;

  void Start();
  // For an interrupted run: nothing starts any more, what is in flight gets a few seconds.
  void StopStarting();
  // Ends what is in flight as failed, "unfinished".
  void CancelAll();

  runtime::EventLoop& loop() const { return loop_; }
  const RunPlan& plan() const { return plan_; }
  const Measurements& measurements() const { return measurements_; }
  const WorkerProgress& progress() const { return progress_; }
  // CPU time of the loop's thread since the measured part began; 0 in the warm-up.
  base::Duration MeasuredCpuTime() const;

 private:
  friend class LoadRequest;
  class Pump;

  void StartDue();
  void StartOne(const workload::Start& start, base::TimePoint now);
  void Finished(LoadRequest* request);
  void Cancel(LoadRequest* request, std::string_view kind);
  void HoldBack();
  void OnTick();
  void ArmForNextDue();

  runtime::EventLoop& loop_;
  const RunPlan& plan_;
  workload::Pacer pacer_;
  bool open_loop_;
  std::move_only_function<void()> done_;
  Measurements measurements_;
  WorkerProgress progress_;
  base::TimePoint hold_until_{};
  base::TimePoint drain_deadline_ = base::TimePoint::max();
  base::Duration cpu_at_measured_{-1};
  bool counted_at_limit_ = false;
  std::vector<std::unique_ptr<LoadRequest>> requests_;  // all there are
  std::vector<LoadRequest*> idle_;
  std::vector<LoadRequest*> active_;
  std::unique_ptr<Pump> pump_;
  runtime::Timer due_timer_;
  runtime::Timer tick_timer_;
  std::unique_ptr<LoadClient> client_;  // dies first: lets go of requests before they go
};

}  // namespace llmd::bench
