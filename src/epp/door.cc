#include "epp/door.h"

#include <array>

#include "runtime/clock.h"
#include "runtime/socket.h"

namespace llmd::epp {
namespace {

using telemetry::MetricId;

std::string_view FaultName(StreamFault fault) {
  switch (fault) {
    case StreamFault::kMemoryBudget: return "memory_budget";
    case StreamFault::kMessage: return "ext_proc_message";
    case StreamFault::kOrder: return "ext_proc_order";
    case StreamFault::kCount: break;
  }
  return "";
}

director::DirectorOptions OptionsOf(const DoorShared& shared, size_t worker) {
  director::DirectorOptions options;
  options.worker = worker;
  options.pool_name = shared.state.pool_name;
  options.endpoints_wanted = shared.options.fallback_endpoints;
  options.objects = &shared.state.objects;
  options.clock = &runtime::StageNow;
  options.tracer = shared.state.tracer.get();
  options.wall_clock_ns = [] { return runtime::WallNow().unix_ns; };
  return options;
}

}  // namespace

Door::Door(DoorShared& shared, size_t worker, runtime::EventLoop& loop, uint64_t seed)
    : shared_(shared),
      worker_(worker),
      loop_(loop),
      random_(seed),
      director_(shared.state.generations, shared.state.fleet, shared.state.metrics,
                shared.state.records, OptionsOf(shared, worker)),
      lease_(shared.state.budget),
      outside_(loop, *shared.state.outside, shared.state.metrics, worker),
      writer_(&loop.buffers()) {
  telemetry::Metrics& metrics = shared.state.metrics;
  for (size_t i = 0; i < std::size(faults_); ++i) {
    faults_[i] = metrics.Counter(MetricId::kLimitHitsTotal, {FaultName(StreamFault(i))});
  }
  if (!shared.options.enable_grpc_stream_metrics) return;
  streams_inflight_ = metrics.Gauge(MetricId::kExtprocStreamsInflight);
  stream_seconds_ = metrics.Histogram(MetricId::kExtprocStreamDurationSeconds);
  streams_ok_ = metrics.Counter(MetricId::kExtprocStreamsTotal, {"OK"});
  streams_cancelled_ = metrics.Counter(MetricId::kExtprocStreamsTotal, {"Canceled"});
  streams_failed_ = metrics.Counter(MetricId::kExtprocStreamsTotal, {"Unknown"});
}

Door::~Door() = default;

net::GrpcHandler* Door::OnCall(net::GrpcCall& call) {
  if (idle_.empty()) {
    streams_.push_back(std::make_unique<Stream>(*this));
    idle_.push_back(streams_.back().get());
  }
  Stream* stream = idle_.back();
  idle_.pop_back();
  stream->Begin(call);
  if (shared_.options.enable_grpc_stream_metrics) streams_inflight_.Add(worker_, 1);
  return stream;
}

void Door::TakeBack(Stream* stream) { idle_.push_back(stream); }

void Door::SetBackends(const control::Backends& backends) {
  for (const control::Backend& backend : backends) {
    if (backend.number >= addresses_.size()) addresses_.resize(backend.number + 1);
    addresses_[backend.number] = backend.target.address.ToString();
  }
}

std::string_view Door::AddressOf(fleet::EndpointNumber number, std::string_view fallback) const {
  if (number >= addresses_.size() || addresses_[number].empty()) return fallback;
  return addresses_[number];
}

void Door::Count(StreamFault fault) { faults_[static_cast<size_t>(fault)].Add(worker_); }

void Door::StreamEnded(base::Duration lasted, net::GrpcEnd why) {
  if (!shared_.options.enable_grpc_stream_metrics) return;
  streams_inflight_.Add(worker_, -1);
  stream_seconds_.Observe(worker_, base::ToSeconds(lasted));
  const auto& counter = why == net::GrpcEnd::kFinished      ? streams_ok_
                        : why == net::GrpcEnd::kClientReset ? streams_cancelled_
                                                            : streams_failed_;
  counter.Add(worker_);
}

void Door::WriteAccessLine(const telemetry::AccessRecord& record) {
  std::array<char, telemetry::kAccessLineMax> line;
  shared_.access_log->Write(
      telemetry::LogLevel::kInfo,
      telemetry::EncodeAccessLine(record, shared_.options.log_format, line));
}

}  // namespace llmd::epp
