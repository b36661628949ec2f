#include "plugins/producer/inflight_tallies.h"

#include <map>
#include <tuple>
#include <utility>

#include "base/hash.h"

namespace llmd::plugins {
namespace {

// Of the tally of an endpoint for whatever found no place of its own.
constexpr uint64_t kOtherHash = 0x9e3779b97f4a7c15;

uint64_t HashOf(fleet::EndpointNumber endpoint, std::string_view id, int32_t priority) {
  const uint64_t flow = base::Mix64(base::Hash64(id), static_cast<uint32_t>(priority));
  return base::Mix64(flow, endpoint);
}

}  // namespace

struct InflightTallies::Entry {
  Tally tally;
  uint64_t hash = 0;
  uint64_t found = 0;  // by which call of Find last
  fleet::EndpointNumber endpoint = 0;
  int32_t priority = 0;
  bool in_use = false;
  bool other = false;
  std::string fairness_id;

  bool zero() const {
    return tally.requests.load(std::memory_order_relaxed) == 0 &&
           tally.tokens.load(std::memory_order_relaxed) == 0;
  }
};

struct InflightTallies::Worker {
  mutable std::mutex mutex;     // labels change under it; their worker reads them without
  std::deque<Entry> entries;    // they never move
  std::unordered_map<uint64_t, Entry*> by_hash;  // the worker's alone, like the rest
  std::vector<Entry*> free;
  uint64_t finds = 0;
  size_t misses_before_sweep = 0;
};

InflightTallies::InflightTallies(size_t workers, size_t tallies_max) : tallies_max_(tallies_max) {
  for (size_t i = 0; i < workers; ++i) workers_.push_back(std::make_unique<Worker>());
}

InflightTallies::~InflightTallies() = default;

InflightTallies::Tally& InflightTallies::Find(size_t worker_number, fleet::EndpointNumber endpoint,
                                              std::string_view fairness_id, int32_t priority) {
  Worker& worker = *workers_[worker_number];
  const std::string_view id =
      fairness_id.size() > kIdBytesMax ? telemetry::kOverflow : fairness_id;
  ++worker.finds;
  const auto found = [&](Entry& entry) -> Tally& {
    entry.found = worker.finds;
    return entry.tally;
  };
  const uint64_t hash = HashOf(endpoint, id, priority);
  if (const auto it = worker.by_hash.find(hash); it != worker.by_hash.end()) {
    Entry& entry = *it->second;
    if (entry.endpoint == endpoint && entry.priority == priority && entry.fairness_id == id) {
      return found(entry);
    }
  } else if (MakeRoom(worker)) {
    const std::lock_guard lock(worker.mutex);
    Entry& entry = *Add(worker, hash);
    entry.endpoint = endpoint;
    entry.fairness_id = id;
    entry.priority = priority;
    return found(entry);
  }
  const uint64_t other = base::Mix64(kOtherHash, endpoint);
  if (const auto it = worker.by_hash.find(other); it != worker.by_hash.end()) {
    return found(*it->second);
  }
  const std::lock_guard lock(worker.mutex);
  Entry& entry = *Add(worker, other);
  entry.endpoint = endpoint;
  entry.fairness_id = telemetry::kOverflow;
  entry.other = true;
  return found(entry);
}

InflightTallies::Entry* InflightTallies::Add(Worker& worker, uint64_t hash) const {
  Entry* entry = nullptr;
  if (worker.free.empty()) {
    entry = &worker.entries.emplace_back();
  } else {
    entry = worker.free.back();
    worker.free.pop_back();
  }
  entry->hash = hash;
  entry->in_use = true;
  entry->other = false;
  worker.by_hash[hash] = entry;
  return entry;
}

bool InflightTallies::MakeRoom(Worker& worker) const {
  if (!worker.free.empty() || worker.entries.size() < tallies_max_) return true;
  // Looking through a table in which nothing is at zero is not worth it for each miss.
  if (worker.misses_before_sweep > 0) {
    --worker.misses_before_sweep;
    return false;
  }
  const std::lock_guard lock(worker.mutex);
  for (Entry& entry : worker.entries) {
    if (!entry.in_use || !entry.zero() || worker.finds - entry.found < kFindsKept) continue;
    worker.by_hash.erase(entry.hash);
    entry.in_use = false;
    worker.free.push_back(&entry);
  }
  if (worker.free.empty()) worker.misses_before_sweep = tallies_max_ / 8;
  return !worker.free.empty();
}

void InflightTallies::ForEach(const Visit& visit) const {
  std::map<std::tuple<fleet::EndpointNumber, std::string, std::string>,
           std::pair<int64_t, int64_t>>
      sums;
  for (const auto& worker : workers_) {
    const std::lock_guard lock(worker->mutex);
    for (const Entry& entry : worker->entries) {
      if (!entry.in_use) continue;
      auto& [requests, tokens] =
          sums[{entry.endpoint, entry.fairness_id,
                entry.other ? std::string(telemetry::kOverflow) : std::to_string(entry.priority)}];
      requests += entry.tally.requests.load(std::memory_order_relaxed);
      tokens += entry.tally.tokens.load(std::memory_order_relaxed);
    }
  }
  for (const auto& [labels, sum] : sums) {
    const auto& [endpoint, id, priority] = labels;
    visit({.endpoint = endpoint, .fairness_id = id, .priority = priority}, sum.first, sum.second);
  }
}

}  // namespace llmd::plugins
