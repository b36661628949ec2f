#include "plugins/factory.h"
#include "plugins/producer/precise_prefix_cache_producer.h"
#include "plugins/scorer/prefix_cache_scorer.h"

namespace llmd::plugins {
namespace {

// Producer and scorer in one.
class Composite final : public PrecisePrefixCacheProducer, public plugin::Scorer {
 public:
  Composite(const PreciseParameters& parameters, plugin::PluginContext& context)
      : PrecisePrefixCacheProducer(parameters, context, /*tokenizers_pool_allowed=*/true) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    PrefixMatchScore()(request.attributes.Get(match_slot()), candidates, scores);
  }
};

// Reads the producer that is there.
class Reader final : public plugin::Plugin, public plugin::Scorer {
 public:
  Reader(std::string_view producer, plugin::PluginContext& context)
      : match_(context.Consumes<plugin::PrefixCacheMatchInfo>(producer)) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }
  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    PrefixMatchScore()(request.attributes.Get(match_), candidates, scores);
  }

 private:
  const plugin::Slot<plugin::PrefixCacheMatchInfo> match_;
};

}  // namespace

plugin::PluginType PrecisePrefixCacheScorerType() {
  plugin::PluginType type = MakeType<Composite>(
      "precise-prefix-cache-scorer",
      "Use precise-prefix-cache-producer and prefix-cache-scorer with "
      "prefixMatchInfoProducerName.",
      PreciseParametersType);
  type.stability = plugin::Stability::kDeprecated;
  type.factory = [composite = std::move(type.factory)](plugin::PluginContext& context)
      -> std::unique_ptr<plugin::Plugin> {
    const std::string producer = context.InstanceOf("precise-prefix-cache-producer");
    if (producer.empty()) return composite(context);
    return std::make_unique<Reader>(producer, context);
  };
  return type;
}

}  // namespace llmd::plugins
