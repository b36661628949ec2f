// Door: the Endpoint Picker's face on one worker. Takes ext_proc calls from the gRPC server and
// gives each a Stream.
//
// Thread safety: belongs to one worker. What workers share (DoorShared) is thread-safe or
// immutable.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "control/memory_budget.h"
#include "control/outside.h"
#include "control/state.h"
#include "director/director.h"
#include "epp/options.h"
#include "epp/stream.h"
#include "net/grpc_server.h"
#include "runtime/loop.h"
#include "telemetry/access_log.h"
#include "wire/ext_proc.h"

namespace llmd::epp {

struct DoorShared {
  control::State& state;
  const EppOptions& options;
  telemetry::LogSink* access_log = nullptr;  // nullptr: no access lines
};

// Why a call ended early, for llmd_limit_hits_total and the log.
enum class StreamFault : uint8_t { kMemoryBudget, kMessage, kOrder, kCount };

class Door final : public net::GrpcService {
 public:
  // `shared` and `loop` outlive the door; `seed` is this worker's chance.
  Door(DoorShared& shared, size_t worker, runtime::EventLoop& loop, uint64_t seed);
  ~Door() override;

  net::GrpcHandler* OnCall(net::GrpcCall& call) override;
  // Addresses of the endpoints, by number.
  void SetBackends(const control::Backends& backends);

  // For streams.
  const EppOptions& options() const { return shared_.options; }
  runtime::EventLoop& loop() { return loop_; }
  director::Director& director() { return director_; }
  control::BudgetLease& budget() { return lease_; }
  control::Outside& outside() { return outside_; }
  wire::ExtProcWriter& writer() { return writer_; }
  uint64_t NextSeed() { return random_.Next(); }
  // "ip:port" as a proxy can connect to it; `fallback` for an endpoint that just left.
  std::string_view AddressOf(fleet::EndpointNumber number, std::string_view fallback) const;
  void Count(StreamFault fault);
  bool writes_access_lines() const { return shared_.access_log != nullptr; }
  void WriteAccessLine(const telemetry::AccessRecord& record);
  void StreamBegan();
  void StreamEnded(base::Duration lasted, net::GrpcEnd why);
  void TakeBack(Stream* stream);
  size_t active_streams() const { return streams_.size() - idle_.size(); }

  // Scratch of the message at hand, empty between calls.
  std::vector<base::Slice> scratch_chunk, scratch_out;

 private:
  DoorShared& shared_;
  const size_t worker_;
  runtime::EventLoop& loop_;
  base::Random random_;
  director::Director director_;
  control::BudgetLease lease_;
  control::Outside outside_;
  wire::ExtProcWriter writer_;
  std::vector<std::string> addresses_;  // by endpoint number
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<Stream*> idle_;
  telemetry::CounterHandle faults_[static_cast<size_t>(StreamFault::kCount)];
  telemetry::GaugeHandle streams_inflight_;
  telemetry::HistogramHandle stream_seconds_;
  telemetry::CounterHandle streams_ok_, streams_cancelled_, streams_failed_;
};

}  // namespace llmd::epp
