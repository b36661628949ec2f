// HitError: how well the index foretells what endpoints find in their caches, endpoint by endpoint.
//
// Each reply that tells its cached tokens is compared with what the index had said at the decision.
// error = moving mean, over about kMemory requests, of (cached - predicted) / prompt tokens. While
// it is persistent (kRequestsMin requests, more than kErrorFree), trust falls from 1 to 0 by
// kErrorCost per unit of error: the index is not used for an endpoint that it is wrong about, and
// the prediction goes on, so that trust comes back.
//
// Thread safety: Add belongs to the worker that it names; Fold to one thread; the rest to any.
// Limits: fleet::kEndpointsMax endpoints.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "fleet/endpoint.h"

namespace llmd::plugins {

class HitError {
 public:
  static constexpr double kMemory = 100;  // requests
  static constexpr uint64_t kRequestsMin = 30;
  static constexpr double kErrorFree = 0.1;
  static constexpr double kErrorCost = 2;

  explicit HitError(size_t workers);

  void Add(size_t worker, fleet::EndpointNumber endpoint, uint64_t generation, uint64_t predicted,
           uint64_t cached, uint64_t prompt);
  // Takes in what was added, for endpoints below `endpoints`.
  void Fold(size_t endpoints);

  // 1 while there is nothing to say.
  float trust(fleet::EndpointNumber endpoint) const {
    return folded_[endpoint].trust.load(std::memory_order_relaxed);
  }
  struct Report {
    uint64_t requests = 0, predicted = 0, cached = 0;
    double error = 0;
  };
  Report report(fleet::EndpointNumber endpoint) const;

 private:
  // Of one worker and endpoint; sums since that endpoint has its number.
  struct Cell {
    std::atomic<uint64_t> generation{0}, requests{0}, predicted{0}, cached{0}, prompt{0};
  };
  struct Folded {
    std::atomic<float> trust{1}, error{0};
    std::atomic<uint64_t> requests{0}, predicted{0}, cached{0};
    uint64_t generation = 0, prompt = 0;  // Fold's own
  };

  const size_t workers_;
  std::unique_ptr<Cell[]> cells_;  // [worker * kEndpointsMax + endpoint]
  std::unique_ptr<Folded[]> folded_;
};

}  // namespace llmd::plugins
