// EndpointPickerConfig: the one document that says which plugins run and how. Upstream's format
// (apix/config/v1alpha1/endpointpickerconfig_types.go), strict, all errors at once.
//
// Compile() turns it into a Generation: plugins made in dependency order, profiles as flat arrays,
// attribute slots numbered. A Generation is immutable and shared by all workers; sessions pin the
// one they began with, so a reload never changes a request half-way.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "plugin/attributes.h"
#include "plugin/catalogue.h"
#include "plugin/keys.h"
#include "plugin/plugin.h"
#include "scheduling/cycle.h"

namespace llmd::config {
class ErrorList;
}

namespace llmd::director {

struct LoadOptions {
  bool allow_experimental_plugins = false;
  // Endpoints come from the command line: no file-discovery is needed and the built-in defaults
  // apply.
  bool endpoints_given = false;
  uint64_t kv_index_bytes = 0;  // see plugin::PluginContext
  uint64_t secret = 0;
};

// What a plugin declared while it was made: its attribute slots, the plugins it refers to, its
// counters. Lives as long as the plugin.
struct PluginBonds;

// A column of endpoint attributes, given back with the last generation that uses it.
struct AttributeLease;

// A plugin in a generation, with what it can do.
struct LoadedPlugin {
  std::shared_ptr<const PluginBonds> bonds;  // outlives `object`
  std::shared_ptr<plugin::Plugin> object;
  std::string parameters;  // canonical text: equal text and type = the same plugin on reload
  bool injected = false;   // not in the document
};

struct ProducerStep {
  plugin::DataProducer* producer;
  uint32_t plugin;
};

struct PreRequestStep {
  plugin::PreRequest* hook;
  uint32_t plugin;
};

struct HeaderStep {
  const plugin::RequestHeaderProcessor* processor;
  uint32_t plugin;
};

struct ResponseStep {
  plugin::ResponseProcessor* processor;
  uint32_t plugin;
};

struct ScrapeStep {
  const plugin::DataSource* source;
  std::vector<const plugin::Extractor*> extractors;
  uint32_t plugin = 0;                       // of the source
  std::vector<uint32_t> extractor_plugins;
};

class Generation {
 public:
  ~Generation();

  uint64_t number() const { return number_; }
  std::span<const LoadedPlugin> plugins() const { return plugins_; }
  std::span<const scheduling::Profile> profiles() const { return profiles_; }
  const plugin::ProfileHandler& handler() const { return *handler_; }
  uint32_t handler_plugin() const { return handler_plugin_; }
  // In the order in which they run: a producer after those whose attributes it reads.
  std::span<const ProducerStep> producers() const { return producers_; }
  std::span<const PreRequestStep> pre_requests() const { return pre_requests_; }
  // In the document's order.
  std::span<const HeaderStep> header_processors() const { return header_processors_; }
  std::span<const ResponseStep> response_processors() const { return response_processors_; }
  const plugin::SaturationDetector& saturation() const { return *saturation_; }
  uint32_t saturation_plugin() const { return saturation_plugin_; }
  std::span<const ScrapeStep> scrapes() const { return scrapes_; }
  const plugin::EndpointDiscovery* discovery() const { return discovery_; }  // nullptr: flags
  // Attribute slots, and those of the attributes that decision records show (kNoSlot: none).
  uint32_t slot_count() const { return static_cast<uint32_t>(slots_.size()); }
  plugin::Slot<plugin::PrefixCacheMatchInfo> prefix_slot() const { return prefix_slot_; }
  // The plugin that fills prefix_slot(), nullptr when there is none.
  const plugin::Plugin* prefix_producer() const { return prefix_producer_; }
  plugin::Slot<plugin::TokenizedPrompt> tokens_slot() const { return tokens_slot_; }
  // Of the first plugin that produces it, whatever its name.
  plugin::Slot<plugin::AgentIdentity> agent_identity_slot() const { return agent_identity_slot_; }
  // The API of a request path (without query; one slash at its end is ignored): longest claimed
  // suffix, else opaque.
  protocol::Api ApiFor(std::string_view path) const;
  // Whether a parser takes what no other claims. Without one, a body that comes to an unclaimed
  // path is refused.
  bool has_fallback_parser() const { return has_fallback_parser_; }
  // Whether every parser can read requests to a pool with this appProtocol; "" says nothing.
  bool ParsersSupport(std::string_view app_protocol) const;
  // The effective document, defaults and injected plugins included.
  const std::string& effective_yaml() const { return effective_yaml_; }
  // Deprecated or ignored parts of the document, one sentence each.
  std::span<const std::string> warnings() const { return warnings_; }

 private:
  friend class GenerationBuilder;
  Generation() = default;

  struct SlotKey {
    std::string key, producer;
    bool operator==(const SlotKey&) const = default;
  };

  uint64_t number_ = 0;
  std::vector<LoadedPlugin> plugins_;
  std::vector<scheduling::Profile> profiles_;
  const plugin::ProfileHandler* handler_ = nullptr;
  uint32_t handler_plugin_ = 0;
  std::vector<ProducerStep> producers_;
  std::vector<PreRequestStep> pre_requests_;
  std::vector<HeaderStep> header_processors_;
  std::vector<ResponseStep> response_processors_;
  const plugin::SaturationDetector* saturation_ = nullptr;
  uint32_t saturation_plugin_ = 0;
  std::vector<ScrapeStep> scrapes_;
  const plugin::EndpointDiscovery* discovery_ = nullptr;
  // Grows over reloads, because a plugin that is taken over keeps its slot numbers.
  std::vector<SlotKey> slots_;
  // Columns of endpoint attributes; kept over reloads for the same reason.
  struct AttributeKey {
    std::string key, producer;
    std::shared_ptr<const AttributeLease> lease;
  };
  std::vector<AttributeKey> attributes_;
  plugin::Slot<plugin::PrefixCacheMatchInfo> prefix_slot_;
  const plugin::Plugin* prefix_producer_ = nullptr;
  plugin::Slot<plugin::TokenizedPrompt> tokens_slot_;
  plugin::Slot<plugin::AgentIdentity> agent_identity_slot_;
  std::vector<const plugin::Parser*> parsers_;
  std::vector<plugin::Parser::Claim> claims_;  // longest first
  bool has_fallback_parser_ = false;
  std::string effective_yaml_;
  std::vector<std::string> warnings_;
};

// Beyond this many slots a reload starts from an empty table and takes no plugin over. Real configs
// have under ten.
inline constexpr size_t kSlotsMax = 256;

// Reads and compiles `yaml` ("" = upstream's defaults). `filename` is for messages. Plugins whose
// name, type and parameters are unchanged are taken over from `previous` with their state. On
// errors the Status carries all of them, one per line, and nothing was changed.
base::Result<std::shared_ptr<const Generation>> Compile(
    std::string_view yaml, std::string_view filename, const plugin::Catalogue& catalogue,
    fleet::Fleet& fleet, const LoadOptions& options, const Generation* previous);

// JSON schema (draft 2020-12) of the document with every plugin type of the catalogue.
std::string ConfigSchema(const plugin::Catalogue& catalogue);

}  // namespace llmd::director
