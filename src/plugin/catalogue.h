// The catalogue: which plugin types exist and how one is made from its config entry.
//
// An ordinary object, filled by one visible list in main/plugins.cc (tests fill one with two
// lines). There are no static registrars. Thread-compatible: built once, read-only afterwards.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/status.h"
#include "base/strings.h"
#include "config/document.h"
#include "plugin/attributes.h"
#include "plugin/plugin.h"

namespace llmd::config {
template <class T>
class ObjectType;
}  // namespace llmd::config

namespace llmd::plugin {

class Catalogue;

// What a factory is given. Parameters are read through `parameters` with config/'s strict reader,
// which reports every error into `errors`; a factory that reported errors returns nullptr.
class PluginContext {
 public:
  virtual ~PluginContext() = default;
  virtual const std::string& name() const = 0;
  // The entry's `parameters` mapping; an empty node when absent. Keys match case-insensitively.
  virtual const config::Node& parameters() const = 0;
  virtual config::ErrorList& errors() = 0;
  // Reads the parameters over the defaults in `*out`; false when an error was reported. `type` is a
  // config::ObjectType<T> (config/schema.h).
  template <class T>
  bool ReadParameters(const config::ObjectType<T>& type, T* out) {
    return parameters().is_null() ||
           type.Read(parameters(), {.errors = &errors(), .ignore_case = true}, out);
  }

  // Declares that this plugin writes attribute T under its own instance name.
  template <class T>
  Slot<T> Produces() {
    return {ProducesKey(T::kKey)};
  }
  // Declares that this plugin reads T of `producer` (an instance name; "" = the default producer of
  // the key, created when the config has none). Orders the producer before the consumer.
  template <class T>
  Slot<T> Consumes(std::string_view producer, bool required = true) {
    return {ConsumesKey(T::kKey, producer, required)};
  }
  // Another plugin that a parameter refers to by name; made before this one and alive as long.
  // nullptr when there is none, or none of that kind, and an error was reported.
  template <class Kind>
  Kind* Reference(std::string_view name) {
    Plugin* plugin = ReferencedPlugin(name);
    Kind* kind = dynamic_cast<Kind*>(plugin);
    if (plugin && !kind) {
      errors().Add(parameters(), base::Concat("plugin \"", name, "\" is a ", plugin->type(),
                                              ", which cannot do what is asked of it here"));
    }
    return kind;
  }
  // A counter column of its own for as long as the plugin lives (a reload may take it over).
  virtual base::Result<fleet::CounterId> AddCounter() = 0;
  virtual fleet::Fleet& fleet() = 0;
  // Name of the document's first plugin of that type, "" when there is none.
  virtual std::string InstanceOf(std::string_view type) { return {}; }
  // What the operator grants an index of KV blocks (--kv-index-memory); 0: its default.
  virtual uint64_t kv_index_bytes() const { return 0; }
  // The process' secret: for hashes that clients must not be able to collide.
  virtual uint64_t secret() const { return 0; }
  // Declares that this plugin (an extractor) reports numbers of endpoints under that key.
  virtual base::Result<EndpointAttribute> ProducesEndpointAttribute(std::string_view key) = 0;
  // The column of `key` of that producer ("" = whoever reports it). NaN as long as nobody does.
  virtual base::Result<fleet::AttributeId> ConsumesEndpointAttribute(std::string_view key,
                                                                     std::string_view producer) = 0;

 protected:
  virtual uint32_t ProducesKey(std::string_view key) = 0;
  virtual uint32_t ConsumesKey(std::string_view key, std::string_view producer, bool required) = 0;
  virtual Plugin* ReferencedPlugin(std::string_view name) = 0;
};

enum class Stability { kStable, kAlpha, kDeprecated };

struct PluginType {
  std::string type;
  Stability stability = Stability::kStable;
  // Empty for a name that upstream has and this release has not: refused with that sentence.
  std::function<std::unique_ptr<Plugin>(PluginContext&)> factory;
  // Attribute key for which this type is the default producer, or "".
  std::string default_producer_of;
  // What it does, "filter, scorer": the names of this file's kinds, for people.
  std::string kinds;
  // One sentence for `llmd config schema` and the docs.
  std::string help;
  // Parameter schema as a JSON object (draft 2020-12), "" = takes no parameters.
  std::string parameters_schema;
};

class Catalogue {
 public:
  // A type may be added once; adding it again is a programming error.
  void Add(PluginType type);
  // A type that upstream registers and we have not built yet.
  void AddNotBuilt(std::string_view type);
  // nullptr when unknown.
  const PluginType* Find(std::string_view type) const;
  const PluginType* DefaultProducer(std::string_view key) const;
  std::span<const PluginType> types() const { return types_; }

 private:
  std::vector<PluginType> types_;
};

}  // namespace llmd::plugin
