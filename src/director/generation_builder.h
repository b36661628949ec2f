// GenerationBuilder: from a checked document to a Generation. Internal to director/; see config.h.
//
// generation_builder.cc makes the plugins: references first, unchanged ones
// taken over from the previous generation, defaults and missing producers injected.
// generation_parts.cc compiles the rest: profiles, handler, producers' order, data layer, parsers.
// Every step reports all it finds; a plugin that could not be made is passed over by later steps.
//
// Thread safety: none; lives for one Compile.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "director/config.h"
#include "director/picker_document.h"

namespace llmd::director {

// Counters that a plugin was given go back when it dies.
struct PluginBonds {
  explicit PluginBonds(fleet::Fleet& f) : fleet(f) {}
  ~PluginBonds();

  struct Consumed {
    std::string key;
    std::string asked;     // producer as the plugin named it, "" = the default one
    std::string producer;  // what that meant
    bool required;
  };
  fleet::Fleet& fleet;
  std::vector<std::string> produced;  // keys, under the plugin's own name
  std::vector<Consumed> consumed;
  std::vector<std::string> references;  // names of plugins it holds pointers to
  std::vector<fleet::CounterId> counters;
};

struct AttributeLease {
  AttributeLease(fleet::Fleet& f, fleet::AttributeId a) : fleet(f), id(a) {}
  ~AttributeLease() { fleet.RemoveAttribute(id); }
  AttributeLease(const AttributeLease&) = delete;
  AttributeLease& operator=(const AttributeLease&) = delete;

  fleet::Fleet& fleet;
  const fleet::AttributeId id;
};

class GenerationBuilder {
 public:
  GenerationBuilder(PickerDocument document, const plugin::Catalogue& catalogue,
                    fleet::Fleet& fleet, const LoadOptions& options, const Generation* previous,
                    config::ErrorList& errors, std::vector<std::string> warnings);

  // nullptr when errors were reported.
  std::shared_ptr<const Generation> Build();
  // Makes the listed plugins only, for the errors in them: of a document that could be read in
  // part.
  void MakeListed();

 private:
  enum class Making : uint8_t { kNotYet, kNow, kDone, kFailed };
  struct Spec {
    PluginEntry entry;
    bool injected = false;
    Making making = Making::kNotYet;
    LoadedPlugin loaded;
    uint32_t index = 0;
  };
  class Context;

  // generation_builder.cc
  Spec* Find(std::string_view name);
  // Reports an undefined name at `at`; nullptr then, and for a plugin that could not be made.
  Spec* Use(std::string_view name, const config::Node& at, std::string_view what);
  void Make(Spec& spec);
  const plugin::PluginType* CheckType(const Spec& spec);
  bool TakeOver(Spec& spec);
  // The plugin of that type and name, made with default parameters if the document has none.
  Spec* Inject(std::string_view type, std::string_view why);
  bool IsBuilt(std::string_view type) const;
  std::string ResolveProducer(std::string_view key, std::string_view asked) const;
  uint32_t SlotOf(std::string_view key, std::string_view producer);
  base::Result<fleet::AttributeId> AttributeOf(std::string_view key, std::string_view producer);
  template <class Kind>
  static Kind* As(const Spec* spec) {
    return spec ? dynamic_cast<Kind*>(spec->loaded.object.get()) : nullptr;
  }
  void ReportKind(const Spec& spec, const config::Node& at, std::string_view kind);

  // generation_parts.cc
  void DefaultProfile();
  void BuildProfiles();
  void AddToProfile(ProfilePlugin& reference, scheduling::Profile* profile);
  void BuildHandler();
  void BuildParsers();
  void BuildSaturation();
  void BuildDataLayer();
  void CheckNotified(const SourceEntry& entry);
  void BuildDiscovery();
  void InjectProducers();
  void OrderProducers();
  std::string PrefixProducer() const;
  void Collect();

  PickerDocument document_;
  const plugin::Catalogue& catalogue_;
  fleet::Fleet& fleet_;
  const LoadOptions& options_;
  const Generation* previous_;  // nullptr: nothing to take over
  config::ErrorList& errors_;
  std::vector<std::unique_ptr<Spec>> specs_;  // the document's, then the injected ones
  std::shared_ptr<Generation> out_;
};

}  // namespace llmd::director
