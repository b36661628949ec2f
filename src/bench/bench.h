// BenchRun: one run of the load generator, from options to report.
//
//   runtime::EventLoop loop;
//   BenchRun run(loop, options);
//   ASSIGN report = run.Run([](const Progress& p) { ... });
//
// Thread safety: all methods on the thread of `loop`; the worker threads are the run's own.
// Errors: bad options, a target that cannot be resolved, no model to be found. Failing requests are
// no error of the run: they are in the report.
#pragma once

#include <functional>
#include <memory>

#include "base/status.h"
#include "bench/load_worker.h"
#include "bench/options.h"
#include "bench/report.h"
#include "runtime/loop.h"

namespace llmd::bench {

struct Progress {
  base::Duration elapsed{};  // since the first request
  bool warm_up = false;
  WorkerProgress total;
};

class BenchRun {
 public:
  // `loop` outlives the run and is run by Run.
  BenchRun(runtime::EventLoop& loop, BenchOptions options);
  ~BenchRun();
  BenchRun(const BenchRun&) = delete;
  BenchRun& operator=(const BenchRun&) = delete;

  // Blocks until the last request ended. `progress`, if any, is called twice a second.
  base::Result<Report> Run(std::function<void(const Progress&)> progress = nullptr);
  // From a handler on `loop`: the first call stops sending, the second one gives up what is in
  // flight. Run then returns what was measured.
  void Interrupt();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::bench
