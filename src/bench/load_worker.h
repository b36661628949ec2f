// LoadWorker: one loop's share of a run. Starts requests when the pacer says so, follows their
// replies, stamps every event, and keeps the measurements.
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
#include <string>
#include <vector>

#include "bench/measure.h"
#include "bench/options.h"
#include "net/http_client.h"
#include "runtime/loop.h"
#include "workload/body.h"
#include "workload/pacer.h"
#include "workload/prompts.h"

namespace llmd::bench {

// What all workers of a run share.
struct RunPlan {
  struct Target {
    net::TargetSpec spec;
    std::string head;  // request line and fields, up to the value of Content-Length
  };
  std::vector<Target> targets;
  workload::PromptSource prompts;
  workload::BodyTemplate body;
  bool stream = false;
  base::Duration request_timeout{};
  base::Duration drain_timeout{};
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

  const Measurements& measurements() const { return measurements_; }
  const WorkerProgress& progress() const { return progress_; }
  // CPU time of the loop's thread since the measured part began; 0 in the warm-up.
  base::Duration MeasuredCpuTime() const;

 private:
  class Request;
  class Pump;

  void StartDue();
  void StartOne(const workload::Start& start, base::TimePoint now);
  void Finished(Request* request);
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
  size_t next_target_ = 0;
  std::vector<net::ClientTarget*> targets_;
  std::vector<std::unique_ptr<Request>> requests_;  // all there are
  std::vector<base::Slice> slices_;                 // of the body being started
  std::vector<Request*> idle_;
  std::vector<Request*> active_;
  std::unique_ptr<Pump> pump_;
  runtime::Timer due_timer_;
  runtime::Timer tick_timer_;
  net::HttpClient client_;  // dies first: cancels exchanges before their requests go
};

}  // namespace llmd::bench
