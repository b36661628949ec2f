#include "index/door.h"

#include <utility>

#include "base/strings.h"
#include "protocol/error.h"

namespace llmd::index {
namespace {

using telemetry::MetricId;

enum Api : size_t { kHttp, kGrpc };

class TokenizeJob final : public plugin::OutsideJob {
 public:
  TokenizeJob(std::shared_ptr<const text::Tokenizer> tokenizer, std::string prompt)
      : tokenizer_(std::move(tokenizer)), prompt_(std::move(prompt)) {}
  base::Status Run() override {
    return tokenizer_->Encode(prompt_, /*add_special_tokens=*/true, tokens);
  }

  std::vector<uint32_t> tokens;

 private:
  const std::shared_ptr<const text::Tokenizer> tokenizer_;
  const std::string prompt_;
};

}  // namespace

// A query from its first byte to its answer; says how by Answer or Fail, once.
class Door::Asker : public control::OutsideWaiter {
 public:
  explicit Asker(Door& door, Api api) : door_(door), api_(api) {}
  virtual ~Asker() {
    if (job_) job_->Cancel();
    door_.outside_.Forget(*this);
    door_.lease_.Give(body_.size());
  }

  void OnOutsideEnd() override {
    const std::shared_ptr<TokenizeJob> job = std::move(job_);
    if (!job->status().ok()) return Refuse(job->status());
    query_.tokens = std::move(job->tokens);
    Ask();
  }

 protected:
  void Collect(std::string_view bytes) {
    if (over_budget_) return;
    over_budget_ = !door_.lease_.Take(bytes.size());
    if (!over_budget_) body_.append(bytes);
  }
  std::string_view body() const { return body_; }

  void Begin(base::Result<Query> query) {
    if (over_budget_) {
      return Refuse(base::ResourceExhausted("too many queries are held (--memory-budget)"));
    }
    if (!query) return Refuse(query.error());
    query_ = *std::move(query);
    if (query_.form != Query::Form::kPrompt) return Ask();
    const auto& tokenizer = door_.tokenizer_.GetShared();
    if (!tokenizer) {
      return Refuse(door_.shared_.tokenizes
                        ? base::Unavailable("the tokenizer is being loaded")
                        : base::FailedPrecondition("prompts as text need --tokenizer; or send "
                                                   "token ids to POST /query"));
    }
    job_ = std::make_shared<TokenizeJob>(tokenizer, std::move(query_.prompt));
    if (!door_.outside_.Begin(job_, *this)) Refuse(job_->status());
  }

  virtual void Answer(const std::vector<Instance>& instances, uint64_t blocks,
                      uint32_t block_tokens) = 0;
  virtual void Fail(const base::Status& status) = 0;

  Door& door_;

 private:
  void Refuse(const base::Status& status) {
    door_.refused_[api_].Add(door_.worker_);
    Fail(status);
  }

  void Ask() {
    plugin::PrefixQuery* asked = door_.Asked();
    if (!asked) {
      return Refuse(base::FailedPrecondition("the config has no precise-prefix-cache-producer"));
    }
    if (query_.form == Query::Form::kKeys && asked->key_algorithm() == "own") {
      return Refuse(base::FailedPrecondition(
          "block keys are private to this process: set hashAlgorithm (cbor-fnv or xxh64), or ask "
          "by token ids"));
    }
    const size_t blocks = query_.form == Query::Form::kKeys
                              ? query_.keys.size()
                              : query_.tokens.size() / asked->block_tokens();
    auto holdings = asked->Ask(query_.question(), door_.worker_, door_.loop_.now());
    door_.answered_[api_].Add(door_.worker_);
    Answer(InstancesOf(std::move(holdings), query_), blocks, asked->block_tokens());
  }

  const Api api_;
  std::string body_;
  bool over_budget_ = false;
  Query query_;
  std::shared_ptr<TokenizeJob> job_;
};

class Door::HttpAsker final : public Door::Asker, public net::ExchangeHandler {
 public:
  HttpAsker(Door& door, net::ServerExchange& exchange, bool by_hash)
      : Asker(door, kHttp), exchange_(exchange), by_hash_(by_hash) {}

  void OnBody(base::Slice piece) override { Collect(piece.view()); }
  void OnBodyEnd() override { Begin(ParseQuery(body(), by_hash_)); }
  void OnFinished() override { door_.TakeBack(this); }
  void OnClientGone(net::GoneReason) override { door_.TakeBack(this); }

 private:
  void Answer(const std::vector<Instance>& instances, uint64_t blocks,
              uint32_t block_tokens) override {
    exchange_.Respond(200, "application/json", AnswerJson(instances, blocks, block_tokens));
  }
  void Fail(const base::Status& status) override {
    exchange_.Respond(protocol::ErrorMappingOf(status.code()).http_status, "application/json",
                      protocol::ErrorBody(status));
  }

  net::ServerExchange& exchange_;
  const bool by_hash_;
};

class Door::GrpcAsker final : public Door::Asker, public net::GrpcHandler {
 public:
  GrpcAsker(Door& door, net::GrpcCall& call) : Asker(door, kGrpc), call_(call) {}

  // One message is all that a unary call has; further ones are not looked at.
  void OnMessagePiece(base::Slice piece, bool last) override {
    if (begun_) return;
    Collect(piece.view());
    if (!last) return;
    begun_ = true;
    Begin(ParsePodScoresRequest(body()));
  }
  void OnHalfClose() override {
    if (!begun_) call_.Finish(base::StatusCode::kInvalidArgument, "no message came");
  }
  void OnEnd(net::GrpcEnd) override { door_.TakeBack(this); }

 private:
  void Answer(const std::vector<Instance>& instances, uint64_t, uint32_t) override {
    call_.Send(PodScoresResponse(instances, &call_.buffers()));
    call_.Finish(base::StatusCode::kOk);
  }
  void Fail(const base::Status& status) override {
    call_.Finish(status.code(), status.message());
  }

  net::GrpcCall& call_;
  bool begun_ = false;
};

Door::Door(DoorShared& shared, size_t worker, runtime::EventLoop& loop)
    : shared_(shared),
      worker_(worker),
      loop_(loop),
      lease_(shared.state.budget),
      outside_(loop, *shared.state.outside, shared.state.metrics, worker),
      generation_(shared.state.generations),
      keys_(shared.keys),
      tokenizer_(shared.tokenizer) {
  telemetry::Metrics& metrics = shared.state.metrics;
  for (const Api api : {kHttp, kGrpc}) {
    const std::string_view name = api == kHttp ? "http" : "grpc";
    answered_[api] = metrics.Counter(MetricId::kIndexQueriesTotal, {name, "answered"});
    refused_[api] = metrics.Counter(MetricId::kIndexQueriesTotal, {name, "refused"});
  }
}

Door::~Door() = default;

base::Status Door::CheckKey(std::string_view authorization) {
  const control::ApiKeys* keys = keys_.Get();
  if (!keys || keys->Check(authorization)) return base::OkStatus();
  return {base::StatusCode::kUnauthenticated,
          authorization.empty() ? "an API key is required: Authorization: Bearer KEY"
                                : "unknown API key"};
}

plugin::PrefixQuery* Door::Asked() {
  const director::Generation* generation = generation_.Get();
  if (generation == asked_generation_) return asked_;
  asked_generation_ = generation;
  asked_ = nullptr;
  for (const director::LoadedPlugin& plugin : generation->plugins()) {
    if (auto* query = dynamic_cast<plugin::PrefixQuery*>(plugin.object.get())) asked_ = query;
  }
  return asked_;
}

net::ExchangeHandler* Door::OnRequest(net::ServerExchange& exchange) {
  const wire::RequestHead& head = exchange.head();
  const bool by_hash = head.path == "/query_by_hash";
  if (!by_hash && head.path != "/query") {
    refused_[kHttp].Add(worker_);
    exchange.Respond(404, "application/json",
                     protocol::ErrorBody(404, "ask with POST /query or POST /query_by_hash"));
    return nullptr;
  }
  base::Status fine = CheckKey(head.fields.Get(wire::HttpFieldId::kAuthorization));
  if (fine.ok() && head.method != wire::HttpMethod::kPost) {
    fine = base::Unimplemented("ask with POST");
  }
  if (!fine.ok()) {
    refused_[kHttp].Add(worker_);
    exchange.Respond(protocol::ErrorMappingOf(fine.code()).http_status, "application/json",
                     protocol::ErrorBody(fine));
    return nullptr;
  }
  auto asker = std::make_unique<HttpAsker>(*this, exchange, by_hash);
  HttpAsker* handler = asker.get();
  askers_[handler] = std::move(asker);
  return handler;
}

net::GrpcHandler* Door::OnCall(net::GrpcCall& call) {
  if (const base::Status fine = CheckKey(call.Metadata("authorization")); !fine.ok()) {
    refused_[kGrpc].Add(worker_);
    call.Finish(fine.code(), fine.message());
    return nullptr;
  }
  auto asker = std::make_unique<GrpcAsker>(*this, call);
  GrpcAsker* handler = asker.get();
  askers_[handler] = std::move(asker);
  return handler;
}

void Door::TakeBack(Asker* asker) { askers_.erase(asker); }

}  // namespace llmd::index
