#include "plugins/producer/mm_embeddings_cache_producer.h"

#include <algorithm>
#include <atomic>

#include "base/hash.h"
#include "base/strings.h"
#include "plugin/keys.h"
#include "plugins/factory.h"
#include "plugins/producer/gone_endpoints.h"
#include "plugins/producer/prompt.h"
#include "prefix/prefix_index.h"
#include "telemetry/metrics.h"

namespace llmd::plugins {
namespace {

using plugin::EndpointNumber;
using prefix::BlockHash;

constexpr size_t kItemsMax = 1024;  // protocol's limit of features
constexpr uint64_t kMbPerItem = 2;
constexpr uint64_t kCacheMbDefault = 4096;
constexpr size_t kDumpEndpointsMax = 100;

struct Parameters {
  int64_t cache_mb = 0;
  int64_t cache_mb_alias = 0;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("MmEmbeddingsCacheProducerParameters")
          .Field("cacheSizeInMBPerServer", "Encoder cache of an endpoint, 2 MiB per item.",
                 &Parameters::cache_mb)
          .Field("cacheSizeInMB", "The same.", &Parameters::cache_mb_alias)
          .Build();
  return *type;
}

uint64_t CapacityOf(const Parameters& p) {
  const int64_t mb = p.cache_mb > 0 ? p.cache_mb : p.cache_mb_alias;
  return std::max<uint64_t>(1, (mb > 0 ? static_cast<uint64_t>(mb) : kCacheMbDefault) / kMbPerItem);
}

class MmEmbeddingsCacheProducer final : public plugin::Plugin,
                                        public plugin::DataProducer,
                                        public plugin::PreRequest {
 public:
  MmEmbeddingsCacheProducer(const Parameters& parameters, plugin::PluginContext& context)
      : capacity_(CapacityOf(parameters)),
        match_(context.Produces<plugin::EncoderCacheMatchInfo>()),
        own_(context.Produces<Items>()),
        tokens_(context.Consumes<plugin::TokenizedPrompt>("")),
        fleet_(context.fleet()) {}

  base::Status Produce(plugin::RequestContext& request,
                       std::span<const EndpointNumber> candidates) override {
    if (!request.body || candidates.empty()) return base::OkStatus();
    const std::span<const BlockHash> items = ItemsOf(request);
    if (items.empty()) return base::OkStatus();
    gone_.Visit(fleet_, [&](EndpointNumber n) { index_.Forget(n); });
    base::Arena& arena = *request.arena;
    const auto matched = arena.NewSpan<uint32_t>(candidates.back() + 1);  // ascending
    // An item is a chain of one: it matches whoever has it, wherever it stood.
    for (const BlockHash& item : items) index_.Match({&item, 1}, matched);
    uint32_t best = 0;
    for (const EndpointNumber n : candidates) best = std::max(best, matched[n]);
    queries_.fetch_add(items.size(), std::memory_order_relaxed);
    hits_.fetch_add(best, std::memory_order_relaxed);

    auto* match = arena.New<plugin::EncoderCacheMatchInfo>();
    match->matched_items = matched;
    match->total_items = static_cast<uint32_t>(items.size());
    request.attributes.Set(match_, static_cast<const plugin::EncoderCacheMatchInfo*>(match));
    auto* own = arena.New<Items>();
    own->hashes = items;
    request.attributes.Set(own_, static_cast<const Items*>(own));
    return base::OkStatus();
  }

  base::Status OnRouted(plugin::RequestContext& request, const plugin::SchedulingResult& result,
                        plugin::BookingList*) override {
    const Items* items = request.attributes.Get(own_);
    if (!items) return base::OkStatus();
    for (size_t i = 0; i < result.profiles.size(); ++i) {
      const plugin::ProfileResult& profile = result.profiles[i];
      const bool counts = i == result.primary || profile.profile == "prefill" ||
                          profile.profile == "encode";
      if (!counts || profile.endpoints.empty()) continue;
      for (const BlockHash& item : items->hashes) {
        index_.Record(profile.endpoints[0].endpoint, capacity_, {&item, 1});
      }
    }
    return base::OkStatus();
  }

  std::string DumpState() const override {
    std::string out = "{\"pods\":[";
    size_t shown = 0;
    const std::shared_ptr<const fleet::Members> members = fleet_.members();
    for (const EndpointNumber n : members->numbers) {
      if (shown == kDumpEndpointsMax) break;
      const fleet::EndpointSpec& spec = members->by_number[n]->spec;
      out += shown++ ? ",{\"pod\":" : "{\"pod\":";
      base::AppendJsonString(&out, base::Concat(spec.name_space, "/", spec.name));
      out += base::Concat(",\"items\":", std::to_string(index_.blocks(n)), "}");
    }
    return out + base::Concat("],\"totalPods\":", std::to_string(members->numbers.size()),
                              ",\"maxPods\":", std::to_string(kDumpEndpointsMax), "}");
  }
  void CollectMetrics(telemetry::ScrapeSeries& series) const override {
    series.Set(telemetry::MetricId::kEncoderCacheQueriesTotal, {type(), name()},
               static_cast<double>(queries_.load(std::memory_order_relaxed)));
    series.Set(telemetry::MetricId::kEncoderCacheHitsTotal, {type(), name()},
               static_cast<double>(hits_.load(std::memory_order_relaxed)));
  }

 private:
  struct Items {
    static constexpr std::string_view kKey = "EncoderItems";
    std::span<const BlockHash> hashes;
  };

  // Of the different items, in any order.
  std::span<const BlockHash> ItemsOf(const plugin::RequestContext& request) const {
    base::Arena& arena = *request.arena;
    const protocol::Request& body = *request.body;
    const plugin::TokenizedPrompt* tokens = request.attributes.Get(tokens_);
    size_t features = 0;
    if (tokens) {
      for (const auto& prompt : tokens->prompts) features += prompt.media.size();
    }
    if (features == 0 && body.media_count == 0) return {};
    const auto hashes =
        arena.NewSpan<BlockHash>(std::min<size_t>(kItemsMax, features + body.media_count));
    size_t count = 0;
    const auto add = [&](uint64_t hash) {
      if (count < hashes.size()) hashes[count++] = hash;
    };
    if (features > 0) {
      for (const auto& prompt : tokens->prompts) {
        for (const auto& media : prompt.media) {
          if (!media.hash.empty()) add(base::Hash64(media.hash));
        }
      }
    } else {
      ForEachValue(body, [&](const PromptValue& value) {
        if (!protocol::IsMedia(value.kind)) return;
        if (value.pieces.size() == 1) return add(base::Hash64(value.pieces[0].bytes));
        const auto whole = arena.NewSpan<char>(value.bytes());  // however the body was cut
        size_t at = 0;
        for (const auto& piece : value.pieces) {
          at += piece.bytes.copy(whole.data() + at, piece.bytes.size());
        }
        add(base::Hash64({whole.data(), at}));
      });
    }
    std::ranges::sort(hashes.first(count));
    const auto repeated = std::ranges::unique(hashes.first(count));
    return hashes.first(count - repeated.size());
  }

  const uint64_t capacity_;
  const plugin::Slot<plugin::EncoderCacheMatchInfo> match_;
  const plugin::Slot<Items> own_;
  const plugin::Slot<plugin::TokenizedPrompt> tokens_;
  fleet::Fleet& fleet_;
  prefix::PrefixIndex index_;
  GoneEndpoints gone_;
  std::atomic<uint64_t> queries_{0}, hits_{0};
};

}  // namespace

plugin::PluginType MmEmbeddingsCacheProducerType() {
  plugin::PluginType type = MakeType<MmEmbeddingsCacheProducer>(
      "mm-embeddings-cache-producer",
      "Knows by what was sent where which images and the like each endpoint has encoded.",
      ParametersType);
  type.default_producer_of = plugin::EncoderCacheMatchInfo::kKey;
  return type;
}

}  // namespace llmd::plugins
