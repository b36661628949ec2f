// Periodic GETs of many targets from one loop: the metric pages of a fleet.
//
// Scrapes are spread evenly over the interval and started in batches, one per `tick`, so that
// replies are read in few wake-ups. Connections are kept alive. A page that arrives in one read is
// handed over in place; otherwise it is gathered in a buffer that the target keeps: no allocation
// per scrape.
//
// Thread safety: belongs to one loop's thread. Sinks outlive their targets (until Remove returned).
// Invariants: 1. At most one scrape per target is under way; one that is due before the last has
// ended is skipped and counted as late. 2. After Remove the sink is not called.
// Limits: page_bytes_max per page, timeout per scrape.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "net/http_client.h"
#include "runtime/loop.h"

namespace llmd::net {

using ScrapeId = uint32_t;

class ScrapeSink {
 public:
  virtual ~ScrapeSink() = default;
  // A reply with any status; `page` is valid until return. `sent_at` is when the request left,
  // which is the age to count from. May call SetPath, Remove or Add.
  virtual void OnScrape(ScrapeId id, int status, std::string_view page,
                        base::TimePoint sent_at) = 0;
  virtual void OnScrapeFailed(ScrapeId id, const ClientError& error) = 0;
};

struct ScrapeTargetSpec {
  TargetSpec target;
  std::string host;               // Host field
  std::string path = "/metrics";  // with query
  std::string extra_lines;        // field lines with CRLF, for example Authorization
};

struct ScrapeOptions {
  base::Duration interval = std::chrono::milliseconds(50);
  base::Duration tick = std::chrono::milliseconds(5);
  base::Duration timeout = std::chrono::seconds(1);
  size_t page_bytes_max = 16u << 20;
};

struct ScrapeStats {
  uint64_t started = 0;
  uint64_t completed = 0;
  uint64_t failed = 0;  // timeouts included
  uint64_t timeouts = 0;
  uint64_t late = 0;        // skipped because the previous one was still under way
  uint64_t late_ticks = 0;  // batches started more than one tick behind their time
  uint64_t page_bytes = 0;
};

class Scraper {
 public:
  explicit Scraper(runtime::EventLoop& loop, ScrapeOptions options = {});
  ~Scraper();
  Scraper(const Scraper&) = delete;
  Scraper& operator=(const Scraper&) = delete;

  // The first scrape starts with one of the next ticks, the later ones at the target's place in the
  // interval.
  ScrapeId Add(ScrapeTargetSpec spec, ScrapeSink& sink);
  void Remove(ScrapeId id);
  // From the next scrape on; for falling back from a filtered page to the whole one.
  void SetPath(ScrapeId id, std::string path);
  void SetInterval(base::Duration interval);
  size_t size() const;
  const ScrapeStats& stats() const;

 private:
  friend class ScrapeJob;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::net
