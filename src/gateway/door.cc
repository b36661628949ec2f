#include "gateway/door.h"

#include <algorithm>

#include "base/strings.h"
#include "protocol/error.h"
#include "runtime/clock.h"

namespace llmd::gateway {
namespace {

using telemetry::MetricId;
using wire::HttpFieldId;
using wire::HttpMethod;

std::string_view LimitName(Limit limit) {
  switch (limit) {
    case Limit::kMemoryBudget: return "memory_budget";
    case Limit::kBodyBytes: return "body_bytes";
    case Limit::kHead: return "request_head";
    case Limit::kTimeout: return "timeout";
    case Limit::kCount: break;
  }
  return "";
}

director::DirectorOptions OptionsOf(const DoorShared& shared, size_t worker) {
  director::DirectorOptions options;
  options.worker = worker;
  options.pool_name = shared.state.pool_name;
  options.objects = &shared.state.objects;
  options.clock = &runtime::StageNow;
  options.tracer = shared.state.tracer.get();
  options.wall_clock_ns = [] { return runtime::WallNow().unix_ns; };
  return options;
}

// A protocol other than HTTP/1.1 cannot pass; "h2c" is only an offer, which RFC 9110 7.8 lets a
// server ignore, and common Java clients make it with every first request.
bool AsksForAnotherProtocol(const wire::RequestHead& head) {
  if (head.method == HttpMethod::kConnect) return true;
  return head.wants_upgrade && !wire::HttpListHas(head.fields.Get(HttpFieldId::kUpgrade), "h2c");
}

}  // namespace

Door::Door(DoorShared& shared, size_t worker, runtime::EventLoop& loop, uint64_t seed)
    : shared_(shared),
      worker_(worker),
      random_(seed),
      client_(loop),
      director_(shared.state.generations, shared.state.fleet, shared.state.metrics,
                shared.state.records, OptionsOf(shared, worker)),
      lease_(shared.state.budget),
      outside_(loop, *shared.state.outside, shared.state.metrics, worker),
      keys_(shared.keys),
      models_body_(shared.models_body) {
  for (size_t i = 0; i < std::size(limits_); ++i) {
    limits_[i] = shared.state.metrics.Counter(MetricId::kLimitHitsTotal, {LimitName(Limit(i))});
  }
  key_missing_ = shared.state.metrics.Counter(MetricId::kKeyRejectedTotal, {"missing"});
  key_unknown_ = shared.state.metrics.Counter(MetricId::kKeyRejectedTotal, {"unknown"});
}

Door::~Door() {
  LLMD_CHECK(active_relays() == 0, "a relay outlived its door: destroy the HTTP server first");
}

net::ExchangeHandler* Door::OnRequest(net::ServerExchange& exchange) {
  std::optional<size_t> key;
  if (Refuse(exchange, &key)) return nullptr;
  const wire::RequestHead& head = exchange.head();
  if (head.path == "/v1/models" && head.method == HttpMethod::kGet) {
    RespondModels(exchange);
    return nullptr;
  }
  if (idle_relays_.empty()) {
    relays_.push_back(std::make_unique<Relay>(*this));
    idle_relays_.push_back(relays_.back().get());
  }
  Relay* relay = idle_relays_.back();
  idle_relays_.pop_back();
  relay->Begin(exchange, key);
  return relay;
}

bool Door::Refuse(net::ServerExchange& exchange, std::optional<size_t>* key) {
  const wire::RequestHead& head = exchange.head();
  if (AsksForAnotherProtocol(head)) {
    Respond(exchange, 501, "the gateway speaks HTTP/1.1 only: CONNECT and protocol upgrades are "
                           "not relayed");
    return true;
  }
  const control::ApiKeys* keys = keys_.Get();
  if (!keys) return false;
  const std::string_view shown = head.fields.Get(HttpFieldId::kAuthorization);
  *key = keys->Check(shown);
  if (key->has_value()) return false;
  (shown.empty() ? key_missing_ : key_unknown_).Add(worker_);
  Respond(exchange, 401,
          shown.empty() ? "an API key is required: Authorization: Bearer KEY" : "unknown API key",
          "www-authenticate: Bearer\r\n");
  return true;
}

void Door::Respond(net::ServerExchange& exchange, int status, std::string_view message,
                   std::string_view extra_lines) {
  OutcomeCounter("refused", status).Add(worker_);
  exchange.Respond(status, "application/json", protocol::ErrorBody(status, message), extra_lines);
}

void Door::RespondModels(net::ServerExchange& exchange) {
  if (const std::string* body = models_body_.Get()) {
    OutcomeCounter("ok", 200).Add(worker_);
    exchange.Respond(200, "application/json", *body);
    return;
  }
  Respond(exchange, 503, "no model server has told its models yet",
          base::Concat("retry-after: 1\r\n", protocol::kDroppedReasonHeader, ": ",
                       protocol::kRejectedNoEndpoints, "\r\n"));
}

void Door::OnBadRequest(int status, std::string_view reason) {
  OutcomeCounter("bad_request", status).Add(worker_);
  if (status == 413) {
    CountLimit(Limit::kBodyBytes);
  } else if (status == 431 || status == 414) {
    CountLimit(Limit::kHead);
  } else if (status == 408) {
    CountLimit(Limit::kTimeout);
  }
  LLMD_LOG(kVerbose, "refused a request", {"status", status}, {"reason", reason});
}

void Door::SetBackends(const control::Backends& backends) {
  std::vector<Target> next;
  for (const control::Backend& backend : backends) {
    if (backend.number >= next.size()) next.resize(backend.number + 1);
    Target& target = next[backend.number];
    target.address = backend.target.address;
    target.generation = backend.generation;
    if (backend.number < targets_.size()) {
      Target& old = targets_[backend.number];
      if (old.target && old.generation == target.generation && old.address == target.address) {
        target.target = std::exchange(old.target, nullptr);
        continue;
      }
    }
    target.target = client_.AddTarget(backend.target);
  }
  for (const Target& old : targets_) {
    if (old.target) client_.RemoveTarget(old.target);
  }
  targets_ = std::move(next);
}

std::string_view Door::KeyName(size_t key) {
  // A reload while the request ran may have changed the list.
  const control::ApiKeys* keys = keys_.Get();
  return keys && key < keys->size() ? std::string_view(keys->name(key)) : std::string_view();
}

void Door::CountLimit(Limit limit) { limits_[static_cast<size_t>(limit)].Add(worker_); }

// Outcomes are a dozen literals times five status classes: a short scan by pointer and class.
const telemetry::CounterHandle& Door::OutcomeCounter(std::string_view outcome, int status) {
  const int status_class = status / 100;
  for (const OutcomeEntry& entry : outcomes_) {
    if (entry.status_class == status_class && entry.outcome == outcome) return entry.counter;
  }
  const std::string label =
      status_class ? base::Concat(std::to_string(status_class), "xx") : "none";
  outcomes_.push_back({outcome, status_class,
                       shared_.state.metrics.Counter(MetricId::kOutcomesTotal, {outcome, label})});
  return outcomes_.back().counter;
}

void Door::Finished(const telemetry::AccessRecord& record, std::optional<size_t> key) {
  OutcomeCounter(record.outcome, record.status).Add(worker_);
  if (key) {
    const control::ApiKeys* keys = keys_.Get();
    if (keys != counted_keys_) {
      counted_keys_ = keys;
      key_counters_.clear();
      for (size_t i = 0; keys && i < keys->size(); ++i) {
        key_counters_.push_back(
            {shared_.state.metrics.Counter(MetricId::kKeyRequestsTotal, {keys->name(i)}),
             shared_.state.metrics.Counter(MetricId::kKeyTokensTotal, {keys->name(i), "input"}),
             shared_.state.metrics.Counter(MetricId::kKeyTokensTotal, {keys->name(i), "output"})});
      }
    }
    if (*key < key_counters_.size()) {
      const KeyCounters& counters = key_counters_[*key];
      counters.requests.Add(worker_);
      if (record.input_tokens > 0) counters.input_tokens.Add(worker_, record.input_tokens);
      if (record.output_tokens > 0) counters.output_tokens.Add(worker_, record.output_tokens);
    }
  }
  if (!shared_.access_log) return;
  char line[telemetry::kAccessLineMax];
  shared_.access_log->Write(telemetry::LogLevel::kInfo,
                            telemetry::EncodeAccessLine(record, shared_.log_format, line));
}

void Door::TakeBack(Relay* relay) { idle_relays_.push_back(relay); }

}  // namespace llmd::gateway
