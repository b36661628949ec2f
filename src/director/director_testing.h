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
#include "plugin/outside.h"
#include "telemetry/metrics.h"

namespace llmd::director::testing {

// Types: queue-scorer, kv-cache-utilization-scorer, prefix-cache-scorer (parameter: producer),
// max-score-picker, random-picker, single-profile-handler, disagg-profile-handler (any profiles),
// metrics-data-source, core-metrics-extractor, openai-parser, passthrough-parser,
// utilization-detector (also a filter; saturated when `*saturation` says so), file-discovery
// (path), token-producer, approx-prefix-cache-producer, inflight-load-producer (books 1 until the
// end and 10 until the first token), refuser (a PreRequest that fails while *refuse), referrer
// (parameter other: a plugin it points to), circular-producer (parameters reads, key),
// agent-identity (a header processor: the header x-agent, "bad" is refused), waiting-producer
// (waits until *ready or 10 ms at a time, 100 ms at most, and then says that the first
// candidate holds the prompt), header-setter (a PreRequest that sets x-target to the endpoint's
// port and, once, x-first), reply-watcher (a response processor: see *watched), label-filter (keeps
// endpoints from number *keep on), broken (cannot be made); experimental-scorer is alpha,
// old-scorer deprecated; latency-scorer and precise-prefix-cache-producer are not built.
const plugin::Catalogue& TestCatalogue();

// What the plugins above look at.
struct Knobs {
  std::atomic<double> saturation{0};
  std::atomic<int> refuse{0};           // code of the status that refuser gives, 0 = none
  std::atomic<int> constructed{0};      // plugins made
  std::atomic<int> routed{0};           // OnRouted calls of inflight-load-producer
  std::atomic<bool> ready{false};       // of waiting-producer
  std::atomic<bool> wait_backwards{false};  // it asks to be called in the past
  std::shared_ptr<plugin::OutsideTask> task;  // that it waits for, if any
  std::atomic<int> asked{0}, abandoned{0};  // calls of it
  std::atomic<uint32_t> keep{0};
  std::atomic<int64_t> tally{0};  // what inflight-load-producer has booked, as it counts itself
  // What reply-watcher saw last.
  struct Watched {
    std::string headers, served;
    int heads = 0, ends = 0, status = 0;
    plugin::Termination termination = plugin::Termination::kNatural;
    bool body_shown = false;
    uint64_t event_count = 0;
    int64_t output_tokens = 0;
  } watched;
};
Knobs& TestKnobs();

struct Bed {
  static constexpr std::string_view kHead =
      "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
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

// ---- sessions in a few words ----

inline constexpr std::string_view kChat =
    R"({"model":"llama","messages":[{"role":"user","content":"Hello there, how are you?"}]})";
inline constexpr std::string_view kChatPath = "/v1/chat/completions";
RequestHead Post(std::string_view path = kChatPath, std::span<const plugin::Header> headers = {});
// From the head to the decision.
Decision Decide(Session& session, const Bed& bed, std::string_view body = kChat,
                RequestHead head = Post());
// How often an LLMD_BUG was met so far.
uint64_t Bugs();

}  // namespace llmd::director::testing
