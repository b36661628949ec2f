#include "bench/bench.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/strings.h"
#include "bench/model_list.h"
#include "bench/target.h"
#include "net/resolver.h"
#include "net/tls.h"
#include "runtime/clock.h"
#include "runtime/machine.h"
#include "runtime/worker.h"

namespace llmd::bench {
namespace {

// Workers are made before the first request is due.
constexpr base::Duration kLead = std::chrono::milliseconds(5);
constexpr base::Duration kProgressPeriod = std::chrono::milliseconds(500);

std::string CommonFields(const BenchOptions& options, const TargetUrl& url) {
  std::string fields = base::Concat(" HTTP/1.1\r\nHost: ", url.host_field,
                                    "\r\nUser-Agent: llmd-bench\r\nAccept: */*\r\n");
  if (!options.api_key.empty())
    fields += base::Concat("Authorization: Bearer ", options.api_key, "\r\n");
  for (const std::string& header : options.headers) fields += header + "\r\n";
  return fields;
}

base::Result<net::TargetSpec> ResolveTarget(const BenchOptions& options, const std::string& host,
                                            uint16_t port, bool tls, const char* alpn) {
  net::TargetSpec spec;
  LLMD_ASSIGN_OR_RETURN(const net::Addresses addresses, net::LookupHost(host, port));
  if (addresses.empty()) {
    return std::unexpected(base::NotFound(base::Concat("no address for ", host)));
  }
  spec.address = addresses.front();
  if (tls) {
    LLMD_ASSIGN_OR_RETURN(spec.tls, net::TlsClientContext::Create(
                                        {.ca_file = options.ca_file,
                                         .insecure_skip_verify = options.insecure_skip_verify,
                                         .alpn = alpn}));
    spec.tls_name = host;
  }
  return spec;
}

// The head of a chat request as it reaches the picker through Envoy.
std::vector<ExtProcTarget::Header> ExtProcHeaders(const BenchOptions& options) {
  std::vector<ExtProcTarget::Header> headers = {
      {":method", "POST"},
      {":scheme", "http"},
      {":authority", "inference.example.com"},
      {":path", std::string(workload::ApiPath(options.body.api))},
      {"user-agent", "llmd-bench"},
      {"accept", "application/json"},
      {"accept-encoding", "gzip, deflate"},
      {"content-type", "application/json"},
      {"x-forwarded-proto", "http"},
      {"authorization",
       base::Concat("Bearer ", options.api_key.empty() ? "none" : options.api_key)}};
  for (const std::string& header : options.headers) {
    const std::string_view text = header;
    const size_t colon = text.find(':');
    headers.push_back(
        {base::ToLower(text.substr(0, colon)), std::string(base::Trim(text.substr(colon + 1)))});
  }
  return headers;
}

base::Result<ExtProcTarget> ResolvePicker(const BenchOptions& options) {
  LLMD_ASSIGN_OR_RETURN(const runtime::HostPort at,
                        runtime::SplitHostPort(options.ext_proc.target));
  LLMD_ASSIGN_OR_RETURN(net::TargetSpec spec,
                        ResolveTarget(options, at.host, at.port, options.ext_proc.tls, "h2"));
  return ExtProcTarget{.spec = std::move(spec),
                       .authority = options.ext_proc.target,
                       .options = options.ext_proc,
                       .headers = ExtProcHeaders(options)};
}

}  // namespace

struct BenchRun::Impl {
  Impl(runtime::EventLoop& main_loop, BenchOptions bench_options)
      : loop(main_loop),
        options(std::move(bench_options)),
        watch(options.watched),
        measured_timer(loop, [this] { OnMeasured(); }),
        progress_timer(loop, [this] { OnProgress(); }) {}

  base::Result<RunPlan> MakePlan();
  base::Result<Report> Run(std::function<void(const Progress&)> on_progress);
  void StartWorkers(const RunPlan& plan);
  void OnMeasured();
  void OnProgress();
  void OnWorkerDone();
  Report Collect();

  runtime::EventLoop& loop;
  BenchOptions options;
  ProcessWatch watch;
  base::Status watch_status;
  std::function<void(const Progress&)> progress;
  base::TimePoint begin{};
  base::TimePoint measured_from{};
  std::optional<runtime::WorkerPool> pool;
  std::vector<std::unique_ptr<LoadWorker>> workers;
  size_t workers_left = 0;
  int interrupts = 0;
  runtime::Timer measured_timer;
  runtime::Timer progress_timer;
};

BenchRun::BenchRun(runtime::EventLoop& loop, BenchOptions options)
    : impl_(std::make_unique<Impl>(loop, std::move(options))) {}
BenchRun::~BenchRun() = default;

base::Result<Report> BenchRun::Run(std::function<void(const Progress&)> progress) {
  return impl_->Run(std::move(progress));
}

void BenchRun::Interrupt() {
  Impl& impl = *impl_;
  ++impl.interrupts;
  if (!impl.pool) {
    impl.loop.Stop();
    return;
  }
  for (size_t i = 0; i < impl.workers.size(); ++i) {
    impl.pool->Post(i, [worker = impl.workers[i].get(), again = impl.interrupts > 1] {
      again ? worker->CancelAll() : worker->StopStarting();
    });
  }
}

base::Result<RunPlan> BenchRun::Impl::MakePlan() {
  std::optional<ExtProcTarget> picker;
  if (!options.ext_proc.target.empty()) {
    auto resolved = ResolvePicker(options);
    if (!resolved) return std::unexpected(resolved.error().WithContext(options.ext_proc.target));
    picker = *std::move(resolved);
    if (options.body.model.empty()) options.body.model = "bench";
  }
  std::vector<HttpTarget> targets;
  for (const std::string& text : options.urls) {
    LLMD_ASSIGN_OR_RETURN(const TargetUrl url, ParseTargetUrl(text));
    auto spec = ResolveTarget(options, url.host, url.port, url.tls, "http/1.1");
    if (!spec) return std::unexpected(spec.error().WithContext(text));
    const std::string fields = CommonFields(options, url);
    if (options.body.model.empty()) {
      const std::string head = base::Concat("GET ", url.base_path, "/v1/models", fields, "\r\n");
      auto model = FetchFirstModel(loop, *spec, head);
      if (!model) return std::unexpected(model.error().WithContext(text));
      options.body.model = *std::move(model);
    }
    targets.push_back(
        {.spec = *std::move(spec),
         .head = base::Concat("POST ", url.base_path, workload::ApiPath(options.body.api), fields,
                              "Content-Type: application/json\r\nContent-Length: ")});
  }
  options.prompts.seed = options.seed;
  LLMD_ASSIGN_OR_RETURN(workload::PromptSource prompts,
                        workload::PromptSource::New(options.prompts));
  return RunPlan{.targets = std::move(targets),
                 .ext_proc = std::move(picker),
                 .prompts = std::move(prompts),
                 .body = workload::BodyTemplate(options.body),
                 .stream = options.body.stream,
                 .request_timeout = options.request_timeout,
                 .drain_timeout = options.drain_timeout};
}

base::Result<Report> BenchRun::Impl::Run(std::function<void(const Progress&)> on_progress) {
  LLMD_RETURN_IF_ERROR(Validate(options));
  runtime::RaiseOpenFileLimit();
  progress = std::move(on_progress);
  LLMD_ASSIGN_OR_RETURN(const RunPlan plan, MakePlan());
  StartWorkers(plan);
  if (workers_left > 0) loop.Run();
  watch.Sample();
  Report report = Collect();
  pool->Stop();
  workers.clear();
  pool.reset();
  if (!watch_status.ok()) return std::unexpected(watch_status);
  return report;
}

void BenchRun::Impl::StartWorkers(const RunPlan& plan) {
  // What is due leaves at its time, not at the end of the turn.
  pool.emplace(options.workers, "bench", runtime::IoEngine::kEpoll);
  begin = runtime::Now() + kLead;
  measured_from = begin + options.warm_up;
  workers_left = options.workers;
  workload::PacerOptions pacing{.arrival = options.arrival,
                                .rate = options.rate,
                                .concurrency = options.concurrency,
                                .in_flight_max = options.in_flight_max,
                                .request_count_max = options.request_count_max,
                                .warm_up = options.warm_up,
                                .duration = options.duration,
                                .seed = options.seed,
                                .worker_count = options.workers};
  for (uint32_t i = 0; i < options.workers; ++i) {
    pacing.worker = i;
    workers.push_back(std::make_unique<LoadWorker>(
        pool->loop(i), plan, pacing, begin, [this] { loop.Post([this] { OnWorkerDone(); }); }));
    pool->Post(i, [worker = workers.back().get()] { worker->Start(); });
  }
  measured_timer.ArmAt(measured_from);
  progress_timer.ArmAfter(kProgressPeriod);
  pool->Start();
}

void BenchRun::Impl::OnMeasured() {
  watch_status = watch.Begin();
  if (!watch_status.ok()) loop.Stop();
}

void BenchRun::Impl::OnProgress() {
  watch.Sample();
  if (progress) {
    const base::TimePoint now = runtime::Now();
    Progress at{.elapsed = now - begin, .warm_up = now < measured_from};
    pool->ForEach([&](size_t i, runtime::EventLoop&) {
      const WorkerProgress& one = workers[i]->progress();
      at.total.sent += one.sent;
      at.total.succeeded += one.succeeded;
      at.total.failed += one.failed;
      at.total.in_flight += one.in_flight;
    });
    progress(at);
  }
  progress_timer.ArmAfter(kProgressPeriod);
}

void BenchRun::Impl::OnWorkerDone() {
  if (--workers_left == 0) loop.Stop();
}

Report BenchRun::Impl::Collect() {
  measured_timer.Disarm();
  progress_timer.Disarm();
  Report report;
  report.generator.workers = options.workers;
  double busiest_s = 0;
  pool->ForEach([&](size_t i, runtime::EventLoop&) {
    report.measured.Merge(workers[i]->measurements());
    const double cpu_s = base::ToSeconds(workers[i]->MeasuredCpuTime());
    report.generator.cpu_s += cpu_s;
    busiest_s = std::max(busiest_s, cpu_s);
  });
  if (report.measured.sent > 0) {
    report.send_s = base::ToSeconds(report.measured.last_sent - measured_from);
    report.elapsed_s = base::ToSeconds(report.measured.last_ended - measured_from);
    if (report.elapsed_s > 0) report.generator.busiest_worker = busiest_s / report.elapsed_s;
  }
  report.interrupted = interrupts > 0;
  report.options = options;
  report.options.api_key.clear();
  report.processes = watch.costs();
  return report;
}

}  // namespace llmd::bench
