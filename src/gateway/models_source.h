// ModelsSource: the answer to GET /v1/models, gathered from all endpoints every kInterval, and
// every kEagerInterval as long as one of them has not answered yet.
//
// Models of the same id are listed once, as the first endpoint (by number) describes them. An
// endpoint that does not answer keeps what it last said until it leaves the fleet. Thread safety:
// belongs to one loop's thread; the result is published through Shared. Limits: kModelsMax models
// in the answer, kPageBytesMax per endpoint.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/snapshot.h"
#include "control/state.h"
#include "net/scrape.h"
#include "runtime/loop.h"

namespace llmd::gateway {

class ModelsSource final : private net::ScrapeSink {
 public:
  static constexpr base::Duration kInterval = std::chrono::seconds(5);
  static constexpr base::Duration kEagerInterval = std::chrono::milliseconds(500);
  static constexpr size_t kModelsMax = 10'000;
  static constexpr size_t kPageBytesMax = 4u << 20;

  // `out` and `loop` outlive the source.
  ModelsSource(runtime::EventLoop& loop, base::Snapshot<std::string>& out,
               std::string extra_lines);
  void SetBackends(const control::Backends& backends);

 private:
  void OnScrape(net::ScrapeId id, int status, std::string_view page,
                base::TimePoint sent_at) override;
  void OnScrapeFailed(net::ScrapeId id, const net::ClientError& error) override { SetPace(); }
  void SetPace();
  void Publish();

  struct Entry {
    uint64_t generation = 0;
    bool scraped = false;
    net::ScrapeId id = 0;
    runtime::SocketAddress address;
    uint64_t page_hash = 0;
    // (id, JSON object) in the endpoint's order
    std::vector<std::pair<std::string, std::string>> models;
  };

  base::Snapshot<std::string>& out_;
  const std::string extra_lines_;
  base::Duration interval_ = kEagerInterval;
  net::Scraper scraper_;
  std::map<fleet::EndpointNumber, Entry> entries_;
  std::map<net::ScrapeId, fleet::EndpointNumber> by_id_;
};

// The `data` list of a models reply as (id, object text); empty when it is not one.
std::vector<std::pair<std::string, std::string>> ReadModels(std::string_view page);

}  // namespace llmd::gateway
