#include <algorithm>

#include "base/check.h"
#include "base/strings.h"
#include "config/schema.h"
#include "director/director_testing.h"

namespace llmd::director::testing {
namespace {

using plugin::EndpointNumber;
using plugin::PluginContext;
using plugin::RequestContext;

struct StringParams {
  std::string producer, other, path, reads, key;
};
const config::ObjectType<StringParams>& ParamsType() {
  static const auto type = config::Object<StringParams>("Params")
                               .Field("producer", "", &StringParams::producer)
                               .Field("other", "", &StringParams::other)
                               .Field("path", "", &StringParams::path)
                               .Field("reads", "", &StringParams::reads)
                               .Field("key", "", &StringParams::key)
                               .Build();
  return *type;
}

struct ColumnScorer : plugin::Plugin, plugin::Scorer {
  explicit ColumnScorer(bool kv) : kv_usage(kv) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kDistribution; }
  void Score(const RequestContext& r, std::span<const EndpointNumber> c,
             std::span<double> scores) const override {
    const float* column = kv_usage ? r.fleet->kv_usage() : r.fleet->waiting();
    for (size_t i = 0; i < c.size(); ++i) scores[i] = 1 / (1 + column[c[i]]);
  }
  bool kv_usage;
};

struct PrefixScorer : plugin::Plugin, plugin::Scorer {
  explicit PrefixScorer(plugin::Slot<plugin::PrefixCacheMatchInfo> s) : slot(s) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }
  void Score(const RequestContext& r, std::span<const EndpointNumber> c,
             std::span<double> scores) const override {
    const auto* info = r.attributes.Get(slot);
    for (size_t i = 0; info && i < c.size(); ++i) {
      scores[i] = static_cast<double>(info->matched_blocks[c[i]]) / info->total_blocks;
    }
  }
  plugin::Slot<plugin::PrefixCacheMatchInfo> slot;
};

struct BestPicker : plugin::Plugin, plugin::Picker {
  void Pick(RequestContext&, std::span<plugin::ScoredCandidate> scored,
            size_t wanted) const override {
    for (size_t i = 0; i < wanted; ++i) {
      const auto best = std::max_element(
          scored.begin() + static_cast<std::ptrdiff_t>(i), scored.end(),
          [](const auto& a, const auto& b) { return a.score < b.score; });
      std::swap(scored[i], *best);
    }
  }
  size_t endpoint_count() const override { return 1; }
};

struct Handler : plugin::Plugin, plugin::ProfileHandler {
  explicit Handler(size_t most) : profiles_max(most) {}
  std::optional<size_t> Next(RequestContext&,
                             std::span<const plugin::ProfileResult> results) const override {
    for (size_t i = 0; i < results.size(); ++i) {
      if (!results[i].ran) return i;
    }
    return std::nullopt;
  }
  base::Result<size_t> Primary(RequestContext&,
                               std::span<const plugin::ProfileResult>) const override {
    return 0;
  }
  base::Status CheckProfiles(std::span<const std::string> names) const override {
    if (names.size() <= profiles_max) return base::OkStatus();
    return base::InvalidArgument("single-profile-handler runs one profile");
  }
  size_t profiles_max;
};

struct Source : plugin::Plugin, plugin::DataSource {
  const plugin::FetchSpec& fetch() const override { return spec; }
  plugin::FetchSpec spec;
};

struct NoExtractor : plugin::Plugin, plugin::Extractor {
  std::vector<std::string> WantedFamilies(const fleet::EndpointSpec&) const override { return {}; }
  bool Extract(const fleet::EndpointSpec&, std::string_view,
               plugin::EndpointReport*) const override {
    return false;
  }
};

struct ChatParser : plugin::Plugin, plugin::Parser {
  std::span<const Claim> claims() const override {
    static constexpr Claim kClaims[] = {{"completions", protocol::Api::kCompletions},
                                        {"chat/completions", protocol::Api::kChatCompletions}};
    return kClaims;
  }
};
struct AnyParser : plugin::Plugin, plugin::Parser {
  std::span<const Claim> claims() const override { return {}; }
};

struct Detector : plugin::Plugin, plugin::SaturationDetector, plugin::Filter {
  Saturation Measure(const fleet::View&, std::span<const EndpointNumber>,
                     base::TimePoint) const override {
    return {.value = TestKnobs().saturation};
  }
  void Apply(const RequestContext&, plugin::Candidates& c) const override {
    if (TestKnobs().saturation >= 1) c.numbers = {};
  }
  plugin::EmptyMeans empty_means() const override { return plugin::EmptyMeans::kSaturated; }
};

struct Discovery : plugin::Plugin, plugin::EndpointDiscovery {
  const plugin::FileSpec& file() const override { return spec; }
  base::Result<std::vector<fleet::EndpointSpec>> Read(std::string_view) const override {
    return std::vector<fleet::EndpointSpec>();
  }
  plugin::FileSpec spec;
};

struct TokenProducer : plugin::Plugin, plugin::DataProducer {
  base::Status Produce(RequestContext& r, std::span<const EndpointNumber>) override {
    auto* prompt = r.arena->New<plugin::TokenizedPrompt>();
    prompt->token_count = r.body->text_bytes / 4;
    r.attributes.Set(slot, static_cast<const plugin::TokenizedPrompt*>(prompt));
    return base::OkStatus();
  }
  plugin::Slot<plugin::TokenizedPrompt> slot;
};

// The endpoint numbered like the prompt's token count (modulo the fleet) holds all of it.
struct PrefixProducer : plugin::Plugin, plugin::DataProducer {
  base::Status Produce(RequestContext& r, std::span<const EndpointNumber> candidates) override {
    const auto* prompt = r.attributes.Get(tokens);
    if (!prompt) return base::Unavailable("no tokens");
    auto* info = r.arena->New<plugin::PrefixCacheMatchInfo>();
    const auto matched = r.arena->NewSpan<uint32_t>(candidates.back() + 1);
    info->total_blocks = 4;
    info->block_tokens = 16;
    matched[candidates[prompt->token_count % candidates.size()]] = 4;
    info->matched_blocks = matched;
    r.attributes.Set(slot, static_cast<const plugin::PrefixCacheMatchInfo*>(info));
    return base::OkStatus();
  }
  plugin::Slot<plugin::TokenizedPrompt> tokens;
  plugin::Slot<plugin::PrefixCacheMatchInfo> slot;
};

struct InFlightProducer : plugin::Plugin, plugin::DataProducer, plugin::PreRequest {
  base::Status Produce(RequestContext&, std::span<const EndpointNumber>) override {
    return base::OkStatus();
  }
  base::Status OnRouted(RequestContext&, const plugin::SchedulingResult& result,
                        plugin::BookingList* bookings) override {
    ++TestKnobs().routed;
    const EndpointNumber n = result.endpoints()[0].endpoint;
    std::atomic<int64_t>* tally = &TestKnobs().tally;
    bookings->Add({.counter = requests, .endpoint = n, .amount = 1, .tally = tally});
    bookings->Add({.counter = tokens,
                   .endpoint = n,
                   .amount = 10,
                   .until_first_token = true,
                   .tally = tally});
    return base::OkStatus();
  }
  fleet::CounterId requests = 0, tokens = 0;
};

struct Refuser : plugin::Plugin, plugin::PreRequest {
  base::Status OnRouted(RequestContext&, const plugin::SchedulingResult&,
                        plugin::BookingList*) override {
    const int code = TestKnobs().refuse;
    if (code == 0) return base::OkStatus();
    return base::Status(static_cast<base::StatusCode>(code), "refused");
  }
};

struct AgentHeader : plugin::Plugin, plugin::RequestHeaderProcessor {
  base::Status OnRequestHeaders(RequestContext& r) const override {
    const auto id = r.FindHeader("x-agent");
    if (!id) return base::OkStatus();
    if (*id == "bad") return base::Status(base::StatusCode::kPermissionDenied, "no such agent");
    auto* agent = r.arena->New<plugin::AgentIdentity>();
    agent->id = *id;
    r.attributes.Set(slot, static_cast<const plugin::AgentIdentity*>(agent));
    return base::OkStatus();
  }
  plugin::Slot<plugin::AgentIdentity> slot;
};

struct WaitingProducer : plugin::Plugin, plugin::DataProducer {
  base::Status Produce(RequestContext& r, std::span<const EndpointNumber> candidates) override {
    Knobs& knobs = TestKnobs();
    ++knobs.asked;
    if (!knobs.ready) {
      const auto step = std::chrono::milliseconds(10);
      r.wait_until = knobs.wait_backwards ? r.now - step : r.now + step;
      if (knobs.task) r.asked = knobs.task;
      return base::OkStatus();
    }
    auto* info = r.arena->New<plugin::PrefixCacheMatchInfo>();
    const auto matched = r.arena->NewSpan<uint32_t>(candidates.back() + 1);
    info->total_blocks = 4;
    info->block_tokens = 16;
    matched[candidates[0]] = 4;
    info->matched_blocks = matched;
    r.attributes.Set(slot, static_cast<const plugin::PrefixCacheMatchInfo*>(info));
    return base::OkStatus();
  }
  base::Duration wait_max() const override { return std::chrono::milliseconds(100); }
  void Abandon(RequestContext&) override { ++TestKnobs().abandoned; }
  plugin::Slot<plugin::PrefixCacheMatchInfo> slot;
};

struct HeaderSetter : plugin::Plugin, plugin::PreRequest {
  base::Status OnRouted(RequestContext& r, const plugin::SchedulingResult& result,
                        plugin::BookingList*) override {
    const EndpointNumber n = result.endpoints()[0].endpoint;
    if (TestKnobs().routed.fetch_add(1) == 0) r.SetHeader("x-first", "yes");
    r.SetHeader("x-target", std::to_string(8000 + n));
    return base::OkStatus();
  }
};

struct ReplyWatcher : plugin::Plugin, plugin::ResponseProcessor {
  void OnResponseHead(RequestContext& r, const plugin::ResponseHead& head,
                      plugin::HeaderEdits* to_client) override {
    Knobs::Watched& w = TestKnobs().watched;
    ++w.heads;
    w.served = head.served_endpoint.value_or("");
    for (const plugin::Header& h : head.headers)
      w.headers += base::Concat(h.name, "=", h.value, ";");
    to_client->Set(*r.arena, "x-served", head.served_endpoint.value_or(""));
  }
  void OnResponseEnd(RequestContext&, const plugin::ResponseEnd& end,
                     plugin::MetadataList* metadata) override {
    Knobs::Watched& w = TestKnobs().watched;
    ++w.ends;
    w.status = end.status;
    w.termination = end.termination;
    w.body_shown = end.body_shown;
    w.event_count = end.event_count;
    w.output_tokens = end.usage.completion_tokens;
    if (end.usage.present) {
      metadata->Set({.name_space = "envoy.lb", .name = "tokens", .value = w.output_tokens});
    }
  }
};

struct LabelFilter : plugin::Plugin, plugin::Filter {
  void Apply(const RequestContext&, plugin::Candidates& c) const override {
    c.KeepIf([](EndpointNumber n) { return n >= TestKnobs().keep; });
  }
};

struct Referrer : plugin::Plugin {
  const plugin::Scorer* other = nullptr;
};

struct CircularProducer : plugin::Plugin, plugin::DataProducer {
  base::Status Produce(RequestContext&, std::span<const EndpointNumber>) override {
    return base::OkStatus();
  }
};

template <class P, class... Args>
plugin::PluginType Simple(std::string type, Args... args) {
  return {.type = std::move(type),
          .factory = [args...](PluginContext& c) -> std::unique_ptr<plugin::Plugin> {
            ++TestKnobs().constructed;
            StringParams params;
            if (!c.ReadParameters(ParamsType(), &params)) return nullptr;
            return std::make_unique<P>(args...);
          }};
}

template <class Make>
plugin::PluginType Custom(std::string type, Make make, std::string_view default_of = "") {
  return {.type = std::move(type),
          .factory = [make](PluginContext& c) -> std::unique_ptr<plugin::Plugin> {
            ++TestKnobs().constructed;
            StringParams params;
            if (!c.ReadParameters(ParamsType(), &params)) return nullptr;
            return make(c, params);
          },
          .default_producer_of = std::string(default_of)};
}

std::unique_ptr<plugin::Plugin> MakeInFlight(PluginContext& c, const StringParams&) {
  auto p = std::make_unique<InFlightProducer>();
  for (fleet::CounterId* id : {&p->requests, &p->tokens}) {
    auto counter = c.AddCounter();
    if (!counter) {
      c.errors().Add(c.parameters(), counter.error().message());
      return nullptr;
    }
    *id = *counter;
  }
  return p;
}

void AddProducers(plugin::Catalogue& catalogue) {
  catalogue.Add(Custom(
      "token-producer",
      [](PluginContext& c, const StringParams&) {
        auto p = std::make_unique<TokenProducer>();
        p->slot = c.Produces<plugin::TokenizedPrompt>();
        return p;
      },
      plugin::TokenizedPrompt::kKey));
  catalogue.Add(Custom(
      "approx-prefix-cache-producer",
      [](PluginContext& c, const StringParams&) {
        auto p = std::make_unique<PrefixProducer>();
        p->slot = c.Produces<plugin::PrefixCacheMatchInfo>();
        p->tokens = c.Consumes<plugin::TokenizedPrompt>("");
        return p;
      },
      plugin::PrefixCacheMatchInfo::kKey));
  catalogue.Add(Custom("inflight-load-producer", MakeInFlight, plugin::InFlightLoad::kKey));
  catalogue.Add(Custom("circular-producer", [](PluginContext& c, const StringParams& params) {
    (void)c.Produces<plugin::TokenizedPrompt>();
    if (!params.reads.empty()) (void)c.Consumes<plugin::TokenizedPrompt>(params.reads);
    return std::make_unique<CircularProducer>();
  }));
}

plugin::Catalogue MakeCatalogue() {
  plugin::Catalogue catalogue;
  catalogue.Add(Simple<ColumnScorer>("queue-scorer", false));
  catalogue.Add(Simple<ColumnScorer>("kv-cache-utilization-scorer", true));
  catalogue.Add(Custom("prefix-cache-scorer", [](PluginContext& c, const StringParams& params) {
    return std::make_unique<PrefixScorer>(
        c.Consumes<plugin::PrefixCacheMatchInfo>(params.producer));
  }));
  catalogue.Add(Simple<BestPicker>("max-score-picker"));
  catalogue.Add(Simple<BestPicker>("random-picker"));
  catalogue.Add(Simple<Handler>("single-profile-handler", size_t{1}));
  catalogue.Add(Simple<Handler>("disagg-profile-handler", size_t{9}));
  catalogue.Add(Simple<Source>("metrics-data-source"));
  catalogue.Add(Simple<NoExtractor>("core-metrics-extractor"));
  catalogue.Add(Simple<ChatParser>("openai-parser"));
  catalogue.Add(Simple<AnyParser>("passthrough-parser"));
  catalogue.Add(Simple<Detector>("utilization-detector"));
  catalogue.Add(Custom("file-discovery", [](PluginContext&, const StringParams& params) {
    auto p = std::make_unique<Discovery>();
    p->spec.path = params.path;
    return p;
  }));
  AddProducers(catalogue);
  catalogue.Add(Simple<Refuser>("refuser"));
  catalogue.Add(Custom("agent-identity", [](PluginContext& c, const StringParams&) {
    auto p = std::make_unique<AgentHeader>();
    p->slot = c.Produces<plugin::AgentIdentity>();
    return p;
  }));
  catalogue.Add(Custom("waiting-producer", [](PluginContext& c, const StringParams&) {
    auto p = std::make_unique<WaitingProducer>();
    p->slot = c.Produces<plugin::PrefixCacheMatchInfo>();
    return p;
  }));
  catalogue.Add(Simple<HeaderSetter>("header-setter"));
  catalogue.Add(Simple<ReplyWatcher>("reply-watcher"));
  catalogue.Add(Simple<LabelFilter>("label-filter"));
  catalogue.Add(Custom("referrer", [](PluginContext& c, const StringParams& params) {
    auto p = std::make_unique<Referrer>();
    p->other = c.Reference<plugin::Scorer>(params.other);
    return p;
  }));
  plugin::PluginType alpha = Simple<ColumnScorer>("experimental-scorer", false);
  alpha.stability = plugin::Stability::kAlpha;
  catalogue.Add(std::move(alpha));
  plugin::PluginType old = Simple<ColumnScorer>("old-scorer", false);
  old.stability = plugin::Stability::kDeprecated;
  old.help = "Old name of queue-scorer.";
  catalogue.Add(std::move(old));
  catalogue.Add(Custom("broken", [](PluginContext&, const StringParams&) {
    return std::unique_ptr<plugin::Plugin>();
  }));
  catalogue.AddNotBuilt("latency-scorer");
  catalogue.AddNotBuilt("precise-prefix-cache-producer");
  catalogue.AddNotBuilt("anthropic-parser");
  return catalogue;
}

}  // namespace

const plugin::Catalogue& TestCatalogue() {
  static const plugin::Catalogue catalogue = MakeCatalogue();
  return catalogue;
}

Knobs& TestKnobs() {
  static Knobs knobs;
  return knobs;
}

Bed::Bed(size_t endpoints, DirectorOptions options)
    : fleet(2), metrics(2), records(2) {
  Knobs& knobs = TestKnobs();
  knobs.saturation = 0;
  knobs.refuse = knobs.asked = knobs.abandoned = knobs.routed = 0;
  knobs.ready = knobs.wait_backwards = false;
  knobs.task.reset();
  knobs.keep = 0;
  knobs.tally = 0;
  knobs.watched = {};
  SetEndpoints(endpoints);
  Load();
  director_ = std::make_unique<Director>(generations, fleet, metrics, records, options);
}

void Bed::SetEndpoints(size_t n) {
  std::vector<fleet::EndpointSpec> specs;
  for (size_t i = 0; i < n; ++i) {
    specs.push_back({.name = "e" + std::to_string(i), .address = "10.0.0.1",
                     .port = static_cast<uint16_t>(8000 + i), .labels = {}});
  }
  const base::Status set = fleet.SetMembers(std::move(specs), now - std::chrono::minutes(1));
  LLMD_CHECK(set.ok(), set.message());
}

void Bed::Load(std::string_view yaml) {
  auto compiled = Compile(yaml, "test.yaml", TestCatalogue(), fleet, {.endpoints_given = true},
                          generation.get());
  LLMD_CHECK(compiled.has_value(), compiled.error().message());
  generation = *compiled;
  generations.Publish(generation);
}

RequestHead Post(std::string_view path, std::span<const plugin::Header> headers) {
  return {.method = "POST", .path = path, .content_type = "application/json", .headers = headers,
          .request_id = "req-1", .peer = "10.1.1.1", .content_length = 100};
}

Decision Decide(Session& session, const Bed& bed, std::string_view body, RequestHead head) {
  if (session.OnHead(head, bed.now) != BodyPolicy::kNoBody) session.OnBody(body, bed.now);
  return session.OnBodyEnd(bed.now);
}

uint64_t Bugs() {
  uint64_t sum = 0;
  for (auto* site = base::FirstBugSite(); site; site = site->next) sum += site->count;
  return sum;
}

int64_t Bed::InFlight() const {
  int64_t sum = 0;
  for (fleet::CounterId c = 0; c < 3; ++c) {
    for (EndpointNumber n = 0; n < 64; ++n) sum += std::abs(fleet.CounterSum(c, n));
  }
  return sum;
}

}  // namespace llmd::director::testing
