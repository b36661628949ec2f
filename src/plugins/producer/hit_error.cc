#include "plugins/producer/hit_error.h"

#include <algorithm>
#include <cmath>

namespace llmd::plugins {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

void AddTo(std::atomic<uint64_t>& sum, uint64_t n) { sum.store(sum.load(kRelaxed) + n, kRelaxed); }

}  // namespace

HitError::HitError(size_t workers)
    : workers_(workers),
      cells_(std::make_unique<Cell[]>(workers * fleet::kEndpointsMax)),
      folded_(std::make_unique<Folded[]>(fleet::kEndpointsMax)) {}

void HitError::Add(size_t worker, fleet::EndpointNumber endpoint, uint64_t generation,
                   uint64_t predicted, uint64_t cached, uint64_t prompt) {
  if (worker >= workers_ || endpoint >= fleet::kEndpointsMax || prompt == 0) return;
  Cell& cell = cells_[worker * fleet::kEndpointsMax + endpoint];
  const uint64_t owner = generation + 1;  // 0: nobody yet
  if (cell.generation.load(kRelaxed) != owner) {
    for (auto* sum : {&cell.requests, &cell.predicted, &cell.cached, &cell.prompt}) {
      sum->store(0, kRelaxed);
    }
    cell.generation.store(owner, kRelaxed);
  }
  AddTo(cell.predicted, std::min(predicted, prompt));
  AddTo(cell.cached, std::min(cached, prompt));
  AddTo(cell.prompt, prompt);
  AddTo(cell.requests, 1);
}

void HitError::Fold(size_t endpoints) {
  for (size_t n = 0; n < std::min(endpoints, fleet::kEndpointsMax); ++n) {
    uint64_t generation = 0, requests = 0, predicted = 0, cached = 0, prompt = 0;
    for (size_t w = 0; w < workers_; ++w) {
      const Cell& cell = cells_[w * fleet::kEndpointsMax + n];
      const uint64_t of = cell.generation.load(kRelaxed);
      if (of < generation || of == 0) continue;
      if (of > generation) requests = predicted = cached = prompt = 0;
      generation = of;
      requests += cell.requests.load(kRelaxed);
      predicted += cell.predicted.load(kRelaxed);
      cached += cell.cached.load(kRelaxed);
      prompt += cell.prompt.load(kRelaxed);
    }
    Folded& f = folded_[n];
    if (generation != f.generation) {
      f.generation = generation;
      f.prompt = 0;
      for (auto* sum : {&f.requests, &f.predicted, &f.cached}) sum->store(0, kRelaxed);
      f.error.store(0, kRelaxed);
      f.trust.store(1, kRelaxed);
    }
    const uint64_t fresh = requests - std::min(requests, f.requests.load(kRelaxed));
    if (fresh == 0 || prompt <= f.prompt) continue;
    const auto since = [](uint64_t now, const std::atomic<uint64_t>& then) {
      return static_cast<double>(now) - static_cast<double>(then.load(kRelaxed));
    };
    const double now = (since(cached, f.cached) - since(predicted, f.predicted)) /
                       static_cast<double>(prompt - f.prompt);
    const double keep = std::exp(-static_cast<double>(fresh) / kMemory);
    // The first requests are a plain mean: nothing is older than they are.
    const double share = std::max(1 - keep, static_cast<double>(fresh) /
                                                static_cast<double>(requests));
    const double error = f.error.load(kRelaxed) * (1 - share) + now * share;
    f.error.store(static_cast<float>(error), kRelaxed);
    f.requests.store(requests, kRelaxed);
    f.predicted.store(predicted, kRelaxed);
    f.cached.store(cached, kRelaxed);
    f.prompt = prompt;
    const double cost = kErrorCost * std::max(0.0, std::abs(error) - kErrorFree);
    f.trust.store(requests < kRequestsMin ? 1.f : static_cast<float>(std::max(0.0, 1 - cost)),
                  kRelaxed);
  }
}

HitError::Report HitError::report(fleet::EndpointNumber endpoint) const {
  const Folded& f = folded_[endpoint];
  return {f.requests.load(kRelaxed), f.predicted.load(kRelaxed), f.cached.load(kRelaxed),
          f.error.load(kRelaxed)};
}

}  // namespace llmd::plugins
