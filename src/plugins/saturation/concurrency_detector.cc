#include "plugins/saturation/concurrency_detector.h"

#include <algorithm>
#include <cmath>

#include "plugin/keys.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

enum class Mode { kRequests, kTokens, kHybrid };

struct Parameters {
  Mode mode = Mode::kRequests;
  int64_t max_concurrency = 100;
  int64_t max_token_concurrency = 1'000'000;
  double headroom = 0;
  std::string producer;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("ConcurrencyDetectorParameters")
          .Field("concurrencyMode",
                 "What counts: requests, tokens, or the fuller of both (hybrid).",
                 &Parameters::mode,
                 config::Enum<Mode>({{"requests", Mode::kRequests},
                                     {"tokens", Mode::kTokens},
                                     {"hybrid", Mode::kHybrid}}))
          .Field("maxConcurrency", "Requests in flight at which an endpoint is full.",
                 &Parameters::max_concurrency, config::Int<int64_t>(1))
          .Field("maxTokenConcurrency", "Tokens in flight at which an endpoint is full.",
                 &Parameters::max_token_concurrency, config::Int<int64_t>(1))
          .Field("headroom", "Share beyond that up to which the filter keeps an endpoint.",
                 &Parameters::headroom, config::Double(0))
          .Field("inFlightLoadProducerName", "Without effect: the counts are its own.",
                 &Parameters::producer)
          .Build();
  return *type;
}

class ConcurrencyDetector final : public plugin::Plugin,
                                  public plugin::SaturationDetector,
                                  public plugin::Filter,
                                  public plugin::PreRequest {
 public:
  ConcurrencyDetector(const Parameters& parameters, plugin::PluginContext& context)
      : mode_(parameters.mode),
        requests_max_(static_cast<double>(parameters.max_concurrency)),
        tokens_max_(static_cast<double>(parameters.max_token_concurrency)),
        headroom_(parameters.headroom) {
    if (mode_ == Mode::kRequests) return;
    prompt_ = context.Consumes<plugin::TokenizedPrompt>("");
    const auto counter = context.AddCounter();
    if (counter) {
      tokens_ = *counter;
    } else {
      context.errors().Add(context.parameters(), counter.error().message());
    }
  }

  Saturation Measure(const fleet::View& view, std::span<const plugin::EndpointNumber> candidates,
                     base::TimePoint) const override {
    if (candidates.empty()) return {};
    double sum = 0;
    for (const plugin::EndpointNumber n : candidates) {
      const double requests = Count(view, fleet::kRequestsInFlight, n) / requests_max_;
      const double tokens = mode_ == Mode::kRequests ? 0 : Count(view, tokens_, n) / tokens_max_;
      sum += mode_ == Mode::kTokens ? tokens : std::max(requests, tokens);
    }
    return {.value = sum / static_cast<double>(candidates.size())};
  }

  void Apply(const plugin::RequestContext& request, plugin::Candidates& candidates) const override {
    const fleet::View& view = *request.fleet;
    // Whole requests and tokens, as upstream rounds them.
    const double requests_limit = std::floor(requests_max_ * (1 + headroom_));
    const double tokens_limit = std::floor(tokens_max_ * (1 + headroom_));
    candidates.KeepIf([&](plugin::EndpointNumber n) {
      return (mode_ == Mode::kTokens ||
              Count(view, fleet::kRequestsInFlight, n) < requests_limit) &&
             (mode_ == Mode::kRequests || Count(view, tokens_, n) < tokens_limit);
    });
  }
  plugin::EmptyMeans empty_means() const override { return plugin::EmptyMeans::kSaturated; }

  base::Status OnRouted(plugin::RequestContext& request, const plugin::SchedulingResult& result,
                        plugin::BookingList* bookings) override {
    if (mode_ == Mode::kRequests) return base::OkStatus();
    const plugin::TokenizedPrompt* prompt = request.attributes.Get(prompt_);
    if (!prompt || prompt->token_count == 0) return base::OkStatus();
    const bool booked = bookings->Add({.counter = tokens_,
                                       .endpoint = result.endpoints()[0].endpoint,
                                       .amount = static_cast<int64_t>(prompt->token_count),
                                       .until_first_token = true});
    return booked ? base::OkStatus() : base::ResourceExhausted("too many counters in flight");
  }

 private:
  static double Count(const fleet::View& view, fleet::CounterId counter,
                      plugin::EndpointNumber n) {
    const int64_t* column = view.counter(counter);
    return column ? static_cast<double>(column[n]) : 0;
  }

  const Mode mode_;
  const double requests_max_;
  const double tokens_max_;
  const double headroom_;
  plugin::Slot<plugin::TokenizedPrompt> prompt_;
  fleet::CounterId tokens_ = fleet::kRequestsInFlight;
};

}  // namespace

plugin::PluginType ConcurrencyDetectorType() {
  return MakeType<ConcurrencyDetector>(
      "concurrency-detector",
      "Measures how full the pool is by what is in flight; as a filter drops full endpoints.",
      ParametersType);
}

}  // namespace llmd::plugins
