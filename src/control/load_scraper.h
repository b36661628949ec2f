// LoadScraper: keeps what is known of every endpoint fresh. Fetches what the config's data sources
// want, lets their extractors read the pages, and reports to the fleet.
//
// A server that honours `?name[]=` (Prometheus' Python client, so vLLM) is asked for just the
// wanted families; one that answers such a request with an error or without any of them is asked
// for its whole page from then on.
//
// Thread safety: belongs to one loop's thread. No allocation per scrape.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "director/config.h"
#include "fleet/fleet.h"
#include "control/state.h"
#include "net/scrape.h"
#include "net/tls.h"
#include "runtime/loop.h"
#include "telemetry/metrics.h"

namespace llmd::control {

class LoadScraper {
 public:
  // `writer`: the metric writer index of this thread. `interval_min`: no source is fetched more
  // often, whatever it wants. References outlive the scraper.
  LoadScraper(runtime::EventLoop& loop, fleet::Fleet& fleet, telemetry::Metrics& metrics,
              size_t writer, base::Duration interval_min);
  ~LoadScraper();

  // What to fetch from now on; the generation is kept.
  base::Status SetGeneration(std::shared_ptr<const director::Generation> generation);
  void SetBackends(std::shared_ptr<const Backends> backends);
  // Adds own field lines ("Name: value\r\n") to every scrape.
  void SetExtraLines(std::string lines) { extra_lines_ = std::move(lines); }

 private:
  class Source;

  runtime::EventLoop& loop_;
  fleet::Fleet& fleet_;
  telemetry::Metrics& metrics_;
  const size_t writer_;
  const base::Duration interval_min_;
  std::string extra_lines_;
  std::shared_ptr<const director::Generation> generation_;
  std::shared_ptr<const Backends> backends_;
  std::vector<std::unique_ptr<Source>> sources_;
};

}  // namespace llmd::control
