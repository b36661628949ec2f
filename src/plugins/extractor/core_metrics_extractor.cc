#include "plugins/extractor/core_metrics_extractor.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/strings.h"
#include "plugins/factory.h"
#include "wire/prometheus.h"

namespace llmd::plugins {
namespace {

constexpr std::string_view kEngineLabel = "llm-d.ai/engine-type";
constexpr std::string_view kOldEngineLabel = "inference.networking.k8s.io/engine-type";

struct CustomMetric {
  std::string attribute_key, metric_spec;
  config::Node node;
};

struct EngineConfig {
  std::string name;
  std::string queued, running, kv_usage, lora, cache_info;
  std::string lora_loaded;  // not upstream's: adapters in memory, one series each
  std::string block_size_label = "block_size";
  std::string block_count_label = "num_gpu_blocks";
  std::string block_size, block_count;
  std::vector<CustomMetric> custom_metrics;
  config::Node node;
};

struct Parameters {
  std::string engine_label_key{kEngineLabel};
  std::string default_engine = "vllm";
  std::vector<EngineConfig> engine_configs;
};

const config::ObjectType<Parameters>& ParametersType() {
  using C = EngineConfig;
  static const auto custom =
      config::Object<CustomMetric>("CustomMetric")
          .Required("attributeKey", "Name under which endpoint-attribute plugins find it.",
                    &CustomMetric::attribute_key, config::String(1))
          .Required("metricSpec", "The series, name{label=value,...}.", &CustomMetric::metric_spec,
                    config::String(1))
          .Where(&CustomMetric::node)
          .Build();
  static const auto engine =
      config::Object<C>("EngineConfig")
          .Required("name", "Value of the engine label.", &C::name, config::String(1))
          .Field("queuedRequestsSpec", "Requests waiting.", &C::queued)
          .Field("runningRequestsSpec", "Requests in the batch.", &C::running)
          .Field("kvUsageSpec", "KV cache use, 0 to 1.", &C::kv_usage)
          .Field("loraSpec", "Series whose labels name the LoRA adapters in use.", &C::lora)
          .Field("cacheInfoSpec", "Series whose labels describe the KV cache.", &C::cache_info)
          .Field("cacheBlockSizeLabelName", "Its label with the tokens per block.",
                 &C::block_size_label)
          .Field("cacheNumBlocksLabelName", "Its label with the number of blocks.",
                 &C::block_count_label)
          .Field("cacheBlockSizeSpec", "Tokens per block as a value.", &C::block_size)
          .Field("cacheNumBlocksSpec", "Number of blocks as a value.", &C::block_count)
          .Field("customMetrics", "Further numbers to keep of each endpoint.", &C::custom_metrics,
                 config::List<CustomMetric>(custom, fleet::kAttributesMax))
          .Where(&C::node)
          .Build();
  static const auto type = config::Object<Parameters>("CoreMetricsExtractorParameters")
                               .Field("engineLabelKey", "Endpoint label that names the engine.",
                                      &Parameters::engine_label_key, config::String(1))
                               .Field("defaultEngine", "Engine of endpoints without the label.",
                                      &Parameters::default_engine, config::String(1))
                               .Field("engineConfigs", "Engines to add, or to read differently.",
                                      &Parameters::engine_configs, config::List<C>(engine, 100))
                               .Build();
  return *type;
}

// Names and labels: docs/plugin-metric-protocol.md of the router and the engines' own pages.
std::vector<EngineConfig> BuiltInEngines() {
  std::vector<EngineConfig> engines(5);
  engines[0].name = "vllm";
  engines[0].queued = "vllm:num_requests_waiting";
  engines[0].running = "vllm:num_requests_running";
  engines[0].kv_usage = "vllm:kv_cache_usage_perc";
  engines[0].lora = "vllm:lora_requests_info";
  engines[0].lora_loaded = "vllm:lora_adapter_loaded";
  engines[0].cache_info = "vllm:cache_config_info";
  engines[1].name = "sglang";
  engines[1].queued = "sglang:num_queue_reqs";
  engines[1].running = "sglang:num_running_reqs";
  engines[1].kv_usage = "sglang:token_usage";
  engines[1].cache_info = "sglang:cache_config_info";
  engines[1].block_size_label = "page_size";
  engines[1].block_count_label = "num_pages";
  engines[2].name = "trtllm-serve";
  engines[2].queued = "trtllm_num_requests_waiting";
  engines[2].running = "trtllm_num_requests_running";
  engines[2].kv_usage = "trtllm_kv_cache_utilization";
  engines[2].block_size = "trtllm_kv_cache_tokens_per_block";
  engines[2].block_count = "trtllm_kv_cache_max_blocks";
  engines[3].name = "triton-tensorrt-llm";
  engines[3].queued = "nv_trt_llm_request_metrics{request_type=waiting}";
  engines[3].running = "nv_trt_llm_request_metrics{request_type=scheduled}";
  engines[3].kv_usage = "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}";
  engines[3].block_size = "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}";
  engines[3].block_count = "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}";
  engines[4].name = "triton";
  engines[4].queued = "nv_inference_pending_request_count";
  engines[4].running = "nv_inference_exec_count";
  return engines;
}

enum class Quantity : uint8_t {
  kWaiting, kRunning, kKvUsage, kBlockSize, kBlockCount,
  kCacheInfo, kLora, kLoraLoaded, kCustom,  // read otherwise than as a sum
};
constexpr size_t kQuantities = 5;  // that are sums

// What one page said of one quantity.
struct Sum {
  double total = 0;
  double last = 0;
  int count = 0;
  void Add(double value) {
    if (!std::isfinite(value)) return;
    total += value;
    last = value;
    ++count;
  }
};

// Hashes of a comma-separated list of names, ascending.
void ReadNames(std::string_view list, std::vector<uint64_t>* hashes) {
  hashes->clear();
  for (const std::string_view name : base::Split(list, ',')) {
    const std::string_view trimmed = base::Trim(name);
    if (!trimmed.empty()) hashes->push_back(fleet::Adapters::HashOf(trimmed));
  }
  std::sort(hashes->begin(), hashes->end());
}

// An engine's specs, ready to scan for.
class Engine {
 public:
  Engine(const EngineConfig& config, plugin::PluginContext& context)
      : name_(config.name),
        block_size_label_(config.block_size_label),
        block_count_label_(config.block_count_label) {
    std::vector<wire::MetricSpec> specs;
    const auto add = [&](Quantity quantity, const config::Node& at, const std::string& text) {
      if (text.empty()) return;
      auto spec = wire::ParseMetricSpec(text);
      if (!spec) {
        context.errors().Add(at, spec.error().message());
        return;
      }
      specs.push_back(*std::move(spec));
      quantities_.push_back(quantity);
    };
    const auto at = [&](std::string_view key) { return config.node.FindOrSelf(key); };
    add(Quantity::kWaiting, at("queuedRequestsSpec"), config.queued);
    add(Quantity::kRunning, at("runningRequestsSpec"), config.running);
    add(Quantity::kKvUsage, at("kvUsageSpec"), config.kv_usage);
    add(Quantity::kCacheInfo, at("cacheInfoSpec"), config.cache_info);
    add(Quantity::kBlockSize, at("cacheBlockSizeSpec"), config.block_size);
    add(Quantity::kBlockCount, at("cacheNumBlocksSpec"), config.block_count);
    add(Quantity::kLora, at("loraSpec"), config.lora);
    add(Quantity::kLoraLoaded, at("loraSpec"), config.lora_loaded);
    first_custom_ = specs.size();
    for (const CustomMetric& metric : config.custom_metrics) {
      add(Quantity::kCustom, metric.node.FindOrSelf("metricSpec"), metric.metric_spec);
      const auto attribute = context.ProducesEndpointAttribute(metric.attribute_key);
      if (attribute) {
        custom_.push_back(*attribute);
      } else {
        context.errors().Add(metric.node, attribute.error().message());
      }
    }
    wanted_ = std::make_unique<wire::WantedMetrics>(std::move(specs));
  }

  const std::string& name() const { return name_; }

  std::vector<std::string> Families() const {
    std::vector<std::string> families;
    for (const wire::MetricSpec& spec : wanted_->specs()) {
      if (std::find(families.begin(), families.end(), spec.name) == families.end()) {
        families.push_back(spec.name);
      }
    }
    return families;
  }

  bool Extract(std::string_view page, plugin::EndpointReport* report) const {
    Sum sums[kQuantities];
    double newest_lora = -1;
    std::string scratch;
    bool loaded_said = false;
    wire::PageScanner scan(*wanted_, page);
    for (wire::ScrapedSample sample; scan.Next(&sample);) {
      switch (const Quantity quantity = quantities_[sample.spec]) {
        case Quantity::kCacheInfo:
          AddLabel(sample, block_size_label_, &scratch, &sums[size_t(Quantity::kBlockSize)]);
          AddLabel(sample, block_count_label_, &scratch, &sums[size_t(Quantity::kBlockCount)]);
          break;
        case Quantity::kLora:
          // The value is the time of the last change: the newest series counts.
          if (!(sample.value > newest_lora)) break;
          newest_lora = sample.value;
          ReadLora(sample, &scratch, &report->adapters);
          report->found_adapters = true;
          break;
        case Quantity::kLoraLoaded:
          AddLoaded(sample, !std::exchange(loaded_said, true), &scratch, &report->adapters);
          report->found_adapters = true;
          break;
        case Quantity::kCustom:
          if (std::isfinite(sample.value)) {
            report->Set(custom_[sample.spec - first_custom_], sample.value);
          }
          break;
        default:
          sums[static_cast<size_t>(quantity)].Add(sample.value);
      }
    }
    report->found_load = Store(sums, &report->load);
    return report->found_load || report->found_adapters || report->value_count > 0;
  }

 private:
  static void AddLabel(const wire::ScrapedSample& sample, std::string_view label,
                       std::string* scratch, Sum* sum) {
    const auto text = sample.Label(label, scratch);
    if (!text) return;
    if (const auto value = base::ParseInt(*text)) sum->Add(static_cast<double>(*value));
  }

  static void ReadLora(const wire::ScrapedSample& sample, std::string* scratch,
                       fleet::Adapters* adapters) {
    ReadNames(sample.Label("running_lora_adapters", scratch).value_or(""), &adapters->active);
    ReadNames(sample.Label("waiting_lora_adapters", scratch).value_or(""), &adapters->waiting);
    const auto max = base::ParseInt(sample.Label("max_lora", scratch).value_or(""));
    adapters->max = max ? ToCount(static_cast<double>(*max)) : 0;
  }
  // vllm:lora_adapter_loaded{adapter_name="..."}: 1 while the adapter is in memory.
  static void AddLoaded(const wire::ScrapedSample& sample, bool first, std::string* scratch,
                        fleet::Adapters* adapters) {
    if (!adapters->loaded) adapters->loaded.emplace();
    if (first) adapters->loaded->clear();
    const auto name = sample.Label("adapter_name", scratch);
    if (!name || !(sample.value > 0)) return;
    const uint64_t hash = fleet::Adapters::HashOf(*name);
    auto& loaded = *adapters->loaded;
    loaded.insert(std::lower_bound(loaded.begin(), loaded.end(), hash), hash);
  }

  static bool Store(const Sum (&sums)[kQuantities], fleet::Load* load) {
    const Sum& waiting = sums[static_cast<size_t>(Quantity::kWaiting)];
    const Sum& running = sums[static_cast<size_t>(Quantity::kRunning)];
    const Sum& kv_usage = sums[static_cast<size_t>(Quantity::kKvUsage)];
    const Sum& block_size = sums[static_cast<size_t>(Quantity::kBlockSize)];
    const Sum& block_count = sums[static_cast<size_t>(Quantity::kBlockCount)];
    if (waiting.count) load->waiting = static_cast<float>(std::max(0.0, waiting.total));
    if (running.count) load->running = static_cast<float>(std::max(0.0, running.total));
    if (kv_usage.count) {
      load->kv_usage = static_cast<float>(std::clamp(kv_usage.total / kv_usage.count, 0.0, 1.0));
    }
    if (block_size.count) load->block_tokens = ToCount(block_size.last);
    if (block_count.count) load->block_count = ToCount(block_count.total);
    return waiting.count + running.count + kv_usage.count + block_size.count + block_count.count >
           0;
  }
  static uint32_t ToCount(double value) {
    return static_cast<uint32_t>(std::clamp(value, 0.0, 4294967295.0));
  }

  std::string name_;
  std::string block_size_label_, block_count_label_;
  std::vector<Quantity> quantities_;  // by spec number
  size_t first_custom_ = 0;           // spec number of custom_[0]
  std::vector<plugin::EndpointAttribute> custom_;
  std::unique_ptr<wire::WantedMetrics> wanted_;
};

class CoreMetricsExtractor final : public plugin::Plugin, public plugin::Extractor {
 public:
  CoreMetricsExtractor(const Parameters& parameters, plugin::PluginContext& context)
      : engine_label_(parameters.engine_label_key) {
    for (const EngineConfig& config : parameters.engine_configs) {
      if (config.name == "default") {
        context.errors().Add(config.node.FindOrSelf("name"), "the name default is reserved");
      } else if (FindEngine(config.name)) {
        context.errors().Add(config.node.FindOrSelf("name"),
                             base::Concat("the engine ", config.name, " is listed twice"));
      }
      engines_.emplace_back(config, context);
    }
    for (const EngineConfig& config : BuiltInEngines()) {
      if (!FindEngine(config.name)) engines_.emplace_back(config, context);
    }
    std::vector<std::string_view> names;
    for (size_t i = 0; i < engines_.size(); ++i) {
      names.push_back(engines_[i].name());
      if (engines_[i].name() == parameters.default_engine) default_engine_ = i;
    }
    if (engines_[default_engine_].name() != parameters.default_engine) {
      context.errors().Add(context.parameters().FindOrSelf("defaultEngine"),
                           base::Concat("no engine \"", parameters.default_engine, "\"",
                                        config::DidYouMean(parameters.default_engine, names)));
    }
  }

  std::vector<std::string> WantedFamilies(const fleet::EndpointSpec& endpoint) const override {
    return EngineOf(endpoint).Families();
  }
  bool Extract(const fleet::EndpointSpec& endpoint, std::string_view page,
               plugin::EndpointReport* report) const override {
    return EngineOf(endpoint).Extract(page, report);
  }

 private:
  const Engine* FindEngine(std::string_view name) const {
    for (const Engine& engine : engines_) {
      if (engine.name() == name) return &engine;
    }
    return nullptr;
  }
  const Engine& EngineOf(const fleet::EndpointSpec& endpoint) const {
    const std::string* label = endpoint.Label(engine_label_);
    if (!label || label->empty()) label = endpoint.Label(kOldEngineLabel);
    const Engine* engine = label && !label->empty() ? FindEngine(*label) : nullptr;
    return engine ? *engine : engines_[default_engine_];
  }

  const std::string engine_label_;
  std::vector<Engine> engines_;
  size_t default_engine_ = 0;
};

}  // namespace

plugin::PluginType CoreMetricsExtractorType() {
  return MakeType<CoreMetricsExtractor>(
      "core-metrics-extractor", "Reads load and KV cache sizes from an engine's metrics page.",
      ParametersType);
}

}  // namespace llmd::plugins
