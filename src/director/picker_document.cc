#include "director/picker_document.h"

#include <algorithm>
#include <set>

#include "base/strings.h"
#include "director/unknown_word.h"

namespace llmd::director {

using base::Concat;
using config::ErrorList;
using config::List;
using config::Node;
using config::Object;
using config::ObjectType;
using config::Optional;
using config::Quantity;

std::string_view DefaultPickerYaml() {
  return R"(apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: metrics-data-source
- type: core-metrics-extractor
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
    weight: 2
  - pluginRef: kv-cache-utilization-scorer
    weight: 2
  - pluginRef: prefix-cache-scorer
    weight: 3
dataLayer:
  sources:
  - pluginRef: metrics-data-source
    extractors:
    - pluginRef: core-metrics-extractor
)";
}

namespace {

template <class T>
using ObjectPtr = std::shared_ptr<const ObjectType<T>>;

ObjectPtr<PluginRef> RefType() {
  static const auto type = Object<PluginRef>("PluginRef")
                               .Where(&PluginRef::where)
                               .Required("pluginRef", "Name of an entry of plugins.",
                                         &PluginRef::plugin_ref, config::String(1))
                               .Build();
  return type;
}

// The saturation detector's reference may be left out: utilization-detector.
ObjectPtr<PluginRef> OptionalRefType() {
  static const auto type =
      Object<PluginRef>("OptionalPluginRef")
          .Where(&PluginRef::where)
          .Field("pluginRef", "Name of an entry of plugins; utilization-detector if absent.",
                 &PluginRef::plugin_ref)
          .Build();
  return type;
}

ObjectPtr<PluginEntry> EntryType() {
  static const auto type =
      Object<PluginEntry>("Plugin")
          .Where(&PluginEntry::where)
          .Field("name", "What other parts refer to it by; its type if absent.", &PluginEntry::name)
          .Required("type", "Which plugin it is.", &PluginEntry::type, config::String(1))
          .Field("parameters", "The plugin's own parameters.", &PluginEntry::parameters)
          .Build();
  return type;
}

ObjectPtr<ProfileEntry> ProfileType() {
  static const auto plugin =
      Object<ProfilePlugin>("SchedulingPlugin")
          .Where(&ProfilePlugin::where)
          .Required("pluginRef", "Name of an entry of plugins.", &ProfilePlugin::plugin_ref,
                    config::String(1))
          .Field("weight", "Weight of a scorer; 1 if absent.", &ProfilePlugin::weight,
                 Optional<double>(config::Double(-1e9, 1e9)))
          .Build();
  static const auto type =
      Object<ProfileEntry>("SchedulingProfile")
          .Where(&ProfileEntry::where)
          .Required("name", "Name of the profile.", &ProfileEntry::name, config::String(1))
          .Field("plugins", "Filters, scorers and at most one picker, in order.",
                 &ProfileEntry::plugins, List<ProfilePlugin>(plugin))
          .Build();
  return type;
}

ObjectPtr<DataLayerEntry> DataLayerType() {
  static const auto source =
      Object<SourceEntry>("DataSource")
          .Where(&SourceEntry::where)
          .Required("pluginRef", "Name of a data source plugin.", &SourceEntry::plugin_ref,
                    config::String(1))
          .Field("extractors", "What reads the source's replies.", &SourceEntry::extractors,
                 List<PluginRef>(RefType()))
          .Build();
  static const auto type =
      Object<DataLayerEntry>("DataLayer")
          .Where(&DataLayerEntry::where)
          .Field("injectDefaults",
                 "Add metrics-data-source and core-metrics-extractor; true if absent.",
                 &DataLayerEntry::inject_defaults)
          .Field("sources", "What is polled from every endpoint.", &DataLayerEntry::sources,
                 List<SourceEntry>(source))
          .Field("discovery", "Where endpoints come from; Kubernetes if absent.",
                 &DataLayerEntry::discovery, Optional<PluginRef>(RefType()))
          .Field("peerDiscovery", "Where other pickers come from.", &DataLayerEntry::peer_discovery,
                 Optional<PluginRef>(RefType()))
          .Field("crossReplicaSyncerPluginRef", "Plugin that shares state between pickers.",
                 &DataLayerEntry::cross_replica_syncer)
          .Field("crossReplicaSyncInterval", "Time between two publications of that state.",
                 &DataLayerEntry::cross_replica_sync_interval)
          .Build();
  return type;
}

ObjectPtr<BandEntry> BandType() {
  static const auto type =
      Object<BandEntry>("PriorityBand")
          .Where(&BandEntry::where)
          .Field("priority", "Priority of the band's requests.", &BandEntry::priority)
          .Field("maxBytes", "Body bytes that may wait in the band.", &BandEntry::max_bytes,
                 Optional<int64_t>(Quantity(0, true)))
          .Field("maxRequests", "Requests that may wait in the band.", &BandEntry::max_requests,
                 Optional<int64_t>(Quantity(0)))
          .Field("fairnessPolicyRef", "Who is next among the band's flows.",
                 &BandEntry::fairness_policy)
          .Field("orderingPolicyRef", "Who is next within a flow.", &BandEntry::ordering_policy)
          .Build();
  return type;
}

ObjectPtr<FlowControlEntry> FlowControlType() {
  using F = FlowControlEntry;
  static const auto type =
      Object<F>("FlowControl")
          .Where(&F::where)
          .Field("maxBytes", "Body bytes that may wait in all bands; 0 = no limit.", &F::max_bytes,
                 Optional<int64_t>(Quantity(0, true)))
          .Field("maxRequests", "Requests that may wait in all bands; 0 = no limit.",
                 &F::max_requests, Optional<int64_t>(Quantity(0)))
          .Field("defaultRequestTTL", "Longest wait while there are endpoints; 60s if absent.",
                 &F::default_request_ttl)
          .Field("noEndpointRequestTTL", "Longest wait while there are none.",
                 &F::no_endpoint_request_ttl)
          .Field("defaultPriorityBand", "Template for bands that are not listed.",
                 &F::default_priority_band, Optional<BandEntry>(BandType()))
          .Field("defaultNegativePriorityBand", "The same for negative priorities.",
                 &F::default_negative_priority_band, Optional<BandEntry>(BandType()))
          .Field("priorityBands", "Bands with limits and policies of their own.",
                 &F::priority_bands, List<BandEntry>(BandType()))
          .Field("usageLimitPolicyPluginRef", "Saturation up to which each priority is served.",
                 &F::usage_limit_policy)
          .Field("saturationDetector", "What says how full the pool is.", &F::saturation_detector,
                 Optional<PluginRef>(OptionalRefType()))
          .Field("enableEviction", "Cancel sheddable requests for more important ones.",
                 &F::enable_eviction)
          .Build();
  return type;
}

ObjectPtr<PickerDocument> DocumentType() {
  using D = PickerDocument;
  static const auto handler = Object<RequestHandlerEntry>("RequestHandler")
                                  .Where(&RequestHandlerEntry::where)
                                  .Field("parsers", "How bodies are read, by path.",
                                         &RequestHandlerEntry::parsers, List<PluginRef>(RefType()))
                                  .Build();
  static const auto type =
      Object<D>("EndpointPickerConfig")
          .Where(&D::where)
          .Field("apiVersion", "llm-d.ai/v1alpha1.", &D::api_version)
          .Field("kind", "EndpointPickerConfig.", &D::kind)
          .Field("featureGates", "Optional features: name, name=true or name=false.",
                 &D::feature_gates)
          .Field("plugins", "Every plugin that is used.", &D::plugins,
                 List<PluginEntry>(EntryType()))
          .Field("schedulingProfiles", "How endpoints are filtered, scored and picked.",
                 &D::profiles, List<ProfileEntry>(ProfileType()))
          .Field("dataLayer", "Where endpoints and their load come from.", &D::data_layer,
                 Optional<DataLayerEntry>(DataLayerType()))
          .Field("flowControl", "Queueing before scheduling.", &D::flow_control,
                 Optional<FlowControlEntry>(FlowControlType()))
          .Field("requestHandler", "How requests are read.", &D::request_handler,
                 Optional<RequestHandlerEntry>(handler))
          .Field("saturationDetector", "Deprecated: flowControl.saturationDetector.",
                 &D::saturation_detector, Optional<PluginRef>(OptionalRefType()))
          .Field("parser", "Deprecated: requestHandler.parsers.", &D::parser,
                 Optional<PluginRef>(RefType()))
          .Build();
  return type;
}

// Go's strconv.ParseBool after lower-casing and trimming.
std::optional<bool> ParseGateValue(std::string_view text) {
  const std::string value = base::ToLower(base::Trim(text));
  if (value == "1" || value == "t" || value == "true") return true;
  if (value == "0" || value == "f" || value == "false") return false;
  return std::nullopt;
}

void CheckGates(const PickerDocument& d, ErrorList* errors) {
  static constexpr std::string_view kGates[] = {"flowControl", "haPopulateNonLeaderDatastore"};
  const Node list = d.where.Find("featureGates");
  for (size_t i = 0; i < d.feature_gates.size(); ++i) {
    const std::string_view gate = d.feature_gates[i];
    const size_t equals = gate.find('=');
    const std::string_view name = gate.substr(0, equals);
    const Node at = list.at(i);
    if (std::find(std::begin(kGates), std::end(kGates), name) == std::end(kGates)) {
      errors->Add(at, UnknownWord("feature gate", name, kGates));
      continue;
    }
    std::optional<bool> value = true;
    if (equals != std::string_view::npos) value = ParseGateValue(gate.substr(equals + 1));
    if (!value) {
      errors->Add(at, Concat("\"", gate.substr(equals + 1), "\" is no value of the feature gate ",
                             name, ", allowed are true, false"));
    } else if (*value && name == "flowControl") {
      errors->Add(at, Concat("feature gate \"flowControl\"", kNotBuiltYet));
    }
  }
}

void CheckNames(PickerDocument* d, ErrorList* errors) {
  std::set<std::string_view> names;
  for (PluginEntry& p : d->plugins) {
    if (p.name.empty()) p.name = p.type;
    if (!names.insert(p.name).second) {
      errors->Add(p.where.FindOrSelf("name"), Concat("duplicate plugin name \"", p.name, "\""));
    }
  }
  std::set<std::string_view> profiles;
  for (const ProfileEntry& p : d->profiles) {
    if (!profiles.insert(p.name).second) {
      errors->Add(p.where.FindOrSelf("name"), Concat("duplicate profile name \"", p.name, "\""));
    }
  }
}

void CheckFlowControl(const FlowControlEntry& f, ErrorList* errors,
                      std::vector<std::string>* warnings) {
  std::set<int32_t> priorities;
  for (const BandEntry& band : f.priority_bands) {
    if (!band.priority) {
      errors->Add(band.where, "a priority band needs a priority");
    } else if (!priorities.insert(*band.priority).second) {
      errors->Add(band.where.FindOrSelf("priority"),
                  Concat("duplicate priority band ", std::to_string(*band.priority)));
    }
  }
  if (f.max_bytes || f.max_requests || f.default_request_ttl || f.no_endpoint_request_ttl ||
      f.default_priority_band || f.default_negative_priority_band || !f.priority_bands.empty() ||
      f.usage_limit_policy || f.enable_eviction.value_or(false)) {
    warnings->push_back(
        "flowControl is ignored except for its saturationDetector: the feature gate is off");
  }
}

void MoveDeprecated(PickerDocument* d, std::vector<std::string>* warnings) {
  if (d->saturation_detector) {
    warnings->push_back("saturationDetector is deprecated: use flowControl.saturationDetector");
    if (!d->flow_control) d->flow_control.emplace();
    auto& place = d->flow_control->saturation_detector;
    if (!place) place = d->saturation_detector;
    d->saturation_detector.reset();
  }
  if (d->parser) {
    warnings->push_back("parser is deprecated: use requestHandler.parsers");
    if (!d->request_handler) d->request_handler.emplace();
    auto& place = d->request_handler->parsers;
    if (place.empty()) place.push_back(*d->parser);
    d->parser.reset();
  }
}

}  // namespace

const ObjectType<PickerDocument>& PickerDocumentType() { return *DocumentType(); }
const ObjectType<PluginEntry>& PluginEntryType() { return *EntryType(); }

void CheckAndNormalise(PickerDocument* d, ErrorList* errors, std::vector<std::string>* warnings) {
  if (d->api_version == kDeprecatedApiVersion) {
    warnings->push_back(Concat("apiVersion ", kDeprecatedApiVersion, " is deprecated: use ",
                               kApiVersion));
    d->api_version = kApiVersion;
  } else if (d->api_version.empty()) {
    warnings->push_back(Concat("no apiVersion: taken for ", kApiVersion));
    d->api_version = kApiVersion;
  } else if (d->api_version != kApiVersion) {
    errors->Add(d->where.FindOrSelf("apiVersion"),
                UnknownWord("apiVersion", d->api_version, {{kApiVersion}}));
  }
  if (d->kind.empty()) {
    warnings->push_back(Concat("no kind: taken for ", kKind));
    d->kind = kKind;
  } else if (d->kind != kKind) {
    errors->Add(d->where.FindOrSelf("kind"), UnknownWord("kind", d->kind, {{kKind}}));
  }
  CheckGates(*d, errors);
  CheckNames(d, errors);
  MoveDeprecated(d, warnings);
  if (d->flow_control) CheckFlowControl(*d->flow_control, errors, warnings);
}

}  // namespace llmd::director
