// The scheduling cycle: filter, score, pick. Pure; one call decides one profile for one request.
//
// Profiles are compiled when a config is loaded: flat arrays of typed pointers and weights, so that
// a cycle looks nothing up. Thread-safe: a Profile is immutable and its plugins are.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "plugin/plugin.h"
#include "scheduling/trace.h"

namespace llmd::scheduling {

struct WeightedScorer {
  const plugin::Scorer* scorer;
  double weight;
  uint32_t plugin;  // index into the generation's plugin list, for traces and metrics
};

struct FilterStep {
  const plugin::Filter* filter;
  uint32_t plugin;
};

struct Profile {
  std::string name;
  std::vector<FilterStep> filters;
  std::vector<WeightedScorer> scorers;
  const plugin::Picker* picker = nullptr;
  uint32_t picker_plugin = 0;
};

// Runs `profile` over `candidates` (ascending; left untouched) and returns at least
// `endpoints_wanted` endpoints, best first, where that many are left: the pick and its fallbacks
// (more when the picker's configuration asks for more). Scores are clamped to [0, 1] before they
// are weighted; NaN counts as 0 and is reported as a bug. The picker gets the candidates ordered by
// requests in flight and, where these are equal, at random: a picker that leaves the order of equal
// scores alone breaks ties that way. One that takes the highest scores gets only those that can be
// chosen, so that nobody else needs an order. Result and trace live in the request's arena.
plugin::ProfileResult RunProfile(const Profile& profile, plugin::RequestContext& request,
                                 std::span<const plugin::EndpointNumber> candidates,
                                 size_t endpoints_wanted, Trace* trace);

// Lets the handler choose profiles until it is done, each at most once, then names the primary one.
// When that one has no endpoints: ResourceExhausted if its filters say that the servers are full,
// Unavailable otherwise.
base::Result<plugin::SchedulingResult> Schedule(const plugin::ProfileHandler& handler,
                                                std::span<const Profile> profiles,
                                                plugin::RequestContext& request,
                                                std::span<const plugin::EndpointNumber> candidates,
                                                size_t endpoints_wanted, Trace* trace);

}  // namespace llmd::scheduling
