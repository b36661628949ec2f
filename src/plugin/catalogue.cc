#include "plugin/catalogue.h"

#include <utility>

#include "base/check.h"

namespace llmd::plugin {

void Catalogue::Add(PluginType type) {
  LLMD_CHECK(!type.type.empty(), "a plugin type without a name");
  LLMD_CHECK(Find(type.type) == nullptr, type.type);
  LLMD_CHECK(type.default_producer_of.empty() || !DefaultProducer(type.default_producer_of),
             type.default_producer_of);
  types_.push_back(std::move(type));
}

void Catalogue::AddNotBuilt(std::string_view type) { Add({.type = std::string(type)}); }

const PluginType* Catalogue::Find(std::string_view type) const {
  for (const PluginType& t : types_) {
    if (t.type == type) return &t;
  }
  return nullptr;
}

const PluginType* Catalogue::DefaultProducer(std::string_view key) const {
  for (const PluginType& t : types_) {
    if (!key.empty() && t.default_producer_of == key) return &t;
  }
  return nullptr;
}

}  // namespace llmd::plugin
