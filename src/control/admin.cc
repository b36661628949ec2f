#include "control/admin.h"

#include <cmath>

#include "base/strings.h"
#include "director/explain.h"
#include "plugin/events.h"
#include "runtime/clock.h"
#include "telemetry/log.h"

namespace llmd::control {
namespace {

using telemetry::MetricId;
using wire::HttpMethod;

constexpr size_t kDecisionsShownMax = 1000;

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') return (c | 0x20) - 'a' + 10;
  return -1;
}

std::string PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+') {
      out.push_back(' ');
    } else if (text[i] == '%' && i + 2 < text.size() && HexValue(text[i + 1]) >= 0 &&
               HexValue(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(HexValue(text[i + 1]) << 4 | HexValue(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

void RespondText(net::ServerExchange& exchange, int status, std::string_view text) {
  exchange.Respond(status, "text/plain; charset=utf-8", text);
}

void RespondJson(net::ServerExchange& exchange, std::string_view body) {
  exchange.Respond(200, "application/json", body);
}

struct Spread {
  double mean = 0, deviation = 0;
};

Spread SpreadOf(std::span<const fleet::EndpointNumber> members, const float* column) {
  if (members.empty()) return {};
  double sum = 0, squares = 0;
  for (const fleet::EndpointNumber n : members) {
    sum += column[n];
    squares += static_cast<double>(column[n]) * column[n];
  }
  const double count = static_cast<double>(members.size());
  const double mean = sum / count;
  return {mean, std::sqrt(std::max(0.0, squares / count - mean * mean))};
}

std::string_view StateName(fleet::Health::State state) {
  switch (state) {
    case fleet::Health::State::kSlowStart: return "slow-start";
    case fleet::Health::State::kHealthy: return "healthy";
    case fleet::Health::State::kEjected: return "ejected";
  }
  return "";
}

}  // namespace

std::vector<std::string> QueryValues(std::string_view query, std::string_view key) {
  std::vector<std::string> values;
  for (const std::string_view pair : base::Split(query, '&')) {
    const size_t equals = std::min(pair.find('='), pair.size());
    if (PercentDecode(pair.substr(0, equals)) != key) continue;
    values.push_back(PercentDecode(pair.substr(std::min(equals + 1, pair.size()))));
  }
  return values;
}

std::string QueryValue(std::string_view query, std::string_view key) {
  std::vector<std::string> values = QueryValues(query, key);
  return values.empty() ? std::string() : std::move(values.front());
}

Admin::Admin(State& state, runtime::EventLoop& loop, base::Duration staleness)
    : state_(state),
      loop_(loop),
      staleness_(staleness),
      view_(state.fleet, state.worker_count) {
  pool_gauges_ = state.metrics.AddCollector(
      [this](telemetry::ScrapeSeries& series) { CollectPool(series); });
}

Admin::~Admin() = default;

std::span<const Admin::Page> Admin::Pages() {
  static constexpr Page kPages[] = {
      {"/", "this list", &Admin::Index},
      {"/metrics", "Prometheus metrics; ?name[]=FAMILY for some only", &Admin::Metrics},
      {"/healthz", "200 while the process runs", &Admin::Healthz},
      {"/readyz", "200 when requests can be served; 503 with the reason else", &Admin::Readyz},
      {"/debug/decisions", "why requests went where they went: ?last=20 or ?id=REQUEST_ID",
       &Admin::Decisions},
      {"/debug/endpoints", "what is known of each endpoint, and how old it is", &Admin::Endpoints},
      {"/debug/config", "the effective configuration", &Admin::Config},
      {"/debug/plugins/state", "state of the plugins that show theirs", &Admin::Plugins},
      {"/debug/kv-events", "who publishes KV events, how far they were applied, how far trusted",
       &Admin::KvEvents},
      {"/debug/log-level", "GET shows, PUT ?level=0..5 or a name changes it", &Admin::LogLevel},
  };
  return kPages;
}

net::ExchangeHandler* Admin::OnRequest(net::ServerExchange& exchange) {
  const wire::RequestHead& head = exchange.head();
  for (const Page& page : Pages()) {
    if (page.path != head.path) continue;
    const bool changes = page.write == &Admin::LogLevel && head.method == HttpMethod::kPut;
    if (head.method != HttpMethod::kGet && head.method != HttpMethod::kHead && !changes) {
      RespondText(exchange, 405, "method not allowed\n");
    } else {
      (this->*page.write)(exchange);
    }
    return nullptr;
  }
  RespondText(exchange, 404, "no such page; GET / lists them\n");
  return nullptr;
}

void Admin::Index(net::ServerExchange& exchange) {
  std::string text = "llmd\n\n";
  for (const Page& page : Pages()) {
    text.append(page.path).append(std::max<size_t>(24 - page.path.size(), 1), ' ');
    text.append(page.help).append("\n");
  }
  RespondText(exchange, 200, text);
}

void Admin::Metrics(net::ServerExchange& exchange) {
  const std::vector<std::string> wanted = QueryValues(exchange.head().query, "name[]");
  const std::vector<std::string_view> names(wanted.begin(), wanted.end());
  page_.clear();
  state_.metrics.WriteText(&page_, names);
  exchange.Respond(200, telemetry::kExpositionContentType, page_);
}

void Admin::Healthz(net::ServerExchange& exchange) { RespondText(exchange, 200, "ok\n"); }

void Admin::Readyz(net::ServerExchange& exchange) {
  if (state_.draining.load(std::memory_order_relaxed)) {
    RespondText(exchange, 503, "draining\n");
  } else if (state_.fleet.members()->numbers.empty()) {
    RespondText(exchange, 503, "no endpoints\n");
  } else {
    RespondText(exchange, 200, "ready\n");
  }
}

void Admin::Decisions(net::ServerExchange& exchange) {
  const std::string_view query = exchange.head().query;
  const std::shared_ptr<const director::Generation> generation = state_.generations.Current();
  const auto members = state_.fleet.members();
  const std::string id = QueryValue(query, "id");
  std::vector<director::DecisionRecord> records;
  if (!id.empty()) {
    if (auto record = state_.records.Find(id)) records.push_back(*record);
  } else {
    const std::string last = QueryValue(query, "last");
    const int64_t count = last.empty() ? 20 : base::ParseInt(last).value_or(0);
    if (count < 1 || count > static_cast<int64_t>(kDecisionsShownMax)) {
      RespondText(exchange, 400, "last must be a number from 1 to 1000\n");
      return;
    }
    records = state_.records.Last(static_cast<size_t>(count));
  }
  RespondJson(exchange, director::ExplainRecords(records, *generation, *members));
}

void Admin::Endpoints(net::ServerExchange& exchange) {
  const base::TimePoint now = loop_.now();
  view_.Refresh(now);
  std::string json = "[";
  for (const fleet::EndpointNumber n : view_.members()) {
    const fleet::Endpoint& endpoint = view_.endpoint(n);
    if (json.size() > 1) json.push_back(',');
    json.append("{\"name\":");
    base::AppendJsonString(&json, endpoint.spec.name);
    json.append(",\"namespace\":");
    base::AppendJsonString(&json, endpoint.spec.name_space);
    json.append(",\"address\":");
    base::AppendJsonString(&json, endpoint.host_port);
    json.append(",\"labels\":{");
    for (size_t i = 0; i < endpoint.spec.labels.size(); ++i) {
      if (i > 0) json.push_back(',');
      base::AppendJsonString(&json, endpoint.spec.labels[i].first);
      json.push_back(':');
      base::AppendJsonString(&json, endpoint.spec.labels[i].second);
    }
    const base::TimePoint reported = view_.reported_at()[n];
    char numbers[384];
    std::snprintf(numbers, sizeof(numbers),
                  "},\"draining\":%s,\"health\":\"%s\",\"waiting\":%.9g,\"running\":%.9g,"
                  "\"kv_usage\":%.6g,\"in_flight\":%lld,\"load_age_ms\":%.1f,"
                  "\"block_tokens\":%u,\"block_count\":%u}",
                  endpoint.spec.draining ? "true" : "false",
                  std::string(StateName(state_.fleet.health(n).state(now))).c_str(),
                  view_.waiting()[n], view_.running()[n], view_.kv_usage()[n],
                  static_cast<long long>(view_.counter(fleet::kRequestsInFlight)[n]),
                  reported == base::TimePoint{} ? -1.0 : base::ToSeconds(now - reported) * 1e3,
                  view_.block_tokens()[n], view_.block_count()[n]);
    json.append(numbers);
  }
  RespondJson(exchange, json.append("]"));
}

void Admin::Config(net::ServerExchange& exchange) {
  const std::shared_ptr<const director::Generation> generation = state_.generations.Current();
  exchange.Respond(200, "application/yaml", generation->effective_yaml());
}

void Admin::Plugins(net::ServerExchange& exchange) {
  const std::shared_ptr<const director::Generation> generation = state_.generations.Current();
  std::string json = "{\"timestamp\":";
  json.append(std::to_string(runtime::WallNow().unix_ns / 1'000'000'000)).append(",\"plugins\":{");
  bool first = true;
  for (const director::LoadedPlugin& plugin : generation->plugins()) {
    const std::string state = plugin.object->DumpState();
    if (state.empty()) continue;
    if (!std::exchange(first, false)) json.push_back(',');
    base::AppendJsonString(&json, plugin.object->name());
    json.append(":{\"type\":");
    base::AppendJsonString(&json, plugin.object->type());
    json.append(",\"state\":").append(state).append("}");
  }
  RespondJson(exchange, json.append("}}"));
}

void Admin::KvEvents(net::ServerExchange& exchange) {
  const std::shared_ptr<const director::Generation> generation = state_.generations.Current();
  std::string json = "{";
  for (const director::LoadedPlugin& loaded : generation->plugins()) {
    const auto* consumer = dynamic_cast<const plugin::EventConsumer*>(loaded.object.get());
    if (!consumer) continue;
    if (json.size() > 1) json.push_back(',');
    base::AppendJsonString(&json, loaded.object->name());
    json.append(":").append(consumer->DumpPublishers());
  }
  RespondJson(exchange, json.append("}"));
}

void Admin::LogLevel(net::ServerExchange& exchange) {
  if (exchange.head().method == HttpMethod::kPut) {
    const auto level = telemetry::ParseLogLevel(QueryValue(exchange.head().query, "level"));
    if (!level) {
      RespondText(exchange, 400,
                  "level must be error, warn, info, verbose, debug, trace or 0..5\n");
      return;
    }
    telemetry::SetLogLevel(*level);
  }
  RespondText(exchange, 200,
              base::Concat(telemetry::LogLevelName(telemetry::CurrentLogLevel()), "\n"));
}

void Admin::CollectPool(telemetry::ScrapeSeries& series) {
  view_.Refresh(loop_.now());
  std::vector<fleet::EndpointNumber> members;
  for (const fleet::EndpointNumber n : view_.members()) {
    if (loop_.now() - view_.reported_at()[n] <= staleness_) members.push_back(n);
  }
  const std::string_view pool = state_.pool_name;
  const Spread kv = SpreadOf(members, view_.kv_usage());
  const Spread queue = SpreadOf(members, view_.waiting());
  const Spread running = SpreadOf(members, view_.running());
  series.Set(MetricId::kAverageKvCacheUtilization, {pool}, kv.mean);
  series.Set(MetricId::kStdDevKvCacheUtilization, {pool}, kv.deviation);
  series.Set(MetricId::kAverageQueueSize, {pool}, queue.mean);
  series.Set(MetricId::kStdDevQueueSize, {pool}, queue.deviation);
  series.Set(MetricId::kAverageRunningRequests, {pool}, running.mean);
  series.Set(MetricId::kStdDevRunningRequests, {pool}, running.deviation);
  series.Set(MetricId::kReadyEndpoints, {pool}, static_cast<double>(members.size()));
  size_t ejected = 0;
  for (const fleet::EndpointNumber n : view_.members()) {
    series.Set(MetricId::kPerEndpointQueueSize, {pool, view_.endpoint(n).spec.name},
               view_.waiting()[n]);
    ejected += state_.fleet.health(n).state(loop_.now()) == fleet::Health::State::kEjected;
  }
  const std::shared_ptr<const director::Generation> generation = state_.generations.Current();
  for (const director::LoadedPlugin& plugin : generation->plugins()) {
    plugin.object->CollectMetrics(series);
  }
  const auto saturation = generation->saturation().Measure(view_, view_.members(), loop_.now());
  const uint32_t detector = generation->saturation_plugin();
  series.Set(MetricId::kFlowControlPoolSaturation, {pool, "effective"}, saturation.value);
  series.Set(MetricId::kFlowControlStaleEndpoints,
             {generation->plugins()[detector].object->name()}, saturation.stale_endpoints);
  series.Set(MetricId::kEndpointsEjected, {}, static_cast<double>(ejected));
  series.Set(MetricId::kMemoryBudgetBytes, {}, static_cast<double>(state_.budget.limit_bytes()));
  series.Set(MetricId::kMemoryHeldBytes, {}, static_cast<double>(state_.budget.leased_bytes()));
}

}  // namespace llmd::control
