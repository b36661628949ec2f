// The EndpointPickerConfig document as typed structs, read strictly and written back.
// Format: llm-d-router, apix/config/v1alpha1/endpointpickerconfig_types.go.
//
// Internal to director/; see config.h. A document is a value; the nodes inside live as long as the
// config::Document that they were read from. Reading is thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "config/schema.h"

namespace llmd::director {

inline constexpr std::string_view kApiVersion = "llm-d.ai/v1alpha1";
inline constexpr std::string_view kDeprecatedApiVersion = "inference.networking.x-k8s.io/v1alpha1";
inline constexpr std::string_view kKind = "EndpointPickerConfig";
// What is said of a part of the original that comes later.
inline constexpr std::string_view kNotBuiltYet =
    " is part of llm-d but not built into this release yet";

// What upstream runs without a config file: pkg/epp/config/loader/defaults.go.
std::string_view DefaultPickerYaml();

struct PluginRef {
  config::Node where;
  std::string plugin_ref;
};

struct PluginEntry {
  config::Node where;
  std::string name;
  std::string type;
  config::Node parameters;
};

struct ProfilePlugin {
  config::Node where;
  std::string plugin_ref;
  std::optional<double> weight;
};

struct ProfileEntry {
  config::Node where;
  std::string name;
  std::vector<ProfilePlugin> plugins;
};

struct SourceEntry {
  config::Node where;
  std::string plugin_ref;
  std::vector<PluginRef> extractors;
};

struct DataLayerEntry {
  config::Node where;
  std::optional<bool> inject_defaults;
  std::vector<SourceEntry> sources;
  std::optional<PluginRef> discovery;
  std::optional<PluginRef> peer_discovery;
  std::optional<std::string> cross_replica_syncer;
  std::optional<base::Duration> cross_replica_sync_interval;
};

struct BandEntry {
  config::Node where;
  std::optional<int32_t> priority;
  std::optional<int64_t> max_bytes;
  std::optional<int64_t> max_requests;
  std::optional<std::string> fairness_policy;
  std::optional<std::string> ordering_policy;
};

struct FlowControlEntry {
  config::Node where;
  std::optional<int64_t> max_bytes;
  std::optional<int64_t> max_requests;
  std::optional<base::Duration> default_request_ttl;
  std::optional<base::Duration> no_endpoint_request_ttl;
  std::optional<BandEntry> default_priority_band;
  std::optional<BandEntry> default_negative_priority_band;
  std::vector<BandEntry> priority_bands;
  std::optional<std::string> usage_limit_policy;
  std::optional<PluginRef> saturation_detector;
  std::optional<bool> enable_eviction;
};

struct RequestHandlerEntry {
  config::Node where;
  std::vector<PluginRef> parsers;
};

struct PickerDocument {
  config::Node where;
  std::string api_version;
  std::string kind;
  std::vector<std::string> feature_gates;
  std::vector<PluginEntry> plugins;
  std::vector<ProfileEntry> profiles;
  std::optional<DataLayerEntry> data_layer;
  std::optional<FlowControlEntry> flow_control;
  std::optional<RequestHandlerEntry> request_handler;
  std::optional<PluginRef> saturation_detector;  // deprecated: flowControl.saturationDetector
  std::optional<PluginRef> parser;               // deprecated: requestHandler.parsers
};

const config::ObjectType<PickerDocument>& PickerDocumentType();
const config::ObjectType<PluginEntry>& PluginEntryType();

// What can be said without knowing any plugin: version, kind, gates, names, bands (a part that
// could not be read was reported before and is empty). Names default to types, and the deprecated
// fields move to their new places (`warnings` says so).
void CheckAndNormalise(PickerDocument* document, config::ErrorList* errors,
                       std::vector<std::string>* warnings);

}  // namespace llmd::director
