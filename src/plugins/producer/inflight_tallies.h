// InflightTallies: what is in flight by endpoint, fairness id and priority, for gauges that carry
// these labels.
//
// Each worker counts in a table of its own: finding a tally costs a hash of the id and one lookup
// by number, without lock and without allocation, once the worker saw the three together. Reading
// adds up the tables.
//
// Thread safety: Find by a worker's thread only, which alone writes to what it got; ForEach by any.
// Invariants: 1. A tally keeps its labels while it is not zero and for its worker's next
// kFindsKept calls of Find. 2. A worker's tallies add up to what it has in flight.
// Limits: kTalliesMax a worker, as many as a family of metrics has series; an id longer than
// kIdBytesMax counts as `other`. In a full table tallies at zero make room; while none is, id and
// priority read `other`, which takes one more tally per endpoint.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fleet/fleet.h"
#include "telemetry/metrics.h"

namespace llmd::plugins {

class InflightTallies {
 public:
  static constexpr size_t kTalliesMax = telemetry::kSeriesPerFamilyMax;
  static constexpr size_t kIdBytesMax = 256;
  static constexpr uint64_t kFindsKept = 16;  // plugin::kBookingsMax of one request

  struct Tally {
    std::atomic<int64_t> requests{0};
    std::atomic<int64_t> tokens{0};
  };
  struct Labels {
    fleet::EndpointNumber endpoint = 0;
    std::string_view fairness_id;
    std::string_view priority;  // "-1", or "other"
  };
  using Visit = std::function<void(const Labels&, int64_t requests, int64_t tokens)>;

  explicit InflightTallies(size_t workers, size_t tallies_max = kTalliesMax);
  ~InflightTallies();
  InflightTallies(const InflightTallies&) = delete;
  InflightTallies& operator=(const InflightTallies&) = delete;

  Tally& Find(size_t worker, fleet::EndpointNumber endpoint, std::string_view fairness_id,
              int32_t priority);
  // Once for each set of labels that a worker has, ascending by endpoint.
  void ForEach(const Visit& visit) const;

 private:
  struct Entry;
  struct Worker;

  Entry* Add(Worker& worker, uint64_t hash) const;
  bool MakeRoom(Worker& worker) const;

  const size_t tallies_max_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace llmd::plugins
