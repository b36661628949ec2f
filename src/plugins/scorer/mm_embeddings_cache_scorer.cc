#include "plugins/scorer/mm_embeddings_cache_scorer.h"

#include <algorithm>

#include "plugin/keys.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

struct Parameters {
  std::string producer;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("MmEmbeddingsCacheScorerParameters")
          .Field("producerName", "Producer whose matches are read.", &Parameters::producer)
          .Build();
  return *type;
}

class MmEmbeddingsCacheScorer final : public plugin::Plugin, public plugin::Scorer {
 public:
  MmEmbeddingsCacheScorer(const Parameters& parameters, plugin::PluginContext& context)
      : match_(context.Consumes<plugin::EncoderCacheMatchInfo>(parameters.producer)) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const plugin::EncoderCacheMatchInfo* match = request.attributes.Get(match_);
    for (size_t i = 0; i < candidates.size(); ++i) {
      const bool known = match && candidates[i] < match->matched_items.size();
      scores[i] = known ? static_cast<double>(match->matched_items[candidates[i]]) /
                              std::max(1u, match->total_items)
                        : 0.0;
    }
  }

 private:
  const plugin::Slot<plugin::EncoderCacheMatchInfo> match_;
};

}  // namespace

plugin::PluginType MmEmbeddingsCacheScorerType() {
  return MakeType<MmEmbeddingsCacheScorer>(
      "mm-embeddings-cache-scorer",
      "Prefers endpoints that have encoded the prompt's images and the like before.",
      ParametersType);
}

}  // namespace llmd::plugins
