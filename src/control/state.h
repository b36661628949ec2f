// State: what the doors and the control thread of one process share: the fleet, the metrics, the
// config in force, the objects, the decision records.
//
// Thread safety: everything in it is thread-safe or immutable once the workers run.
// Invariant: members are made in the order of declaration and outlive every door and the Control.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "control/memory_budget.h"
#include "control/outside.h"
#include "director/director.h"
#include "fleet/fleet.h"
#include "net/http_client.h"
#include "telemetry/metrics.h"
#include "telemetry/trace.h"

namespace llmd::control {

// Where an endpoint is reached; made by FleetSource on the control thread.
struct Backend {
  fleet::EndpointNumber number;
  uint64_t generation;  // of the endpoint's number
  net::TargetSpec target;
};
using Backends = std::vector<Backend>;

struct State {
  // One more fleet view than workers, the control thread's, with index `workers`; of metric
  // writers two more: the control thread's and behind it that of the ingest of KV events.
  State(size_t workers, uint64_t memory_budget_bytes, std::string pool)
      : worker_count(workers),
        pool_name(std::move(pool)),
        fleet(workers + 1),
        metrics(workers + 2),
        budget(memory_budget_bytes, workers),
        records(workers),
        outside(std::make_unique<OutsidePools>(workers)) {}

  const size_t worker_count;
  const std::string pool_name;
  fleet::Fleet fleet;
  telemetry::Metrics metrics;
  std::unique_ptr<telemetry::Tracer> tracer;  // nullptr: no tracing
  MemoryBudget budget;
  director::GenerationSource generations;
  director::ObjectsSource objects;
  director::RecordRing records;
  std::unique_ptr<OutsidePools> outside;  // ends before the loops do
  std::atomic<bool> draining{false};
};

}  // namespace llmd::control
