#include "scheduling/cycle.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "fleet/fleet.h"
#include "scheduling/stages.h"

namespace llmd::scheduling {
namespace {

using plugin::EndpointNumber;
using plugin::ProfileResult;
using plugin::RequestContext;
using plugin::ScoredCandidate;

// Checks that cost time and can only fail through a plugin's mistake.
#ifdef NDEBUG
constexpr bool kValidate = false;
#else
constexpr bool kValidate = true;
#endif

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <class T>
std::span<T> Uninitialised(base::Arena& arena, size_t n) {
  return {static_cast<T*>(arena.Allocate(n * sizeof(T), alignof(T))), n};
}

// Survivors must be a subset in unchanged order; what is not is put right.
[[maybe_unused]] void ValidateFilter(std::span<const EndpointNumber> before,
                                     plugin::Candidates& after) {
  if (std::includes(before.begin(), before.end(), after.numbers.begin(), after.numbers.end()))
    return;
  LLMD_BUG("a filter invented an endpoint or changed the order");
  std::sort(after.numbers.begin(), after.numbers.end());
  size_t kept = 0;
  for (EndpointNumber n : after.numbers) {
    const bool repeated = kept > 0 && after.numbers[kept - 1] == n;
    if (!repeated && std::binary_search(before.begin(), before.end(), n)) after.numbers[kept++] = n;
  }
  after.numbers = after.numbers.first(kept);
}

plugin::EmptyMeans RunFilters(const Profile& profile, RequestContext& request,
                              plugin::Candidates& candidates, Stages& stages) {
  for (const FilterStep& step : profile.filters) {
    if (candidates.numbers.empty()) break;
    std::span<EndpointNumber> before;
    if constexpr (kValidate) {
      before = Uninitialised<EndpointNumber>(*request.arena, candidates.numbers.size());
      std::copy(candidates.numbers.begin(), candidates.numbers.end(), before.begin());
    }
    stages(ExtensionPoint::kFilter, step.plugin,
           [&] { step.filter->Apply(request, candidates); });
    if constexpr (kValidate) ValidateFilter(before, candidates);
    if (candidates.numbers.empty()) return step.filter->empty_means();
  }
  return plugin::EmptyMeans::kNoEndpoints;
}

// Clamps to [0, 1] in place and adds the weighted scores to the totals.
void Combine(std::span<double> scores, double weight, std::span<double> totals) {
  bool nan = false;
  for (size_t i = 0; i < scores.size(); ++i) {
    const double s = scores[i];
    nan |= s != s;
    scores[i] = s > 0 ? std::min(s, 1.0) : 0;  // NaN compares false
    totals[i] += weight * scores[i];
  }
  if (nan) LLMD_BUG("a scorer gave NaN");
}

void RunScorers(const Profile& profile, RequestContext& request,
                std::span<const EndpointNumber> candidates, std::span<double> totals,
                Trace* trace, Stages& stages) {
  const bool keep = trace && trace->keep_scores;
  std::span<ScorerTrace> kept;
  if (keep) kept = Uninitialised<ScorerTrace>(*request.arena, profile.scorers.size());
  std::span<double> scores;
  for (size_t s = 0; s < profile.scorers.size(); ++s) {
    const WeightedScorer& step = profile.scorers[s];
    if (keep || s == 0) scores = Uninitialised<double>(*request.arena, candidates.size());
    // What a scorer forgets to fill counts as 0, not as its predecessor's score.
    std::fill(scores.begin(), scores.end(), 0.0);
    stages(ExtensionPoint::kScorer, step.plugin,
           [&] { step.scorer->Score(request, candidates, scores); });
    Combine(scores, step.weight, totals);
    if (keep) {
      kept[s] = {.plugin = step.plugin,
                 .weight = step.weight,
                 .scores = scores,
                 .end = trace->border};
    }
  }
  if (keep) {
    trace->scored = candidates;
    trace->scorers = kept;
    trace->totals = totals;
  }
}

// A pick and its fallbacks. Whoever wants more candidates than that gets all of them in order.
constexpr size_t kHighestMax = 16;

// The `wanted`-th highest total: what is lower is not chosen by score. NaN is lower than nothing,
// so that it stays a candidate.
double LeastChosen(std::span<const double> totals, size_t wanted) {
  if (wanted >= totals.size() || wanted > kHighestMax) return -kInfinity;  // all may be
  double highest[kHighestMax];
  std::fill_n(highest, wanted, -kInfinity);
  for (const double total : totals) {
    if (!(highest[wanted - 1] < total)) continue;
    size_t at = wanted - 1;
    for (; at > 0 && highest[at - 1] < total; --at) highest[at] = highest[at - 1];
    highest[at] = total;
  }
  return highest[wanted - 1];
}

// Fills `scored` with all candidates, those below `least` at its end; returns the others.
std::span<ScoredCandidate> Divide(std::span<const EndpointNumber> candidates,
                                  std::span<const double> totals, double least,
                                  std::span<ScoredCandidate> scored) {
  size_t begin = 0, end = scored.size();
  for (size_t i = 0; i < candidates.size(); ++i) {
    scored[totals[i] < least ? --end : begin++] = {candidates[i], totals[i]};
  }
  return scored.first(begin);
}

void Shuffle(std::span<ScoredCandidate> candidates, base::Random& random) {
  for (size_t i = candidates.size(); i > 1; --i) {
    std::swap(candidates[i - 1], candidates[random.Below(i)]);
  }
}

constexpr size_t kInsertionMax = 16;

// Stable sort by requests in flight. Few candidates: insertion. Many: counting, because the numbers
// are small; the comparison sort is for the fleet that is badly out of balance.
void OrderByInFlight(std::span<ScoredCandidate> candidates, const int64_t* in_flight,
                     base::Arena& arena) {
  constexpr int64_t kBucketsMax = 4096;
  if (candidates.size() <= kInsertionMax) {
    for (size_t i = 1; i < candidates.size(); ++i) {
      const ScoredCandidate c = candidates[i];
      size_t at = i;
      for (; at > 0 && in_flight[candidates[at - 1].endpoint] > in_flight[c.endpoint]; --at) {
        candidates[at] = candidates[at - 1];
      }
      candidates[at] = c;
    }
    return;
  }
  int64_t low = in_flight[candidates[0].endpoint], high = low;
  for (const ScoredCandidate& c : candidates) {
    low = std::min(low, in_flight[c.endpoint]);
    high = std::max(high, in_flight[c.endpoint]);
  }
  if (low == high) return;
  const auto from = Uninitialised<ScoredCandidate>(arena, candidates.size());
  std::copy(candidates.begin(), candidates.end(), from.begin());
  if (high - low < kBucketsMax) {
    const auto starts = arena.NewSpan<uint32_t>(static_cast<size_t>(high - low) + 2);
    for (const ScoredCandidate& c : from) ++starts[in_flight[c.endpoint] - low + 1];
    for (size_t b = 1; b < starts.size(); ++b) starts[b] += starts[b - 1];
    for (const ScoredCandidate& c : from) candidates[starts[in_flight[c.endpoint] - low]++] = c;
    return;
  }
  const auto order = Uninitialised<std::pair<int64_t, uint32_t>>(arena, candidates.size());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = {in_flight[from[i].endpoint], i};
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < order.size(); ++i) candidates[i] = from[order[i].second];
}

// True when the first `wanted` are different candidates.
bool ValidPick(std::span<const EndpointNumber> candidates, std::span<const ScoredCandidate> scored,
               size_t wanted) {
  for (size_t i = 0; i < wanted; ++i) {
    const EndpointNumber n = scored[i].endpoint;
    if (!std::binary_search(candidates.begin(), candidates.end(), n)) return false;
    for (size_t j = 0; j < i; ++j) {
      if (scored[j].endpoint == n) return false;
    }
  }
  return true;
}

// Notes how far a profile's run has come; does nothing when runs are not kept.
class RunNotes {
 public:
  RunNotes(Trace* trace, const Profile& profile, size_t candidates) : trace_(trace) {
    if (!trace || !trace->keep_runs) return;
    const base::TimePoint t = trace->border;
    trace->runs = {trace->runs.data(), trace->runs.size() + 1};
    run_ = &trace->runs.back();
    *run_ = {.profile = profile.name, .begin = t, .filtered = t, .scored = t, .ordered = t,
             .picked = t, .candidates = candidates};
  }
  void Filtered(size_t left) {
    if (!run_) return;
    run_->left = left;
    run_->filtered = run_->scored = run_->ordered = run_->picked = trace_->border;
  }
  void Scored(bool any) {
    if (!run_) return;
    if (any && trace_->keep_scores) run_->scorers = trace_->scorers;
    run_->scored = run_->ordered = run_->picked = trace_->border;
  }
  void Ordered() {
    if (run_) run_->ordered = run_->picked = trace_->border;
  }
  void Picked(std::span<const ScoredCandidate> totals) {
    if (!run_) return;
    run_->picked = trace_->border;
    run_->totals = totals;
  }

 private:
  Trace* const trace_;
  ProfileTrace* run_ = nullptr;
};

std::string NothingLeft(std::string_view profile) {
  std::string text = "no endpoints available for the given request";
  if (!profile.empty()) text.append(" (profile ").append(profile).append(")");
  return text;
}

}  // namespace

ProfileResult RunProfile(const Profile& profile, RequestContext& request,
                         std::span<const EndpointNumber> candidates, size_t endpoints_wanted,
                         Trace* trace) {
  Stages stages(trace);
  base::Arena& arena = *request.arena;
  ProfileResult result{.profile = profile.name, .endpoints = {}, .ran = true};
  RunNotes notes(trace, profile, candidates.size());

  // Filter.
  plugin::Candidates left{Uninitialised<EndpointNumber>(arena, candidates.size())};
  std::copy(candidates.begin(), candidates.end(), left.numbers.begin());
  result.empty_means = RunFilters(profile, request, left, stages);
  notes.Filtered(left.numbers.size());
  // Now `left` holds what every filter keeps, ascending.
  if (left.numbers.empty()) return result;

  // Score and combine.
  const std::span<double> totals = arena.NewSpan<double>(left.numbers.size());
  RunScorers(profile, request, left.numbers, totals, trace, stages);
  notes.Scored(!profile.scorers.empty());
  // Now totals[i] is the weighted sum of left.numbers[i]; each part was within [0, 1].

  // Order for ties.
  const plugin::Picker& picker = *profile.picker;
  const size_t wanted =
      std::min(totals.size(), std::max({size_t{1}, endpoints_wanted, picker.endpoint_count()}));
  const double least = picker.takes_highest() ? LeastChosen(totals, wanted) : -kInfinity;
  const auto scored = Uninitialised<ScoredCandidate>(arena, totals.size());
  const std::span<ScoredCandidate> contenders = Divide(left.numbers, totals, least, scored);
  Shuffle(contenders, request.random);
  if (request.fleet) {
    OrderByInFlight(contenders, request.fleet->counter(fleet::kRequestsInFlight), arena);
  }
  if (scored.size() > kInsertionMax) stages.Skip();  // fewer take less than a reading does
  notes.Ordered();
  // Now those who can be chosen come first, equal scores in the order in which they should win.

  // Pick.
  stages(ExtensionPoint::kPicker, profile.picker_plugin,
         [&] { picker.Pick(request, contenders, wanted); });
  notes.Picked(scored);
  if (kValidate && !ValidPick(left.numbers, scored, wanted)) {
    LLMD_BUG("a picker chose twice or invented an endpoint");
    return result;
  }
  // Now the first `wanted` are the choice and its fallbacks, best first.
  result.endpoints = scored.first(wanted);
  result.scored = scored;
  return result;
}

base::Result<plugin::SchedulingResult> Schedule(const plugin::ProfileHandler& handler,
                                                std::span<const Profile> profiles,
                                                RequestContext& request,
                                                std::span<const EndpointNumber> candidates,
                                                size_t endpoints_wanted, Trace* trace) {
  Stages stages(trace);
  const uint32_t handler_plugin = trace ? trace->handler_plugin : 0;
  const std::span<ProfileResult> results = request.arena->NewSpan<ProfileResult>(profiles.size());
  for (size_t i = 0; i < profiles.size(); ++i) results[i].profile = profiles[i].name;
  if (trace && trace->keep_runs) {
    trace->runs = request.arena->NewSpan<ProfileTrace>(profiles.size()).first(0);
  }

  while (true) {
    const std::optional<size_t> next = stages(ExtensionPoint::kProfilePicker, handler_plugin,
                                              [&] { return handler.Next(request, results); });
    if (!next) break;
    if (*next >= profiles.size() || results[*next].ran) {
      LLMD_BUG("a profile handler asked for a profile that is not there or has run");
      break;
    }
    results[*next] = RunProfile(profiles[*next], request, candidates, endpoints_wanted, trace);
  }
  // Now every profile that the handler wants has run.

  LLMD_ASSIGN_OR_RETURN(const size_t primary,
                        stages(ExtensionPoint::kProcessProfilesResults, handler_plugin,
                               [&] { return handler.Primary(request, results); }));
  if (primary >= profiles.size()) {
    LLMD_BUG("a profile handler named a primary profile that is not there");
    return std::unexpected(base::Internal("the profile handler named no profile"));
  }
  const plugin::SchedulingResult result{.profiles = results, .primary = primary};
  if (!result.endpoints().empty()) return result;
  const ProfileResult& empty = results[primary];
  const std::string_view name = profiles.size() > 1 ? empty.profile : std::string_view();
  if (empty.empty_means == plugin::EmptyMeans::kSaturated) {
    return std::unexpected(base::ResourceExhausted(NothingLeft(name)));
  }
  return std::unexpected(base::Unavailable(NothingLeft(name)));
}

}  // namespace llmd::scheduling
