// The parts of a generation other than the plugins themselves.
#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "config/value.h"
#include "director/generation_builder.h"

namespace llmd::director {

using base::Concat;
using config::Node;

// Types that are put in where a document says nothing (llm-d-router: pkg/epp/config/loader).
namespace {
constexpr std::string_view kDefaultPicker = "max-score-picker";
constexpr std::string_view kDefaultHandler = "single-profile-handler";
constexpr std::string_view kDefaultDetector = "utilization-detector";
constexpr std::string_view kDefaultSource = "metrics-data-source";
constexpr std::string_view kDefaultExtractor = "core-metrics-extractor";
// The last one is the fallback: a parser without paths.
constexpr std::string_view kDefaultParsers[] = {"openai-parser", "anthropic-parser",
                                                "vllmhttp-parser", "passthrough-parser"};
}  // namespace

std::shared_ptr<const Generation> GenerationBuilder::Build() {
  MakeListed();
  DefaultProfile();
  BuildHandler();
  BuildProfiles();
  BuildParsers();
  BuildSaturation();
  BuildDataLayer();
  BuildDiscovery();
  InjectProducers();
  OrderProducers();
  // Now every part is there, or an error says why not.
  if (!errors_.ok()) return nullptr;
  Collect();
  return std::move(out_);
}

void GenerationBuilder::DefaultProfile() {
  if (!document_.profiles.empty()) return;
  ProfileEntry& profile = document_.profiles.emplace_back();
  profile.name = "default";
  profile.where = document_.where;
  for (const auto& spec : specs_) {
    if (!As<plugin::Filter>(spec.get()) && !As<plugin::Scorer>(spec.get()) &&
        !As<plugin::Picker>(spec.get())) {
      continue;
    }
    profile.plugins.push_back(
        {.where = spec->entry.where, .plugin_ref = spec->entry.name, .weight = {}});
  }
}

void GenerationBuilder::AddToProfile(ProfilePlugin& reference, scheduling::Profile* profile) {
  const Node at = reference.where.FindOrSelf("pluginRef");
  const Spec* spec = Use(reference.plugin_ref, at, Concat("profile \"", profile->name, "\""));
  if (!spec) return;
  const auto* filter = As<plugin::Filter>(spec);
  const auto* scorer = As<plugin::Scorer>(spec);
  const auto* picker = As<plugin::Picker>(spec);
  if (!filter && !scorer && !picker) ReportKind(*spec, at, "a filter, a scorer or a picker");
  if (filter) profile->filters.push_back({filter, spec->index});
  if (scorer) {
    if (!reference.weight) reference.weight = 1.0;
    profile->scorers.push_back({scorer, *reference.weight, spec->index});
  }
  if (!picker) return;
  if (profile->picker) {
    errors_.Add(at, Concat("profile \"", profile->name, "\" has two pickers, one is allowed"));
  }
  profile->picker = picker;
  profile->picker_plugin = spec->index;
}

void GenerationBuilder::BuildProfiles() {
  // A profile without a picker gets the first picker of the document.
  const Spec* shared_picker = nullptr;
  for (const auto& spec : specs_) {
    if (!shared_picker && As<plugin::Picker>(spec.get())) shared_picker = spec.get();
  }
  for (ProfileEntry& entry : document_.profiles) {
    scheduling::Profile profile{.name = entry.name};
    for (ProfilePlugin& reference : entry.plugins) AddToProfile(reference, &profile);
    if (!profile.picker) {
      if (!shared_picker) shared_picker = Inject(kDefaultPicker, "a profile without a picker");
      if (!shared_picker) return;
      profile.picker = As<plugin::Picker>(shared_picker);
      profile.picker_plugin = shared_picker->index;
      entry.plugins.push_back(
          {.where = {}, .plugin_ref = shared_picker->entry.name, .weight = {}});
    }
    out_->profiles_.push_back(std::move(profile));
  }
}

void GenerationBuilder::BuildHandler() {
  const Spec* handler = nullptr;
  for (const auto& spec : specs_) {
    if (!As<plugin::ProfileHandler>(spec.get())) continue;
    if (handler) {
      errors_.Add(spec->entry.where,
                  Concat("two profile handlers, \"", handler->entry.name, "\" and \"",
                         spec->entry.name, "\", one is allowed"));
      return;
    }
    handler = spec.get();
  }
  const bool failed = std::any_of(specs_.begin(), specs_.end(), [](const auto& spec) {
    return spec->making == Making::kFailed;
  });
  if (!handler && document_.profiles.size() == 1) {
    if (failed) return;  // one of those may have been meant
    handler = Inject(kDefaultHandler, "a single profile");
  } else if (!handler && !failed) {
    errors_.Add(document_.where.FindOrSelf("plugins"),
                "several scheduling profiles and no profile handler among the plugins");
  }
  if (!handler) return;
  out_->handler_ = As<plugin::ProfileHandler>(handler);
  out_->handler_plugin_ = handler->index;
  std::vector<std::string> names;
  for (const ProfileEntry& p : document_.profiles) names.push_back(p.name);
  if (const base::Status status = out_->handler_->CheckProfiles(names); !status.ok()) {
    errors_.Add(handler->entry.where, status.message());
  }
}

void GenerationBuilder::BuildParsers() {
  if (!document_.request_handler) document_.request_handler.emplace();
  std::vector<PluginRef>& parsers = document_.request_handler->parsers;
  if (parsers.empty()) {
    for (std::string_view type : kDefaultParsers) {
      if (!IsBuilt(type)) continue;
      if (Inject(type, "reading requests")) parsers.push_back({{}, std::string(type)});
    }
  }
  for (const PluginRef& reference : parsers) {
    const Node at = reference.where.FindOrSelf("pluginRef");
    // Named by its type, a parser need not be listed (as upstream).
    if (!Find(reference.plugin_ref) && catalogue_.Find(reference.plugin_ref)) {
      if (!IsBuilt(reference.plugin_ref)) {
        errors_.Add(at, Concat("plugin type \"", reference.plugin_ref, "\"", kNotBuiltYet));
        continue;
      }
      Inject(reference.plugin_ref, "requestHandler");
    }
    const Spec* spec = Use(reference.plugin_ref, at, "requestHandler");
    if (!spec) continue;
    const auto* parser = As<plugin::Parser>(spec);
    if (!parser) {
      ReportKind(*spec, at, "a parser");
      continue;
    }
    if (out_->has_fallback_parser_) {
      out_->warnings_.push_back(
          Concat("parser \"", reference.plugin_ref,
                 "\" is not used: it stands behind one that takes every path"));
      continue;
    }
    out_->parsers_.push_back(parser);
    out_->has_fallback_parser_ = parser->claims().empty();
    for (const plugin::Parser::Claim& claim : parser->claims()) out_->claims_.push_back(claim);
  }
  // Longest first; of equal ones the parser that is named first.
  for (size_t i = 1; i < out_->claims_.size(); ++i) {
    for (size_t j = i; j > 0; --j) {
      if (out_->claims_[j - 1].suffix.size() >= out_->claims_[j].suffix.size()) break;
      std::swap(out_->claims_[j - 1], out_->claims_[j]);
    }
  }
}

void GenerationBuilder::BuildSaturation() {
  if (!document_.flow_control) document_.flow_control.emplace();
  auto& reference = document_.flow_control->saturation_detector;
  if (!reference) reference.emplace();
  if (reference->plugin_ref.empty()) reference->plugin_ref = kDefaultDetector;
  const Node at = reference->where.FindOrSelf("pluginRef");
  const Spec* spec = reference->plugin_ref == kDefaultDetector
                         ? Inject(kDefaultDetector, "admission")
                         : Use(reference->plugin_ref, at, "saturationDetector");
  if (!spec) return;
  out_->saturation_ = As<plugin::SaturationDetector>(spec);
  out_->saturation_plugin_ = spec->index;
  if (!out_->saturation_) ReportKind(*spec, at, "a saturation detector");
}

void GenerationBuilder::BuildDataLayer() {
  if (!document_.data_layer) document_.data_layer.emplace();
  DataLayerEntry& data = *document_.data_layer;
  const bool has_metrics =
      std::any_of(data.sources.begin(), data.sources.end(),
                  [](const SourceEntry& s) { return s.plugin_ref == kDefaultSource; });
  if (data.inject_defaults.value_or(true) && !has_metrics) {
    if (Inject(kDefaultSource, "reading load") && Inject(kDefaultExtractor, "reading load")) {
      data.sources.push_back({.where = {},
                              .plugin_ref = std::string(kDefaultSource),
                              .extractors = {{{}, std::string(kDefaultExtractor)}}});
    }
  } else if (data.sources.empty()) {
    errors_.Add(data.where, "no data sources, and injectDefaults is false: the load of the "
                            "endpoints would never be known");
  }
  for (const SourceEntry& entry : data.sources) {
    const Node at = entry.where.FindOrSelf("pluginRef");
    const Spec* spec = Use(entry.plugin_ref, at, "dataLayer.sources");
    if (As<plugin::EndpointNotifier>(spec)) {
      CheckNotified(entry);
      continue;
    }
    const auto* source = As<plugin::DataSource>(spec);
    if (spec && !source) ReportKind(*spec, at, "a data source");
    ScrapeStep step{.source = source, .extractors = {}, .extractor_plugins = {}};
    if (spec) step.plugin = spec->index;
    std::vector<std::string_view> types;
    for (const PluginRef& reference : entry.extractors) {
      const Node extractor_at = reference.where.FindOrSelf("pluginRef");
      const Spec* e = Use(reference.plugin_ref, extractor_at, "extractors");
      if (!e) continue;
      const auto* extractor = As<plugin::Extractor>(e);
      if (!extractor) ReportKind(*e, extractor_at, "an extractor");
      if (std::find(types.begin(), types.end(), e->entry.type) != types.end()) {
        errors_.Add(extractor_at, Concat("two extractors of type \"", e->entry.type,
                                         "\" in one source, one is allowed"));
      }
      types.push_back(e->entry.type);
      step.extractors.push_back(extractor);
      step.extractor_plugins.push_back(e->index);
    }
    out_->scrapes_.push_back(std::move(step));
  }
}

// Plugins that want to know the fleet's members are told whether they are listed there or not; a
// document that lists them is one written for upstream.
void GenerationBuilder::CheckNotified(const SourceEntry& entry) {
  for (const PluginRef& reference : entry.extractors) {
    Use(reference.plugin_ref, reference.where.FindOrSelf("pluginRef"), "extractors");
  }
}

void GenerationBuilder::BuildDiscovery() {
  const DataLayerEntry& data = *document_.data_layer;
  if (data.peer_discovery) {
    errors_.Add(data.where.FindOrSelf("peerDiscovery"), Concat("discovery of peers", kNotBuiltYet));
  }
  if (data.cross_replica_syncer && !data.cross_replica_syncer->empty()) {
    errors_.Add(data.where.FindOrSelf("crossReplicaSyncerPluginRef"),
                Concat("state shared between replicas", kNotBuiltYet));
  }
  if (!data.discovery) {
    if (options_.endpoints_given) return;
    errors_.Add(data.where ? data.where : document_.where,
                Concat("no source of endpoints: dataLayer.discovery must refer to a plugin of type "
                       "file-discovery, or --endpoints be given; discovery from Kubernetes",
                       kNotBuiltYet));
    return;
  }
  const Node at = data.discovery->where.FindOrSelf("pluginRef");
  const Spec* spec = Use(data.discovery->plugin_ref, at, "dataLayer.discovery");
  if (!spec) return;
  const auto* discovery = As<plugin::EndpointDiscovery>(spec);
  if (!discovery) {
    ReportKind(*spec, at, "an endpoint discovery");
  } else if (options_.endpoints_given) {
    out_->warnings_.push_back("dataLayer.discovery is ignored: --endpoints names the endpoints");
  } else {
    out_->discovery_ = discovery;
  }
}

// Makes the default producers that are missing; each may read attributes of others in turn.
void GenerationBuilder::InjectProducers() {
  for (size_t i = 0; i < specs_.size(); ++i) {
    if (!specs_[i]->loaded.object) continue;
    // The plugin keeps its bonds while `specs_` grows.
    const std::shared_ptr<const PluginBonds> bonds = specs_[i]->loaded.bonds;
    const PluginEntry entry = specs_[i]->entry;
    for (const PluginBonds::Consumed& c : bonds->consumed) {
      const Node at = entry.parameters ? entry.parameters : entry.where;
      const plugin::PluginType* type = catalogue_.DefaultProducer(c.key);
      Spec* producer = Find(c.producer);
      if (!producer && !c.required) continue;
      if (!producer && type && type->type == c.producer) {
        producer = Inject(c.producer, Concat("plugin \"", entry.name, "\""));
        if (!producer) continue;
      }
      if (!producer) {
        errors_.Add(at, c.producer.empty()
                            ? Concat("plugin \"", entry.name, "\" reads ", c.key,
                                     ", which no plugin type produces by default")
                            : Concat("plugin \"", entry.name, "\" reads ", c.key, " of \"",
                                     c.producer, "\", which is not among the plugins"));
        continue;
      }
      if (!producer->loaded.object) continue;
      const auto& keys = producer->loaded.bonds->produced;
      if (std::find(keys.begin(), keys.end(), c.key) == keys.end()) {
        errors_.Add(at, Concat("plugin \"", entry.name, "\" reads ", c.key, " of \"", c.producer,
                               "\", which does not produce it"));
      }
    }
  }
}

// Repeatedly takes the first producer that waits for nobody: the document's order where it is free.
void GenerationBuilder::OrderProducers() {
  std::vector<const Spec*> waiting;
  for (const auto& spec : specs_) {
    if (As<plugin::DataProducer>(spec.get())) waiting.push_back(spec.get());
  }
  const auto waits = [&](const Spec* spec) {
    return std::any_of(
        spec->loaded.bonds->consumed.begin(), spec->loaded.bonds->consumed.end(),
        [&](const PluginBonds::Consumed& c) {
          return std::any_of(waiting.begin(), waiting.end(),
                             [&](const Spec* w) { return w->entry.name == c.producer; });
        });
  };
  while (!waiting.empty()) {
    const auto next = std::find_if_not(waiting.begin(), waiting.end(), waits);
    if (next == waiting.end()) {
      std::vector<std::string> names;
      for (const Spec* spec : waiting) names.push_back(spec->entry.name);
      errors_.Add(document_.where.FindOrSelf("plugins"),
                  Concat("data producers read each other's attributes in a circle: ",
                         base::Join(names, ", ")));
      return;
    }
    out_->producers_.push_back({As<plugin::DataProducer>(*next), (*next)->index});
    waiting.erase(next);
  }
}

// Whose matches are shown and insisted on: of one that improves on another's, else of the default.
std::string GenerationBuilder::PrefixProducer() const {
  constexpr std::string_view kKey = plugin::PrefixCacheMatchInfo::kKey;
  for (const auto& spec : specs_) {
    const PluginBonds& bonds = *spec->loaded.bonds;
    const bool reads = std::ranges::any_of(
        bonds.consumed, [&](const PluginBonds::Consumed& c) { return c.key == kKey; });
    const bool writes = std::ranges::find(bonds.produced, kKey) != bonds.produced.end();
    if (reads && writes) return spec->entry.name;
  }
  return ResolveProducer(kKey, "");
}

void GenerationBuilder::Collect() {
  for (const auto& spec : specs_) {
    if (auto* hook = As<plugin::PreRequest>(spec.get())) {
      out_->pre_requests_.push_back({hook, spec->index});
    }
    if (const auto* processor = As<plugin::RequestHeaderProcessor>(spec.get())) {
      out_->header_processors_.push_back({processor, spec->index});
    }
    if (auto* processor = As<plugin::ResponseProcessor>(spec.get())) {
      out_->response_processors_.push_back({processor, spec->index});
    }
    const auto& produced = spec->loaded.bonds->produced;
    if (out_->agent_identity_slot_.index == plugin::kNoSlot &&
        std::ranges::find(produced, plugin::AgentIdentity::kKey) != produced.end()) {
      out_->agent_identity_slot_ = {SlotOf(plugin::AgentIdentity::kKey, spec->entry.name)};
    }
    out_->plugins_.push_back(spec->loaded);
  }
  const auto slot_of = [&](std::string_view key) {
    const std::string producer = ResolveProducer(key, "");
    for (uint32_t i = 0; i < out_->slots_.size(); ++i) {
      if (out_->slots_[i].key == key && out_->slots_[i].producer == producer) return i;
    }
    return plugin::kNoSlot;
  };
  const std::string prefix_producer = PrefixProducer();
  for (const LoadedPlugin& loaded : out_->plugins_) {
    if (loaded.object->name() != prefix_producer) continue;
    out_->prefix_producer_ = loaded.object.get();
    out_->prefix_slot_ = {SlotOf(plugin::PrefixCacheMatchInfo::kKey, prefix_producer)};
  }
  out_->tokens_slot_ = {slot_of(plugin::TokenizedPrompt::kKey)};
  out_->effective_yaml_ = config::ToYaml(PickerDocumentType().Write(document_));
}

}  // namespace llmd::director
