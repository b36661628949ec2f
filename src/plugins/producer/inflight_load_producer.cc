#include "plugins/producer/inflight_load_producer.h"

#include <algorithm>
#include <cmath>

#include "plugin/keys.h"
#include "plugins/factory.h"
#include "plugins/producer/inflight_tallies.h"
#include "telemetry/metrics.h"

namespace llmd::plugins {
namespace {

struct Parameters {
  bool add_estimated_output_tokens = false;
  double output_ratio = 1.5;
  std::optional<int64_t> max_estimated_output_tokens;
  std::string prefix_producer;
  bool sync_cross_replica_state = true;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("InFlightLoadProducerParameters")
          .Field("addEstimatedOutputTokens", "Count the tokens of the answer, too.",
                 &Parameters::add_estimated_output_tokens)
          .Field("outputRatio", "Tokens of the answer per token of the prompt.",
                 &Parameters::output_ratio, config::Double(0, 1e6))
          .Field("maxEstimatedOutputTokens", "At most so many for the answer.",
                 &Parameters::max_estimated_output_tokens,
                 config::Optional(config::Int<int64_t>(0)))
          .Field("prefixMatchInfoProducerName",
                 "Producer whose prefix matches need not be computed again.",
                 &Parameters::prefix_producer)
          .Field("syncCrossReplicaState", "Without effect: counts are per process.",
                 &Parameters::sync_cross_replica_state)
          .Build();
  return *type;
}

// More than any prompt; keeps sums of many far from overflow.
constexpr int64_t kTokensMax = int64_t{1} << 40;

class InFlightLoadProducer final : public plugin::Plugin,
                                   public plugin::DataProducer,
                                   public plugin::PreRequest {
 public:
  InFlightLoadProducer(const Parameters& parameters, plugin::PluginContext& context)
      : parameters_(parameters),
        fleet_(context.fleet()),
        tallies_(context.fleet().worker_count()),
        load_(context.Produces<plugin::InFlightLoad>()),
        tokens_(context.Consumes<plugin::TokenizedPrompt>("")),
        match_(context.Consumes<plugin::PrefixCacheMatchInfo>(parameters.prefix_producer, false)) {
    for (fleet::CounterId* counter : {&request_counter_, &token_counter_}) {
      auto added = context.AddCounter();
      if (added) {
        *counter = *added;
      } else {
        context.errors().Add(context.parameters(), added.error().message());
      }
    }
  }

  // Of members only: a number whose endpoint has left names nobody.
  void CollectMetrics(telemetry::ScrapeSeries& series) const override {
    using telemetry::MetricId;
    const std::shared_ptr<const fleet::Members> members = fleet_.members();
    tallies_.ForEach([&](const InflightTallies::Labels& of, int64_t requests, int64_t tokens) {
      if (!std::ranges::binary_search(members->numbers, of.endpoint)) return;
      const fleet::EndpointSpec& spec = members->by_number[of.endpoint]->spec;
      const std::string_view values[] = {spec.name, spec.name_space, name(), of.fairness_id,
                                         of.priority};
      const telemetry::LabelValues labels{std::span<const std::string_view>(values)};
      series.Set(MetricId::kInflightRequests, labels, static_cast<double>(requests));
      series.Set(MetricId::kInflightTokens, labels, static_cast<double>(tokens));
    });
  }

  base::Status Produce(plugin::RequestContext& request,
                       std::span<const plugin::EndpointNumber> candidates) override {
    const fleet::View& view = *request.fleet;
    const int64_t* requests = view.counter(request_counter_);
    const int64_t* tokens = view.counter(token_counter_);
    if (!requests || !tokens || candidates.empty()) return base::OkStatus();
    const size_t size = candidates.back() + 1;  // ascending
    auto* load = request.arena->New<plugin::InFlightLoad>();
    load->requests = {requests, size};
    load->tokens = {tokens, size};
    Estimate(request, load);
    request.attributes.Set(load_, load);
    return base::OkStatus();
  }

  base::Status OnRouted(plugin::RequestContext& request, const plugin::SchedulingResult& result,
                        plugin::BookingList* bookings) override {
    plugin::InFlightLoad load;
    Estimate(request, &load);
    bool booked = true;
    for (const plugin::ProfileResult& profile : result.profiles) {
      if (!profile.ran || profile.endpoints.empty()) continue;
      const plugin::EndpointNumber n = profile.endpoints[0].endpoint;
      const bool prefill = profile.profile == "prefill";
      InflightTallies::Tally& tally =
          tallies_.Find(request.worker, n, request.fairness_id, request.priority);
      booked &= bookings->Add({.counter = request_counter_,
                               .endpoint = n,
                               .amount = 1,
                               .until_first_token = prefill,
                               .tally = &tally.requests});
      booked &=
          bookings->Add({.counter = token_counter_,
                         .endpoint = n,
                         .amount = load.NewTokens(n),
                         .until_first_token = prefill || !parameters_.add_estimated_output_tokens,
                         .tally = &tally.tokens});
    }
    if (booked) return base::OkStatus();
    return base::ResourceExhausted("more profiles than can be counted in flight");
  }

 private:
  int64_t PromptTokens(const plugin::RequestContext& request) const {
    const plugin::TokenizedPrompt* prompt = request.attributes.Get(tokens_);
    return prompt ? static_cast<int64_t>(std::min<uint64_t>(prompt->token_count, kTokensMax)) : 0;
  }

  void Estimate(const plugin::RequestContext& request, plugin::InFlightLoad* load) const {
    load->prompt_tokens = PromptTokens(request);
    load->output_tokens = OutputTokens(request);
    load->match = request.attributes.Get(match_);
  }

  int64_t OutputTokens(const plugin::RequestContext& request) const {
    const int64_t prompt = PromptTokens(request);
    if (!parameters_.add_estimated_output_tokens || prompt == 0) return 0;
    const double estimate = std::round(static_cast<double>(prompt) * parameters_.output_ratio);
    int64_t output = static_cast<int64_t>(std::min<double>(estimate, kTokensMax));
    const auto limit = request.body ? request.body->max_output_tokens : std::nullopt;
    if (limit && *limit >= 0) output = std::min(output, *limit);
    if (parameters_.max_estimated_output_tokens) {
      output = std::min(output, *parameters_.max_estimated_output_tokens);
    }
    return output;
  }

  const Parameters parameters_;
  fleet::Fleet& fleet_;
  InflightTallies tallies_;
  const plugin::Slot<plugin::InFlightLoad> load_;
  const plugin::Slot<plugin::TokenizedPrompt> tokens_;
  const plugin::Slot<plugin::PrefixCacheMatchInfo> match_;
  fleet::CounterId request_counter_ = 0;
  fleet::CounterId token_counter_ = 0;
};

}  // namespace

plugin::PluginType InFlightLoadProducerType() {
  plugin::PluginType type = MakeType<InFlightLoadProducer>(
      "inflight-load-producer", "Counts requests and tokens in flight to each endpoint.",
      ParametersType);
  type.default_producer_of = plugin::InFlightLoad::kKey;
  return type;
}

}  // namespace llmd::plugins
