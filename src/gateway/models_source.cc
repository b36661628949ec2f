#include "gateway/models_source.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/hash.h"

namespace llmd::gateway {

std::vector<std::pair<std::string, std::string>> ReadModels(std::string_view page) {
  std::vector<std::pair<std::string, std::string>> models;
  // ordered_json keeps the engine's key order; parse errors come as a discarded value.
  const auto reply = nlohmann::ordered_json::parse(page, nullptr, false);
  if (!reply.is_object() || !reply.contains("data") || !reply["data"].is_array()) return models;
  for (const auto& model : reply["data"]) {
    if (!model.is_object() || !model.contains("id") || !model["id"].is_string()) continue;
    models.emplace_back(
        model["id"].get<std::string>(),
        model.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    if (models.size() == ModelsSource::kModelsMax) break;
  }
  return models;
}

ModelsSource::ModelsSource(runtime::EventLoop& loop, base::Snapshot<std::string>& out,
                           std::string extra_lines)
    : out_(out),
      extra_lines_(std::move(extra_lines)),
      scraper_(loop, {.interval = interval_,
                      .timeout = std::chrono::seconds(2),
                      .page_bytes_max = kPageBytesMax}) {}

void ModelsSource::SetBackends(const control::Backends& backends) {
  std::set<fleet::EndpointNumber> present;
  for (const control::Backend& backend : backends) {
    present.insert(backend.number);
    Entry& entry = entries_[backend.number];
    if (entry.scraped && entry.generation == backend.generation &&
        entry.address == backend.target.address) {
      continue;
    }
    if (entry.scraped) {
      scraper_.Remove(entry.id);
      by_id_.erase(entry.id);
    }
    entry = Entry{.generation = backend.generation,
                  .scraped = true,
                  .address = backend.target.address};
    entry.id = scraper_.Add({.target = backend.target,
                             .host = backend.target.tls_name,
                             .path = "/v1/models",
                             .extra_lines = extra_lines_},
                            *this);
    by_id_[entry.id] = backend.number;
  }
  const size_t removed = std::erase_if(entries_, [&](const auto& item) {
    if (present.contains(item.first)) return false;
    scraper_.Remove(item.second.id);
    by_id_.erase(item.second.id);
    return true;
  });
  if (removed > 0) Publish();
}

void ModelsSource::OnScrape(net::ScrapeId id, int status, std::string_view page, base::TimePoint) {
  if (status == 200) {
    Entry& entry = entries_.at(by_id_.at(id));
    const uint64_t hash = base::Hash64(page);
    if (entry.page_hash != hash) {
      entry.page_hash = hash;
      entry.models = ReadModels(page);
      Publish();
    }
  }
  SetPace();
}

void ModelsSource::SetPace() {
  const bool all_known = std::ranges::none_of(
      entries_, [](const auto& item) { return item.second.page_hash == 0; });
  const base::Duration wanted = all_known ? kInterval : kEagerInterval;
  if (std::exchange(interval_, wanted) != wanted) scraper_.SetInterval(wanted);
}

void ModelsSource::Publish() {
  std::set<std::string_view> listed;
  auto body = std::make_shared<std::string>(R"({"object":"list","data":[)");
  for (const auto& [number, entry] : entries_) {
    for (const auto& [id, object] : entry.models) {
      if (listed.size() == kModelsMax || !listed.insert(id).second) continue;
      if (listed.size() > 1) body->push_back(',');
      body->append(object);
    }
  }
  body->append("]}");
  out_.Publish(listed.empty() ? nullptr : std::move(body));
}

}  // namespace llmd::gateway
