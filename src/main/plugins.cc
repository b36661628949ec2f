#include "main/plugins.h"

#include "plugins/data_source/dcgm_data_source.h"
#include "plugins/data_source/endpoint_notification_source.h"
#include "plugins/data_source/metrics_data_source.h"
#include "plugins/data_source/models_data_source.h"
#include "plugins/discovery/file_discovery.h"
#include "plugins/extractor/core_metrics_extractor.h"
#include "plugins/extractor/dcgm_extractor.h"
#include "plugins/extractor/models_data_extractor.h"
#include "plugins/filter/by_label_filter.h"
#include "plugins/filter/endpoint_attribute_filter.h"
#include "plugins/filter/header_based_testing_filter.h"
#include "plugins/filter/label_selector_filter.h"
#include "plugins/filter/prefix_cache_affinity_filter.h"
#include "plugins/filter/session_affinity_filter.h"
#include "plugins/filter/utilization_filter.h"
#include "plugins/parser/anthropic_parser.h"
#include "plugins/parser/openai_parser.h"
#include "plugins/parser/passthrough_parser.h"
#include "plugins/parser/sglanghttp_parser.h"
#include "plugins/parser/vertexai_parser.h"
#include "plugins/parser/vllmgrpc_parser.h"
#include "plugins/parser/vllmhttp_parser.h"
#include "plugins/picker/max_score_picker.h"
#include "plugins/picker/random_picker.h"
#include "plugins/picker/weighted_random_picker.h"
#include "plugins/producer/approx_prefix_cache_producer.h"
#include "plugins/producer/burst_prefix_cache_producer.h"
#include "plugins/producer/inflight_load_producer.h"
#include "plugins/producer/mm_embeddings_cache_producer.h"
#include "plugins/producer/p2p_source_producer.h"
#include "plugins/producer/precise_prefix_cache_producer.h"
#include "plugins/producer/session_id_producer.h"
#include "plugins/producer/token_producer.h"
#include "plugins/profile_handler/header_profile_handler.h"
#include "plugins/profile_handler/single_profile_handler.h"
#include "plugins/request_header/agent_identity.h"
#include "plugins/response/destination_endpoint_served_verifier.h"
#include "plugins/response/request_attribute_reporter.h"
#include "plugins/saturation/concurrency_detector.h"
#include "plugins/saturation/utilization_detector.h"
#include "plugins/scorer/active_request_scorer.h"
#include "plugins/scorer/context_length_aware.h"
#include "plugins/scorer/endpoint_attribute_scorer.h"
#include "plugins/scorer/header_label_affinity_scorer.h"
#include "plugins/scorer/kv_cache_utilization_scorer.h"
#include "plugins/scorer/load_aware_scorer.h"
#include "plugins/scorer/lora_affinity_scorer.h"
#include "plugins/scorer/mm_embeddings_cache_scorer.h"
#include "plugins/scorer/no_hit_lru_scorer.h"
#include "plugins/scorer/prefix_cache_scorer.h"
#include "plugins/scorer/queue_scorer.h"
#include "plugins/scorer/running_requests_size_scorer.h"
#include "plugins/scorer/session_affinity_scorer.h"
#include "plugins/scorer/token_load_scorer.h"

namespace llmd {
namespace {

// Types that upstream registers (llm-d-router, cmd/epp/runner/runner.go) and this release has not.
constexpr std::string_view kNotBuilt[] = {
    // profile handlers and deciders
    "disagg-profile-handler",
    "pd-profile-handler",
    "data-parallel-profile-handler",
    "disagg-headers-handler",
    "prefill-header-handler",
    "always-disagg-pd-decider",
    "prefix-based-pd-decider",
    "always-disagg-multimodal-decider",
    // filters and screeners
    "encode-filter",
    "prefill-filter",
    "decode-filter",
    "slo-headroom-tier-filter",
    "topology-affinity-filter",
    "disaggregatedset-rollout-screener",
    // scorers
    "latency-scorer",
    "topology-affinity-scorer",
    // data producers and other request hooks
    "predicted-latency-producer",
    // admission and flow control
    "latency-slo-admitter",
    "probabilistic-admitter",
    "global-strict-fairness-policy",
    "round-robin-fairness-policy",
    "program-aware-fairness",
    "fcfs-ordering-policy",
    "edf-ordering-policy",
    "slo-deadline-ordering-policy",
    "static-usage-limit-policy",
    "priority-holdback-policy",
    "soft-reflective-ceiling-policy",
    "sheddable-eviction-filter",
    "priority-then-time-eviction-order-policy",
    // data layer
    "topology-extractor",
    "k8s-notification-source",
    // several clusters
    "multicluster-file-discovery",
    "multicluster-metrics-data-source",
    "multicluster-metrics-extractor",
    "multicluster-queue-scorer",
    "multicluster-kv-cache-utilization-scorer",
    "multicluster-prefix-cache-scorer",
    "multicluster-approx-prefix-cache-producer",
    "multicluster-session-affinity-filter",
};

}  // namespace

plugin::Catalogue MakeCatalogue() {
  plugin::Catalogue catalogue;
  // Where endpoints come from and what is known of them.
  catalogue.Add(plugins::FileDiscoveryType());
  catalogue.Add(plugins::MetricsDataSourceType());
  catalogue.Add(plugins::CoreMetricsExtractorType());
  catalogue.Add(plugins::ModelsDataSourceType());
  catalogue.Add(plugins::ModelsDataExtractorType());
  catalogue.Add(plugins::DcgmDataSourceType());
  catalogue.Add(plugins::DcgmExtractorType());
  catalogue.Add(plugins::EndpointNotificationSourceType());
  // How requests are read.
  catalogue.Add(plugins::OpenAiParserType());
  catalogue.Add(plugins::AnthropicParserType());
  catalogue.Add(plugins::VllmHttpParserType());
  catalogue.Add(plugins::SglangHttpParserType());
  catalogue.Add(plugins::VllmGrpcParserType());
  catalogue.Add(plugins::VertexAiParserType());
  catalogue.Add(plugins::PassthroughParserType());
  // What is known of a request.
  catalogue.Add(plugins::AgentIdentityType());
  catalogue.Add(plugins::TokenProducerType());
  catalogue.Add(plugins::TokenizerType());
  catalogue.Add(plugins::ApproxPrefixCacheProducerType());
  catalogue.Add(plugins::PrecisePrefixCacheProducerType());
  catalogue.Add(plugins::MmEmbeddingsCacheProducerType());
  catalogue.Add(plugins::BurstPrefixCacheProducerType());
  catalogue.Add(plugins::P2pSourceProducerType());
  catalogue.Add(plugins::InFlightLoadProducerType());
  catalogue.Add(plugins::SessionIdProducerType());
  // Whether it may pass.
  catalogue.Add(plugins::UtilizationDetectorType());
  catalogue.Add(plugins::ConcurrencyDetectorType());
  // Where it goes: profile, filters, scorers, picker.
  catalogue.Add(plugins::SingleProfileHandlerType());
  catalogue.Add(plugins::HeaderProfileHandlerType());
  catalogue.Add(plugins::LabelSelectorFilterType());
  catalogue.Add(plugins::ByLabelSelectorType());
  catalogue.Add(plugins::ByLabelType());
  catalogue.Add(plugins::HeaderBasedTestingFilterType());
  catalogue.Add(plugins::PrefixCacheAffinityFilterType());
  catalogue.Add(plugins::SessionAffinityFilterType());
  catalogue.Add(plugins::EndpointAttributeFilterType());
  catalogue.Add(plugins::UtilizationFilterType());
  catalogue.Add(plugins::QueueScorerType());
  catalogue.Add(plugins::KvCacheUtilizationScorerType());
  catalogue.Add(plugins::PrefixCacheScorerType());
  catalogue.Add(plugins::PrecisePrefixCacheScorerType());
  catalogue.Add(plugins::NoHitLruScorerType());
  catalogue.Add(plugins::MmEmbeddingsCacheScorerType());
  catalogue.Add(plugins::RunningRequestsSizeScorerType());
  catalogue.Add(plugins::ActiveRequestScorerType());
  catalogue.Add(plugins::LoadAwareScorerType());
  catalogue.Add(plugins::TokenLoadScorerType());
  catalogue.Add(plugins::ContextLengthAwareType());
  catalogue.Add(plugins::SessionAffinityScorerType());
  catalogue.Add(plugins::HeaderLabelAffinityScorerType());
  catalogue.Add(plugins::LoraAffinityScorerType());
  catalogue.Add(plugins::EndpointAttributeScorerType());
  catalogue.Add(plugins::MaxScorePickerType());
  catalogue.Add(plugins::RandomPickerType());
  catalogue.Add(plugins::WeightedRandomPickerType());

  // What is done with the reply.
  catalogue.Add(plugins::RequestAttributeReporterType());
  catalogue.Add(plugins::DestinationEndpointServedVerifierType());

  for (std::string_view type : kNotBuilt) catalogue.AddNotBuilt(type);
  return catalogue;
}

}  // namespace llmd
