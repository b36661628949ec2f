// For tests and benchmarks of director/: a catalogue of plugins of a few lines under upstream's
// type names, and a bed with everything that a Director needs.
//
//   Bed bed(4);
//   Session session(bed.director(), 1, bed.now);
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "director/director.h"
#include "plugin/catalogue.h"
#include "plugin/keys.h"
#include "telemetry/metrics.h"

namespace llmd::director::testing {

// Types: queue-scorer, kv-cache-utilization-scorer, prefix-cache-scorer (parameter: producer),
// max-score-picker, random-picker, single-profile-handler, disagg-profile-handler (any profiles),
// metrics-data-source, core-metrics-extractor, openai-parser, passthrough-parser,
// utilization-detector (also a filter; saturated when `*saturation` says so), file-discovery
// (path), token-producer, approx-prefix-cache-producer, inflight-load-producer (books 1 until the
// end and 10 until the first token), refuser (a PreRequest that fails while *refuse), referrer
// (parameter other: a plugin it points to), circular-producer (parameters reads, key);
// experimental-scorer is alpha, old-scorer deprecated; latency-scorer and
// precise-prefix-cache-producer are not built.
const plugin::Catalogue& TestCatalogue();

// What the plugins above look at.
struct Knobs {
  std::atomic<double> saturation{0};
  std::atomic<int> refuse{0};           // code of the status that refuser gives, 0 = none
  std::atomic<int> constructed{0};      // plugins made
  std::atomic<int> routed{0};           // OnRouted calls of inflight-load-producer
};
Knobs& TestKnobs();

struct Bed {
  static constexpr std::string_view kYaml = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: prefix-cache-scorer
- type: inflight-load-producer
- type: refuser
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
)";

  explicit Bed(size_t endpoints, DirectorOptions options = {});
  // Endpoints e0, e1, ... on ports 8000 and up, past their slow start.
  void SetEndpoints(size_t n);
  void Load(std::string_view yaml = kYaml);
  Director& director() { return *director_; }
  // Everything in flight, of all counters and endpoints.
  int64_t InFlight() const;

  base::TimePoint now{std::chrono::hours(1)};
  fleet::Fleet fleet;
  telemetry::Metrics metrics;
  RecordRing records;
  GenerationSource generations;
  std::shared_ptr<const Generation> generation;

 private:
  std::unique_ptr<Director> director_;
};

}  // namespace llmd::director::testing
