// Host: the threads and the shared state under a door, whatever that speaks. Wiring only.
//
//   workers   one loop per CPU; a door puts its servers there
//   control   one loop: Control, and what else a door wants off the data path
//
// Use: construct; make the doors on workers().loop(i); Begin; let the servers listen; Start. Stop
// before the doors are destroyed.
// Thread safety: all methods from the owner's thread. The catalogue outlives the host.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "control/control.h"
#include "control/options.h"
#include "control/state.h"
#include "plugin/catalogue.h"
#include "runtime/worker.h"

namespace llmd::control {

// A program that serves until it is told to drain.
class Role {
 public:
  virtual ~Role() = default;  // stops at once
  // Takes nothing new, finishes what is under way (at most the drain timeout), then returns.
  virtual void Drain() = 0;
};

class Host {
 public:
  // `options` outlives the host. `name` becomes the name of the worker threads. `dropped_lines`
  // (may be null) counts log and access lines that were dropped, for the metrics page. `engine` is
  // the workers'.
  Host(const HostOptions& options, const plugin::Catalogue& catalogue, std::string name,
       std::function<uint64_t()> dropped_lines,
       runtime::IoEngine engine = runtime::IoEngine::kAuto);
  ~Host();  // stops

  // Makes the Control: reads every file, listens on the metrics port. Errors name the flag or file.
  // `publish` gets the backends whenever they change, on the control thread (before Start: here).
  base::Status Begin(std::function<void(std::shared_ptr<const Backends>)> publish);
  void Start();
  // No loop runs from then on.
  void Stop();

  // Calls `drain` on every worker with a function to be called when that worker has nothing left,
  // and waits for all.
  void Drain(const std::function<void(size_t worker, std::function<void()> drained)>& drain);
  // Lets everything go on for that long.
  void Wait(base::Duration time);
  // Exports the spans that wait; gives up after kFlushMax.
  void FlushTraces();
  // Waits until at least `count` endpoints are members; false after `limit`.
  bool WaitForEndpoints(size_t count, base::Duration limit);

  State& state() { return state_; }
  runtime::WorkerPool& workers() { return workers_; }
  runtime::EventLoop& control_loop() { return control_loop_.loop(0); }
  Control& control() { return *control_; }

 private:
  static constexpr base::Duration kFlushMax = std::chrono::seconds(5);

  const HostOptions& options_;
  const plugin::Catalogue& catalogue_;
  State state_;
  std::unique_ptr<telemetry::Metrics::Registration> process_gauges_;
  runtime::WorkerPool control_loop_;
  runtime::WorkerPool workers_;
  std::unique_ptr<Control> control_;
};

// "host:port,host:port" pieces as endpoint descriptions, named endpoint-0, endpoint-1, ...
base::Result<std::vector<fleet::EndpointSpec>> ParseEndpoints(
    const std::vector<std::string>& endpoints);

}  // namespace llmd::control
