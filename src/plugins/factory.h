// MakeType: a catalogue entry from a plugin class and the declaration of its parameters, so that
// reading, checking and the JSON schema come from one place.
//
//   class QueueScorer : public plugin::Plugin, public plugin::Scorer {
//    public:
//     QueueScorer(const Parameters& parameters, plugin::PluginContext& context);
//   };
//   plugin::PluginType QueueScorerType() {
//     return MakeType<QueueScorer>("queue-scorer", "Prefers short queues.", ParametersType);
//   }
//
// The constructor may report errors through `context.errors()`; then the plugin is not made.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "config/schema.h"
#include "plugin/catalogue.h"

namespace llmd::plugins {

// For plugins that take no parameters: any key is an unknown one.
struct NoParameters {};
const config::ObjectType<NoParameters>& NoParametersType();

// The kinds that T is, for PluginType::kinds.
template <class T>
std::string KindsOf() {
  std::string kinds;
  const auto add = [&](bool is, std::string_view name) {
    if (is) kinds.append(kinds.empty() ? "" : ", ").append(name);
  };
  add(std::is_base_of_v<plugin::EndpointDiscovery, T>, "discovery");
  add(std::is_base_of_v<plugin::DataSource, T>, "data source");
  add(std::is_base_of_v<plugin::Extractor, T>, "extractor");
  add(std::is_base_of_v<plugin::Parser, T>, "parser");
  add(std::is_base_of_v<plugin::RequestHeaderProcessor, T>, "request header processor");
  add(std::is_base_of_v<plugin::DataProducer, T>, "data producer");
  add(std::is_base_of_v<plugin::SaturationDetector, T>, "saturation detector");
  add(std::is_base_of_v<plugin::ProfileHandler, T>, "profile handler");
  add(std::is_base_of_v<plugin::Filter, T>, "filter");
  add(std::is_base_of_v<plugin::Scorer, T>, "scorer");
  add(std::is_base_of_v<plugin::Picker, T>, "picker");
  add(std::is_base_of_v<plugin::ResponseProcessor, T>, "response processor");
  return kinds;
}

template <class T, class P>
plugin::PluginType MakeType(std::string type, std::string help,
                            const config::ObjectType<P>& (*parameters_type)()) {
  auto factory = [parameters_type](plugin::PluginContext& context) -> std::unique_ptr<T> {
    P parameters;
    const size_t errors_before = context.errors().total();
    if (!context.ReadParameters(parameters_type(), &parameters)) return nullptr;
    auto made = std::make_unique<T>(parameters, context);
    if (context.errors().total() != errors_before) return nullptr;
    return made;
  };
  plugin::PluginType entry;
  entry.type = std::move(type);
  entry.factory = std::move(factory);
  entry.kinds = KindsOf<T>();
  entry.help = std::move(help);
  if constexpr (!std::is_same_v<P, NoParameters>) {
    entry.parameters_schema = config::ToJson(parameters_type().Describe());
  }
  return entry;
}

}  // namespace llmd::plugins
