#include "sim/sim_server.h"

#include <algorithm>

#include "base/hash.h"
#include "base/strings.h"
#include "runtime/clock.h"
#include "sim/reply.h"
#include "wire/http1.h"

namespace llmd::sim {
namespace {

using base::TimePoint;

constexpr std::string_view kJson = "application/json";
// Longer ids of clients are not taken over.
constexpr size_t kRequestIdBytesMax = 256;

std::string Hex(uint64_t value, int digits) {
  std::string out(static_cast<size_t>(digits), '0');
  for (int i = digits; i-- > 0; value >>= 4) {
    out[static_cast<size_t>(i)] = "0123456789abcdef"[value & 15];
  }
  return out;
}

}  // namespace

struct SimServer::RouteRow {
  std::string_view path;
  std::string_view method;
  void (SimServer::*serve)(net::ServerExchange&) = nullptr;  // what needs no body
  Route route = Route::kChat;                                // what does
  bool render = false;
};

base::Result<std::unique_ptr<SimServer>> SimServer::Create(runtime::EventLoop& loop,
                                                           const ServerConfig& config) {
  LLMD_ASSIGN_OR_RETURN(auto engine, engine::Engine::Create(config.engine));
  return std::unique_ptr<SimServer>(new SimServer(loop, config, std::move(engine)));
}

SimServer::SimServer(runtime::EventLoop& loop, const ServerConfig& config,
                     std::unique_ptr<engine::Engine> engine)
    : loop_(loop),
      config_(config),
      engine_(std::move(engine)),
      origin_(runtime::Now()),
      started_wall_(runtime::WallNow()),
      metrics_(config.engine.model_tokens_max),
      page_(metrics_, config.served[0], config.engine, started_wall_),
      random_(config.seed),
      fingerprint_(base::Concat("vllm-", kVllmVersion, "-", Hex(base::Hash64(config.model), 8))),
      timer_(loop, [this] { OnTurnEnd(); }) {
  net::HttpServerOptions options;
  options.body_bytes_max = config.body_bytes_max;
  options.server_name = "uvicorn";
  http_ = std::make_unique<net::HttpServer>(loop, *this, std::move(options));
}

SimServer::~SimServer() { http_.reset(); }

base::Result<uint16_t> SimServer::Listen(const runtime::SocketAddress& address) {
  return http_->Listen(address);
}

// --- routes --------------------------------------------------------------------------------------

net::ExchangeHandler* SimServer::OnRequest(net::ServerExchange& exchange) {
  static constexpr RouteRow kRoutes[] = {
      {"/v1/chat/completions", "POST", nullptr, Route::kChat},
      {"/v1/completions", "POST", nullptr, Route::kCompletions},
      {"/v1/chat/completions/render", "POST", nullptr, Route::kChat, true},
      {"/v1/completions/render", "POST", nullptr, Route::kCompletions, true},
      {"/tokenize", "POST", nullptr, Route::kTokenize},
      {"/reset_prefix_cache", "POST", &SimServer::ServeResetPrefixCache},
      {"/kv_event_sources", "GET", &SimServer::ServeKvEventSources},
      {"/metrics", "GET", &SimServer::ServeMetrics},
      {"/metrics/", "GET", &SimServer::ServeMetrics},
      {"/v1/models", "GET", &SimServer::ServeModels},
      {"/health", "GET", &SimServer::ServeHealth},
      {"/health/ready", "GET", &SimServer::ServeReady},
      {"/version", "GET", &SimServer::ServeVersion},
      {"/load", "GET", &SimServer::ServeLoad},
  };
  const wire::RequestHead& head = exchange.head();
  for (const RouteRow& row : kRoutes) {
    if (row.path != head.path) continue;
    if (row.method != head.method_name) {
      exchange.Respond(405, kJson, "{\"detail\":\"Method Not Allowed\"}",
                       base::Concat("allow: ", row.method, "\r\n", ReplyLines(exchange)));
      return nullptr;
    }
    if (row.serve == nullptr) {
      completions_.push_back(std::make_unique<Completion>(*this, exchange, row.route,
                                                            row.render));
      completions_.back()->set_slot(completions_.size() - 1);
      return completions_.back().get();
    }
    (this->*row.serve)(exchange);
    return nullptr;
  }
  Respond(exchange, 404, "{\"detail\":\"Not Found\"}");
  return nullptr;
}

void SimServer::Release(Completion* completion) {
  std::erase(dirty_, completion);
  const size_t slot = completion->slot();
  std::swap(completions_[slot], completions_.back());
  completions_[slot]->set_slot(slot);
  completions_.pop_back();
}

std::string SimServer::RequestIdOf(const net::ServerExchange& exchange, int digits) {
  const std::string_view given = exchange.head().fields.Get(wire::HttpFieldId::kXRequestId);
  if (!given.empty() && given.size() <= kRequestIdBytesMax) return std::string(given);
  std::string id = Hex(random_.Next(), std::min(digits, 16));
  if (digits > 16) id += Hex(random_.Next(), digits - 16);
  return id;
}

std::string_view SimServer::ReplyLines(const net::ServerExchange& exchange) {
  lines_ = base::Concat("vary: Origin\r\nx-request-id: ", RequestIdOf(exchange, 32), "\r\n");
  return lines_;
}

void SimServer::Respond(net::ServerExchange& exchange, int status, std::string_view json) {
  exchange.Respond(status, kJson, json, ReplyLines(exchange));
}

void SimServer::ServeHealth(net::ServerExchange& exchange) {
  exchange.Respond(200, "", "", ReplyLines(exchange));
}

void SimServer::ServeReady(net::ServerExchange& exchange) {
  const bool ready = loop_.now() - origin_ >= config_.startup;
  exchange.Respond(ready ? 200 : 503, "", "", ReplyLines(exchange));
}

void SimServer::ServeVersion(net::ServerExchange& exchange) {
  Respond(exchange, 200, base::Concat("{\"version\":\"", kVllmVersion, "\"}"));
}

void SimServer::ServeLoad(net::ServerExchange& exchange) {
  const engine::EngineStats stats = engine_->stats();
  Respond(exchange, 200, base::Concat("{\"server_load\":",
                                      std::to_string(stats.running + stats.waiting), "}"));
}

void SimServer::ServeModels(net::ServerExchange& exchange) {
  const std::string created = std::to_string(started_wall_.unix_ns / 1000000000);
  std::string out = "{\"object\":\"list\",\"data\":[";
  for (size_t i = 0; i < config_.served.size(); ++i) {
    out += i > 0 ? ",{\"id\":" : "{\"id\":";
    base::AppendJsonString(&out, config_.served[i]);
    out += base::Concat(",\"object\":\"model\",\"created\":", created,
                        ",\"owned_by\":\"vllm\",\"root\":");
    base::AppendJsonString(&out, config_.model);
    out += base::Concat(
        ",\"parent\":null,\"max_model_len\":", std::to_string(config_.engine.model_tokens_max),
        ",\"permission\":[{\"id\":\"modelperm-", Hex(random_.Next(), 16),
        "\",\"object\":\"model_permission\",\"created\":", created,
        ",\"allow_create_engine\":false,\"allow_sampling\":true,\"allow_logprobs\":true,"
        "\"allow_search_indices\":false,\"allow_view\":true,\"allow_fine_tuning\":false,"
        "\"organization\":\"*\",\"group\":null,\"is_blocking\":false}]}");
  }
  out += "]}";
  Respond(exchange, 200, out);
}

void SimServer::ServeMetrics(net::ServerExchange& exchange) {
  static constexpr std::string_view kType = "text/plain; version=0.0.4; charset=utf-8";
  if (config_.metrics_page) {
    exchange.Respond(200, kType, *config_.metrics_page, ReplyLines(exchange));
    return;
  }
  CatchUp();
  metrics_.Refresh(engine_->stats(), engine_->kv_usage());
  exchange.Respond(200, kType, page_.Write(exchange.head().query), ReplyLines(exchange));
}

void SimServer::ServeKvEventSources(net::ServerExchange& exchange) {
  Respond(exchange, 200, kv_events_ ? kv_events_->DescribeJson() : "{}");
}

// As vLLM: 200 whether or not there was something to forget; nothing is forgotten while requests
// run, and the event goes out with the next step.
void SimServer::ServeResetPrefixCache(net::ServerExchange& exchange) {
  CatchUp();
  const std::string query = base::ToLower(exchange.head().query);
  engine_->ResetPrefixCache(query.contains("reset_external=true"));
  exchange.Respond(200, "", "", ReplyLines(exchange));
}

base::Status SimServer::PublishKvEvents(net::ZmqContext& context, uint32_t index,
                                        std::string topic) {
  LLMD_ASSIGN_OR_RETURN(kv_events_,
                        KvEventPublisher::Create(context, config_.kv_events, index,
                                                 std::move(topic), config_.engine.block_tokens,
                                                 engine_->digest_bytes()));
  return base::OkStatus();
}

bool SimServer::Serves(std::string_view model) const {
  return std::ranges::find(config_.served, model) != config_.served.end();
}

std::string SimServer::ValidAliases() const { return base::Join(config_.served, ", "); }

bool SimServer::DrawFailure(ApiError* error) {
  if (config_.failure_percent == 0 || random_.Below(100) >= config_.failure_percent) return false;
  const std::string& model = config_.served[0];
  switch (config_.failure_types[random_.Below(config_.failure_types.size())]) {
    case FailureType::kRateLimit:
      *error = {429, "RateLimitError", base::Concat("Too many requests for ", model, "."), ""};
      break;
    case FailureType::kInvalidApiKey:
      *error = {401, "AuthenticationError", "The API key is not valid.", ""};
      break;
    case FailureType::kContextLength:
      *error = {400, "BadRequestError",
                base::Concat("The messages are longer than the ",
                             std::to_string(config_.engine.model_tokens_max),
                             " tokens of this model's context."), "messages"};
      break;
    case FailureType::kServerError:
      *error = {503, "InternalServerError", "The server is overloaded.", ""};
      break;
    case FailureType::kInvalidRequest:
      *error = {400, "BadRequestError", "The request lacks the parameter 'model'.", "model"};
      break;
    case FailureType::kModelNotFound:
      *error = {404, "NotFoundError", base::Concat("The model `", model, "` does not exist."),
                "model"};
      break;
  }
  return true;
}

// --- time ----------------------------------------------------------------------------------------

TimePoint SimServer::ToVirtual(TimePoint real) const {
  return origin_ + base::Duration(static_cast<int64_t>(
                       static_cast<double>((real - origin_).count()) * config_.speedup));
}

TimePoint SimServer::ToReal(TimePoint simulated) const {
  // Rounded up: a timer that fires a nanosecond early would find nothing due.
  return origin_ + base::Duration(static_cast<int64_t>(
                       static_cast<double>((simulated - origin_).count()) / config_.speedup) + 1);
}

TimePoint SimServer::CatchUp() {
  const TimePoint now = ToVirtual(std::max(loop_.now(), origin_));
  RunDueSteps(now);
  if (!dirty_.empty()) StepSoon();
  return now;
}

void SimServer::RunDueSteps(TimePoint now) {
  while (engine_->next_step_at() <= now) HandleStep(engine_->Step());
}

void SimServer::HandleStep(const engine::StepResult& step) {
  uint64_t first_tokens = 0;
  for (const engine::TokenEvent& event : step.tokens) {
    auto* choice = reinterpret_cast<Completion::Choice*>(event.tag);
    first_tokens += event.index == 0;
    if (choice->owner->OnToken(choice, step.at)) dirty_.push_back(choice->owner);
  }
  for (const engine::RequestReport& report : step.finished) {
    auto* choice = reinterpret_cast<Completion::Choice*>(report.tag);
    if (choice->owner->OnChoiceFinished(choice, report)) dirty_.push_back(choice->owner);
  }
  if (kv_events_) kv_events_->Publish(step.cache_changes, loop_.wall_now());
  if (step.computed_tokens > 0) {
    metrics_.iteration_tokens.Observe(static_cast<double>(step.computed_tokens + first_tokens));
  }
}

void SimServer::OnTurnEnd() {
  RunDueSteps(ToVirtual(std::max(loop_.now(), origin_)));
  // No exchange can end while its completion is pumped: the server tells of ends later in the turn.
  for (Completion* completion : dirty_) completion->Pump();
  dirty_.clear();
  ArmTimer();
}

void SimServer::ArmTimer() {
  const TimePoint next = engine_->next_step_at();
  if (next == engine::Engine::kNever) {
    timer_.Disarm();
  } else {
    timer_.ArmAt(ToReal(next));
  }
}

}  // namespace llmd::sim
