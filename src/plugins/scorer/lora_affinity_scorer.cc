#include "plugins/scorer/lora_affinity_scorer.h"

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

double ScoreOf(const fleet::Adapters* adapters, uint64_t adapter) {
  using fleet::Adapters;
  if (!adapters) return 0;
  const bool at_hand = adapters->loaded ? Adapters::Has(*adapters->loaded, adapter)
                                        : Adapters::Has(adapters->active, adapter);
  if (at_hand) return 1;
  // What waits will be loaded, too.
  const size_t taken = (adapters->loaded ? adapters->loaded->size() : adapters->active.size()) +
                       adapters->waiting.size();
  if (taken < adapters->max) return 0.8;
  return Adapters::Has(adapters->waiting, adapter) ? 0.6 : 0;
}

class LoraAffinityScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  LoraAffinityScorer(const NoParameters&, plugin::PluginContext&) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const uint64_t adapter = fleet::Adapters::HashOf(request.target_model);
    for (size_t i = 0; i < candidates.size(); ++i) {
      scores[i] = ScoreOf(request.fleet->adapters(candidates[i]), adapter);
    }
  }
};

}  // namespace

plugin::PluginType LoraAffinityScorerType() {
  return MakeType<LoraAffinityScorer>(
      "lora-affinity-scorer", "Prefers endpoints that have the request's LoRA adapter at hand.",
      NoParametersType);
}

}  // namespace llmd::plugins
