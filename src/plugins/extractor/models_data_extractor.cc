#include "plugins/extractor/models_data_extractor.h"

#include <map>
#include <mutex>

#include "base/hash.h"
#include "base/strings.h"
#include "plugins/factory.h"
#include "wire/json_scan.h"

namespace llmd::plugins {
namespace {

constexpr size_t kModelsMax = 1000;  // a server has one model and its adapters

// The "id" of every object of the page's "data" list, as JSON strings; nullopt when it is no such
// page.
std::optional<std::vector<std::string>> ReadModelIds(std::string_view page) {
  using wire::JsonEvent;
  std::vector<std::string> ids;
  wire::JsonScanner scan;
  scan.Feed(page);
  int depth = 0;  // of objects and arrays: 1 the page, 2 its list, 3 a model
  bool is_list = false, is_id = false;
  for (;;) {
    switch (scan.Next()) {
      case JsonEvent::kKey:
        is_list |= depth == 1 && scan.text() == "data";
        is_id = depth == 3 && scan.text() == "id";
        if (!is_id && !(depth == 1 && scan.text() == "data")) scan.SkipValue();
        break;
      case JsonEvent::kObject: case JsonEvent::kArray:
        ++depth;
        break;
      case JsonEvent::kEndObject: case JsonEvent::kEndArray:
        --depth;
        break;
      case JsonEvent::kString:
        if (is_id && ids.size() < kModelsMax) ids.push_back(base::Concat("\"", scan.part(), "\""));
        is_id = false;
        break;
      case JsonEvent::kEnd:
        if (!is_list) return std::nullopt;
        return ids;
      case JsonEvent::kError: case JsonEvent::kMore:
        return std::nullopt;
      default:
        break;
    }
  }
}

class ModelsDataExtractor final : public plugin::Plugin, public plugin::Extractor {
 public:
  ModelsDataExtractor(const NoParameters&, plugin::PluginContext&) {}
  std::vector<std::string> WantedFamilies(const fleet::EndpointSpec&) const override { return {}; }
  bool Extract(const fleet::EndpointSpec& endpoint, std::string_view page,
               plugin::EndpointReport*) const override {
    const uint64_t hash = base::Hash64(page);
    const std::string name = base::Concat(endpoint.name_space, "/", endpoint.name);
    std::lock_guard lock(mutex_);
    const auto found = served_.find(name);
    if (found != served_.end() && found->second.page_hash == hash) return true;
    auto ids = ReadModelIds(page);
    if (!ids) return false;
    if (found == served_.end() && served_.size() == fleet::kEndpointsMax) {
      served_.erase(served_.begin());
    }
    served_[name] = {hash, *std::move(ids)};
    return true;
  }
  std::string DumpState() const override {
    std::lock_guard lock(mutex_);
    std::string json = "{";
    for (const auto& [name, served] : served_) {
      if (json.size() > 1) json += ",";
      base::AppendJsonString(&json, name);
      json += base::Concat(":[", base::Join(served.ids, ","), "]");
    }
    return json + "}";
  }

 private:
  struct Served {
    uint64_t page_hash = 0;
    std::vector<std::string> ids;
  };
  mutable std::mutex mutex_;  // the scraping thread writes, the admin pages read
  mutable std::map<std::string, Served> served_;
};

}  // namespace

plugin::PluginType ModelsDataExtractorType() {
  return MakeType<ModelsDataExtractor>("models-data-extractor",
                                       "Keeps which models every endpoint serves.",
                                       NoParametersType);
}

}  // namespace llmd::plugins
