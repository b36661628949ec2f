#include "director/generation_builder.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "config/value.h"

namespace llmd::director {

using base::Concat;
using config::Node;

PluginBonds::~PluginBonds() {
  for (fleet::CounterId c : counters) fleet.RemoveCounter(c);
}

// What a factory sees of the builder.
class GenerationBuilder::Context final : public plugin::PluginContext {
 public:
  Context(GenerationBuilder& builder, Spec& spec, PluginBonds& bonds)
      : builder_(builder), spec_(spec), bonds_(bonds) {}

  const std::string& name() const override { return spec_.entry.name; }
  const Node& parameters() const override { return spec_.entry.parameters; }
  config::ErrorList& errors() override { return builder_.errors_; }
  fleet::Fleet& fleet() override { return builder_.fleet_; }
  std::string InstanceOf(std::string_view type) override {
    for (const PluginEntry& entry : builder_.document_.plugins) {
      if (entry.type == type) return entry.name;
    }
    return {};
  }
  uint64_t kv_index_bytes() const override { return builder_.options_.kv_index_bytes; }
  uint64_t secret() const override { return builder_.options_.secret; }
  base::Result<fleet::CounterId> AddCounter() override {
    auto counter = builder_.fleet_.AddCounter();
    if (counter) bonds_.counters.push_back(*counter);
    return counter;
  }
  base::Result<plugin::EndpointAttribute> ProducesEndpointAttribute(std::string_view key) override {
    LLMD_ASSIGN_OR_RETURN(const fleet::AttributeId own,
                          builder_.AttributeOf(key, spec_.entry.name));
    LLMD_ASSIGN_OR_RETURN(const fleet::AttributeId any, builder_.AttributeOf(key, ""));
    return plugin::EndpointAttribute{own, any};
  }
  base::Result<fleet::AttributeId> ConsumesEndpointAttribute(std::string_view key,
                                                             std::string_view producer) override {
    return builder_.AttributeOf(key, producer);
  }

 protected:
  uint32_t ProducesKey(std::string_view key) override {
    bonds_.produced.emplace_back(key);
    return builder_.SlotOf(key, spec_.entry.name);
  }
  uint32_t ConsumesKey(std::string_view key, std::string_view producer, bool required) override {
    std::string resolved = builder_.ResolveProducer(key, producer);
    const uint32_t slot = builder_.SlotOf(key, resolved);
    bonds_.consumed.push_back(
        {std::string(key), std::string(producer), std::move(resolved), required});
    return slot;
  }
  plugin::Plugin* ReferencedPlugin(std::string_view name) override {
    const Node& at = spec_.entry.parameters ? spec_.entry.parameters : spec_.entry.where;
    Spec* other = builder_.Use(name, at, "parameters");
    if (!other) return nullptr;
    bonds_.references.emplace_back(name);
    return other->loaded.object.get();
  }

 private:
  GenerationBuilder& builder_;
  Spec& spec_;
  PluginBonds& bonds_;
};

GenerationBuilder::GenerationBuilder(PickerDocument document, const plugin::Catalogue& catalogue,
                                     fleet::Fleet& fleet, const LoadOptions& options,
                                     const Generation* previous, config::ErrorList& errors,
                                     std::vector<std::string> warnings)
    : document_(std::move(document)),
      catalogue_(catalogue),
      fleet_(fleet),
      options_(options),
      previous_(previous),
      errors_(errors),
      out_(new Generation) {
  out_->number_ = previous ? previous->number_ + 1 : 1;
  out_->warnings_ = std::move(warnings);
  if (previous_ && previous_->slots_.size() > kSlotsMax) {
    previous_ = nullptr;
    out_->warnings_.push_back("the attribute slots are used up: all plugins start anew");
  }
  if (previous_) {
    out_->slots_ = previous_->slots_;
    out_->attributes_ = previous_->attributes_;
  }
  for (const PluginEntry& entry : document_.plugins) {
    specs_.push_back(std::make_unique<Spec>(Spec{.entry = entry}));
    specs_.back()->index = static_cast<uint32_t>(specs_.size() - 1);
  }
}

GenerationBuilder::Spec* GenerationBuilder::Find(std::string_view name) {
  for (const auto& spec : specs_) {
    if (spec->entry.name == name) return spec.get();
  }
  return nullptr;
}

GenerationBuilder::Spec* GenerationBuilder::Use(std::string_view name, const Node& at,
                                                std::string_view what) {
  Spec* spec = Find(name);
  if (!spec) {
    std::vector<std::string_view> names;
    for (const auto& s : specs_) names.push_back(s->entry.name);
    errors_.Add(at, Concat(what, " refers to undefined plugin \"", name, "\"",
                           config::DidYouMean(name, names)));
    return nullptr;
  }
  if (spec->making == Making::kNow) {
    errors_.Add(at, Concat("plugins refer to each other in a circle at \"", name, "\""));
    return nullptr;
  }
  Make(*spec);
  return spec->loaded.object ? spec : nullptr;
}

void GenerationBuilder::MakeListed() {
  for (size_t i = 0; i < specs_.size(); ++i) Make(*specs_[i]);
}

bool GenerationBuilder::IsBuilt(std::string_view type) const {
  const plugin::PluginType* t = catalogue_.Find(type);
  return t && t->factory;
}

const plugin::PluginType* GenerationBuilder::CheckType(const Spec& spec) {
  const std::string& type = spec.entry.type;
  const Node at = spec.entry.where.FindOrSelf("type");
  const plugin::PluginType* found = catalogue_.Find(type);
  if (!found) {
    std::vector<std::string_view> types;
    for (const plugin::PluginType& t : catalogue_.types()) types.push_back(t.type);
    errors_.Add(at, Concat("unknown plugin type \"", type, "\"", config::DidYouMean(type, types)));
    return nullptr;
  }
  if (!found->factory) {
    errors_.Add(at, Concat("plugin type \"", type, "\"", kNotBuiltYet));
    return nullptr;
  }
  if (found->stability == plugin::Stability::kAlpha && !options_.allow_experimental_plugins) {
    errors_.Add(at, Concat("plugin type \"", type,
                           "\" is experimental, allowed with --allow-experimental-plugins"));
    return nullptr;
  }
  if (found->stability == plugin::Stability::kDeprecated) {
    // The sentence of help names what to use in its place.
    out_->warnings_.push_back(Concat("plugin type \"", type, "\" is deprecated",
                                     found->help.empty() ? "" : ": ", found->help));
  }
  return found;
}

void GenerationBuilder::Make(Spec& spec) {
  if (spec.making != Making::kNotYet) return;
  spec.making = Making::kNow;
  spec.loaded.injected = spec.injected;
  if (!spec.entry.parameters.is_null()) {
    spec.loaded.parameters = config::ToJson(config::ToValue(spec.entry.parameters));
  }
  const plugin::PluginType* type = CheckType(spec);
  if (type && TakeOver(spec)) {
    spec.making = Making::kDone;
    return;
  }
  if (type) {
    const size_t errors_before = errors_.total();
    auto bonds = std::make_shared<PluginBonds>(fleet_);
    Context context(*this, spec, *bonds);
    std::shared_ptr<plugin::Plugin> object = type->factory(context);
    if (object && errors_.total() == errors_before) {
      object->SetIdentity(spec.entry.name, spec.entry.type);
      spec.loaded.bonds = std::move(bonds);
      spec.loaded.object = std::move(object);
    } else if (errors_.total() == errors_before) {
      errors_.Add(spec.entry.where, Concat("plugin \"", spec.entry.name, "\" could not be made"));
    }
  }
  spec.making = spec.loaded.object ? Making::kDone : Making::kFailed;
}

// The object of the previous generation serves on when nothing that went into making it has
// changed: its type and parameters, the plugins it points to, and what its attributes come from.
bool GenerationBuilder::TakeOver(Spec& spec) {
  if (!previous_) return false;
  const LoadedPlugin* old = nullptr;
  for (const LoadedPlugin& p : previous_->plugins_) {
    if (p.object->name() == spec.entry.name) old = &p;
  }
  if (!old || old->object->type() != spec.entry.type ||
      old->parameters != spec.loaded.parameters) {
    return false;
  }
  for (const std::string& name : old->bonds->references) {
    Spec* other = Find(name);
    if (!other || other->making == Making::kNow) return false;
    Make(*other);
    const bool same = std::any_of(
        previous_->plugins_.begin(), previous_->plugins_.end(),
        [&](const LoadedPlugin& p) { return p.object && p.object == other->loaded.object; });
    if (!same) return false;
  }
  for (const PluginBonds::Consumed& c : old->bonds->consumed) {
    if (ResolveProducer(c.key, c.asked) != c.producer) return false;
  }
  spec.loaded.bonds = old->bonds;
  spec.loaded.object = old->object;
  return true;
}

GenerationBuilder::Spec* GenerationBuilder::Inject(std::string_view type, std::string_view why) {
  if (Spec* there = Find(type)) {
    Make(*there);
    return there->loaded.object ? there : nullptr;
  }
  if (!IsBuilt(type)) {
    errors_.Add(document_.where, Concat(why, " needs a plugin of type \"", type,
                                        "\", which is not built into this program"));
    return nullptr;
  }
  auto spec = std::make_unique<Spec>();
  spec->entry.name = spec->entry.type = std::string(type);
  spec->entry.where = document_.where;
  spec->injected = true;
  spec->index = static_cast<uint32_t>(specs_.size());
  specs_.push_back(std::move(spec));
  Spec* injected = specs_.back().get();
  Make(*injected);
  document_.plugins.push_back({.where = {}, .name = injected->entry.name,
                               .type = injected->entry.type, .parameters = {}});
  return injected->loaded.object ? injected : nullptr;
}

// "" is the instance named like the key's default producer type; else the first one of that type;
// else the one that will be injected.
std::string GenerationBuilder::ResolveProducer(std::string_view key,
                                               std::string_view asked) const {
  if (!asked.empty()) return std::string(asked);
  const plugin::PluginType* type = catalogue_.DefaultProducer(key);
  if (!type) return {};
  const std::string* first = nullptr;
  for (const auto& spec : specs_) {
    if (spec->entry.name == type->type) return type->type;
    if (!first && spec->entry.type == type->type) first = &spec->entry.name;
  }
  return first ? *first : type->type;
}

uint32_t GenerationBuilder::SlotOf(std::string_view key, std::string_view producer) {
  for (uint32_t i = 0; i < out_->slots_.size(); ++i) {
    if (out_->slots_[i].key == key && out_->slots_[i].producer == producer) return i;
  }
  out_->slots_.push_back({std::string(key), std::string(producer)});
  return static_cast<uint32_t>(out_->slots_.size() - 1);
}

base::Result<fleet::AttributeId> GenerationBuilder::AttributeOf(std::string_view key,
                                                                std::string_view producer) {
  for (const Generation::AttributeKey& known : out_->attributes_) {
    if (known.key == key && known.producer == producer) return known.lease->id;
  }
  LLMD_ASSIGN_OR_RETURN(const fleet::AttributeId id, fleet_.AddAttribute());
  auto lease = std::make_shared<const AttributeLease>(fleet_, id);
  out_->attributes_.push_back({std::string(key), std::string(producer), std::move(lease)});
  return id;
}

void GenerationBuilder::ReportKind(const Spec& spec, const Node& at, std::string_view kind) {
  errors_.Add(at, Concat("plugin \"", spec.entry.name, "\" of type \"", spec.entry.type,
                         "\" is not ", kind));
}

}  // namespace llmd::director
