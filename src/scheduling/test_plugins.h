// Plugins of a few lines for tests and benchmarks of the rooms from here up: each does what its
// public member says.
#pragma once

#include <algorithm>
#include <functional>
#include <utility>

#include "plugin/plugin.h"

namespace llmd::scheduling::testing {

struct FunctionFilter final : plugin::Filter {
  explicit FunctionFilter(std::function<bool(plugin::EndpointNumber)> k,
                          plugin::EmptyMeans m = plugin::EmptyMeans::kNoEndpoints)
      : keep(std::move(k)), means(m) {}
  void Apply(const plugin::RequestContext&, plugin::Candidates& c) const override {
    c.KeepIf(keep);
  }
  plugin::EmptyMeans empty_means() const override { return means; }
  std::function<bool(plugin::EndpointNumber)> keep;
  plugin::EmptyMeans means;
};

struct FunctionScorer final : plugin::Scorer {
  explicit FunctionScorer(std::function<double(plugin::EndpointNumber)> s) : score(std::move(s)) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }
  void Score(const plugin::RequestContext&, std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    for (size_t i = 0; i < candidates.size(); ++i) scores[i] = score(candidates[i]);
  }
  std::function<double(plugin::EndpointNumber)> score;
};

// Best scores first, equal ones in the order they came in.
struct BestPicker final : plugin::Picker {
  explicit BestPicker(size_t c = 1, bool h = false) : count(c), highest(h) {}
  void Pick(plugin::RequestContext&, std::span<plugin::ScoredCandidate> scored,
            size_t wanted) const override {
    for (size_t i = 0; i < wanted; ++i) {
      size_t best = i;
      for (size_t j = i + 1; j < scored.size(); ++j) {
        if (scored[j].score > scored[best].score) best = j;
      }
      std::rotate(scored.begin() + static_cast<std::ptrdiff_t>(i),
                  scored.begin() + static_cast<std::ptrdiff_t>(best),
                  scored.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
  }
  size_t endpoint_count() const override { return count; }
  bool takes_highest() const override { return highest; }
  size_t count;
  bool highest;
};

// Runs every profile in order; the first is the primary one.
struct EveryProfileHandler final : plugin::ProfileHandler {
  std::optional<size_t> Next(plugin::RequestContext&,
                             std::span<const plugin::ProfileResult> results) const override {
    for (size_t i = 0; i < results.size(); ++i) {
      if (!results[i].ran) return i;
    }
    return std::nullopt;
  }
  base::Result<size_t> Primary(plugin::RequestContext&,
                               std::span<const plugin::ProfileResult>) const override {
    return 0;
  }
  base::Status CheckProfiles(std::span<const std::string>) const override {
    return base::OkStatus();
  }
};

}  // namespace llmd::scheduling::testing
