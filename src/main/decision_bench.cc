// One decision with the real plugins and the default profile, by number of endpoints: from the end
// of a request's body to the ordered list of endpoints (parse, admission, candidates, prefix match,
// scorers, picker, bookings). The body's scan, which happens as it arrives, is not in it.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "director/director.h"
#include "director/session.h"
#include "main/plugins.h"
#include "runtime/clock.h"
#include "telemetry/metrics.h"

namespace llmd {
namespace {

constexpr std::string_view kDefaultProfile = R"(
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: max-score-picker}
)";

// A fleet whose endpoints all have been scraped, under the default profile.
class Bed {
 public:
  explicit Bed(size_t endpoints, bool idle = false)
      : idle_(idle), fleet_(1), metrics_(1), records_(1) {
    std::vector<fleet::EndpointSpec> specs;
    for (size_t i = 0; i < endpoints; ++i) {
      specs.push_back({.name = "e" + std::to_string(i), .address = "10.0.0.1",
                       .port = static_cast<uint16_t>(8000 + i), .labels = {}});
    }
    const base::Status set = fleet_.SetMembers(std::move(specs), now - std::chrono::minutes(1));
    LLMD_CHECK(set.ok(), set.message());
    Scrape();
    auto compiled = director::Compile(kDefaultProfile, "default.yaml", catalogue_, fleet_,
                                      {.endpoints_given = true}, nullptr);
    LLMD_CHECK(compiled.has_value(), compiled.error().message());
    generations_.Publish(*compiled);
    director_ = std::make_unique<director::Director>(generations_, fleet_, metrics_, records_,
                                                     director::DirectorOptions{});
  }

  void Scrape() {
    for (const fleet::EndpointNumber number : fleet_.members()->numbers) {
      fleet_.ReportLoad(number,
                        {.waiting = idle_ ? 0 : static_cast<float>(number % 7),
                         .running = idle_ ? 0 : static_cast<float>(number % 11),
                         .kv_usage = idle_ ? 0 : static_cast<float>(number % 10) / 10,
                         .block_tokens = 16,
                         .block_count = 8192},
                        now);
    }
  }
  director::Director& director() { return *director_; }

  base::TimePoint now{std::chrono::hours(1)};

 private:
  const bool idle_;
  plugin::Catalogue catalogue_ = MakeCatalogue();
  fleet::Fleet fleet_;
  telemetry::Metrics metrics_;
  director::RecordRing records_;
  director::GenerationSource generations_;
  std::unique_ptr<director::Director> director_;
};

// One of 16 conversations of about `bytes` bytes: all but the first of each find their prefix.
std::string Body(size_t bytes, uint64_t conversation) {
  std::string body = R"({"model":"llama","messages":[{"role":"user","content":")";
  body += "Conversation " + std::to_string(conversation) + ". ";
  while (body.size() < bytes) body += "The quick brown fox jumps over the lazy dog. ";
  return body + R"("}]})";
}

void Decide(benchmark::State& state, Bed& bed) {
  std::vector<std::string> bodies;
  for (uint64_t i = 0; i < 16; ++i) bodies.push_back(Body(1 << 10, i));
  uint64_t seed = 0;
  for (auto _ : state) {
    bed.now += std::chrono::microseconds(50);
    if (seed % 1000 == 0) bed.Scrape();
    const std::string& body = bodies[seed % bodies.size()];
    director::Session session(bed.director(), ++seed, bed.now);
    session.OnHead({.method = "POST",
                    .path = "/v1/chat/completions",
                    .request_id = "0123456789abcdef",
                    .content_length = body.size()},
                   bed.now);
    session.OnBody(body, bed.now);
    const base::TimePoint begin = runtime::Now();
    benchmark::DoNotOptimize(session.OnBodyEnd(bed.now).kind);
    state.SetIterationTime(base::ToSeconds(runtime::Now() - begin));
    session.OnResponseHead({.status = 200}, bed.now);
    session.OnDone(0, bed.now);
  }
}

void BM_Decision(benchmark::State& state) {
  Bed bed(static_cast<size_t>(state.range(0)));
  Decide(state, bed);
}
BENCHMARK(BM_Decision)
    ->Arg(10)
    ->Arg(100)
    ->Arg(1000)
    ->Arg(10000)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// Most endpoints have the same score, so that ties are broken among nearly all.
void BM_DecisionAmongIdle(benchmark::State& state) {
  Bed bed(static_cast<size_t>(state.range(0)), true);
  Decide(state, bed);
}
BENCHMARK(BM_DecisionAmongIdle)->Arg(1000)->UseManualTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace llmd
