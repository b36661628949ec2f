#include "control/host.h"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "base/strings.h"
#include "control/otlp_exporter.h"
#include "runtime/clock.h"
#include "runtime/machine.h"

namespace llmd::control {
namespace {

// What the page says of the process itself.
void CollectProcess(telemetry::ScrapeSeries& series) {
  using telemetry::MetricId;
  series.Set(MetricId::kProcessResidentBytes, {}, static_cast<double>(runtime::ResidentBytes()));
  series.Set(MetricId::kProcessCpuSeconds, {}, runtime::ProcessCpuSeconds(0));
  series.Set(MetricId::kProcessOpenFds, {}, static_cast<double>(runtime::OpenFileCount()));
  series.Set(MetricId::kProcessMaxFds, {}, static_cast<double>(runtime::OpenFileLimit()));
  series.Set(MetricId::kInfo, {LLMD_COMMIT, LLMD_BUILD_REF}, 1);
  for (const base::BugSite* site = base::FirstBugSite(); site; site = site->next) {
    series.Set(MetricId::kInternalBugTotal,
               {base::Concat(site->file, ":", std::to_string(site->line))},
               static_cast<double>(site->count.load(std::memory_order_relaxed)));
  }
}

}  // namespace

Host::Host(const HostOptions& options, const plugin::Catalogue& catalogue, std::string name,
           std::function<uint64_t()> dropped_lines, runtime::IoEngine engine)
    : options_(options),
      catalogue_(catalogue),
      state_(options.workers ? options.workers : runtime::AvailableCpuCount(),
             options.memory_budget_bytes ? options.memory_budget_bytes
                                         : runtime::MemoryLimitBytes() / 4,
             options.pool_name),
      control_loop_(1, "control"),
      workers_(state_.worker_count, std::move(name), engine) {
  runtime::RaiseOpenFileLimit();
  if (options.traces) {
    state_.tracer = std::make_unique<telemetry::Tracer>(options.traces->tracer);
  }
  process_gauges_ = state_.metrics.AddCollector(
      [dropped = std::move(dropped_lines),
       started = runtime::WallNow()](telemetry::ScrapeSeries& series) {
        CollectProcess(series);
        series.Set(telemetry::MetricId::kProcessStartSeconds, {},
                   static_cast<double>(started.unix_ns) * 1e-9);
        if (dropped) {
          series.Set(telemetry::MetricId::kLogDroppedTotal, {}, static_cast<double>(dropped()));
        }
      });
}

Host::~Host() {
  Stop();
  control_.reset();
  state_.outside.reset();
}

base::Status Host::Begin(std::function<void(std::shared_ptr<const Backends>)> publish) {
  control_ = std::make_unique<Control>(control_loop(), state_, options_, catalogue_,
                                       std::move(publish));
  return control_->Begin();
}

void Host::Start() {
  workers_.Start();
  control_loop_.Start();
}

void Host::Stop() {
  workers_.Stop();
  control_loop_.Stop();
}

void Host::Drain(
    const std::function<void(size_t worker, std::function<void()> drained)>& drain) {
  state_.draining.store(true);
  std::mutex mutex;
  std::condition_variable done;
  size_t left = state_.worker_count;
  const auto drained = [&] {
    std::lock_guard lock(mutex);
    if (--left == 0) done.notify_one();
  };
  for (size_t i = 0; i < state_.worker_count; ++i) {
    workers_.Post(i, [&, i] { drain(i, drained); });
  }
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return left == 0; });
  FlushTraces();
}

void Host::FlushTraces() {
  if (!state_.tracer) return;
  struct Flush {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
  };
  const auto flush = std::make_shared<Flush>();  // the export may outlast the wait
  control_loop_.Post(0, [this, flush] {
    control_->FlushTraces([flush] {
      std::lock_guard lock(flush->mutex);
      flush->done = true;
      flush->changed.notify_one();
    });
  });
  std::unique_lock lock(flush->mutex);
  flush->changed.wait_for(lock, kFlushMax, [&] { return flush->done; });
}

void Host::Wait(base::Duration time) { std::this_thread::sleep_for(time); }

bool Host::WaitForEndpoints(size_t count, base::Duration limit) {
  const base::TimePoint deadline = runtime::Now() + limit;
  while (state_.fleet.members()->numbers.size() < count) {
    if (runtime::Now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace llmd::control
