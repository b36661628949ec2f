#include "sim/completion.h"

#include <algorithm>

#include "base/hash.h"
#include "base/strings.h"
#include "engine/tokens.h"
#include "sim/length.h"
#include "sim/render.h"
#include "sim/sim_server.h"
#include "wire/http1.h"

namespace llmd::sim {
namespace {

// vLLM's default for completions, and ours for chats in fixed mode.
constexpr uint32_t kTokensDefault = 16;
// A stream's buffer per pump; what is over waits until the client has read.
constexpr size_t kPumpBytesMax = 256 << 10;

ApiError BadRequest(std::string message, std::string param) {
  return {.status = 400, .type = "BadRequestError", .message = std::move(message),
          .param = std::move(param)};
}

// What vLLM refuses because of lengths, in its words.
std::optional<ApiError> CheckLengths(std::optional<int64_t> max_tokens, size_t prompt,
                                     uint32_t limit) {
  const std::string limit_text = std::to_string(limit);
  if (max_tokens && *max_tokens < 1) {
    const std::string value = std::to_string(*max_tokens);
    return BadRequest(base::Concat("max_tokens must be at least 1, got ", value,
                                   ". (parameter=max_tokens, value=", value, ")"), "max_tokens");
  }
  if (max_tokens && *max_tokens > limit) {
    const std::string value = std::to_string(*max_tokens);
    return BadRequest(base::Concat("max_tokens=", value, " cannot be greater than max_model_len=",
                                   limit_text, ". Please request fewer output tokens. ",
                                   "(parameter=max_tokens, value=", value, ")"), "max_tokens");
  }
  if (prompt == 0) return BadRequest("The decoder prompt cannot be empty", "prompt");
  const std::string intro =
      base::Concat("This model's maximum context length is ", limit_text, " tokens. However, you");
  if (prompt > limit || (prompt == limit && !max_tokens)) {
    // The tokenizer stops one token behind the limit, hence "at least".
    const std::string value = std::to_string(prompt > limit ? limit + 1 : limit);
    return BadRequest(
        base::Concat(intro, "r prompt contains at least ", value, " input tokens, which exceeds ",
                     "this limit even without any output tokens. Please reduce the length of the ",
                     "input prompt. (parameter=input_tokens, value=", value, ")"),
        "input_tokens");
  }
  if (max_tokens && prompt + static_cast<size_t>(*max_tokens) > limit) {
    const std::string value = std::to_string(prompt);
    const std::string total = std::to_string(prompt + static_cast<size_t>(*max_tokens));
    return BadRequest(
        base::Concat(intro, " requested ", std::to_string(*max_tokens), " output tokens and your ",
                     "prompt contains ", value, " input tokens, for a total of ", total,
                     " tokens. Please reduce the length of the input prompt or the number of ",
                     "requested output tokens. (parameter=input_tokens, value=", value, ")"),
        "input_tokens");
  }
  return std::nullopt;
}

}  // namespace

// --- request -------------------------------------------------------------------------------------

void Completion::OnBodyEnd() {
  std::string& document = server_.reader().body();
  document.clear();
  for (const base::Slice& piece : body_) document.append(piece.view());
  body_.clear();
  const ServerConfig& config = server_.config();
  const auto refused = server_.reader().Read(
      route_, {.token_ids = config.engine.prefix_caching || render_,
               .echo_text = config.mode == ReplyMode::kEcho});
  if (refused) return RespondError(*refused);
  const SimRequest& request = server_.reader().request();
  if (!request.model.empty() && !server_.Serves(request.model)) {
    return RespondError({.status = 404,
                         .type = "NotFoundError",
                         .message = base::Concat("The model `", request.model, "` does not exist. ",
                                                 "Valid aliases: ", server_.ValidAliases(), "."),
                         .param = "model"});
  }
  if (route_ == Route::kTokenize) return AnswerTokenize(request);
  if (render_) return AnswerRender(request);
  if (ApiError error; server_.DrawFailure(&error)) return RespondError(error);
  if (!MakeChoices(request) || !Submit(request)) return;
  BeginReply(request);
  server_.StepSoon();
}

void Completion::AnswerTokenize(const SimRequest& request) {
  std::string& out = server_.scratch();
  out = "{\"count\":";
  AppendNumber(request.prompts[0].token_count, &out);
  out += ",\"max_model_len\":";
  AppendNumber(server_.config().engine.model_tokens_max, &out);
  out += ",\"tokens\":";
  AppendTokenList(request.prompts[0].tokens, &out);
  out += ",\"token_strs\":";
  if (request.return_token_strs) {
    out += '[';
    for (size_t i = 0; i < request.token_strs.size(); ++i) {
      if (i > 0) out += ',';
      base::AppendJsonString(&out, request.token_strs[i]);
    }
    out += ']';
  } else {
    out += "null";
  }
  out += '}';
  server_.Respond(exchange_, 200, out);
}

// Completions give a list, chats one object.
void Completion::AnswerRender(const SimRequest& request) {
  const ServerConfig& config = server_.config();
  const bool chat = route_ == Route::kChat;
  const std::string id = (chat ? "chatcmpl-" : "cmpl-") + server_.RequestIdOf(exchange_, 16);
  std::string& out = server_.scratch();
  out.clear();
  if (!chat) out += '[';
  for (size_t p = 0; p < request.prompt_count; ++p) {
    if (const auto error = CheckLengths(request.max_tokens, request.prompts[p].token_count,
                                        config.engine.model_tokens_max)) {
      return RespondError(*error);
    }
    if (p > 0) out += ',';
    const std::string suffix = request.prompt_count > 1 ? "-" + std::to_string(p) : "";
    AppendRendered(request, p, id + suffix,
                   request.model.empty() ? config.served[0] : request.model, &out);
  }
  if (!chat) out += ']';
  server_.Respond(exchange_, 200, out);
}

bool Completion::MakeChoices(const SimRequest& request) {
  const uint32_t limit = server_.config().engine.model_tokens_max;
  n_ = request.n;
  if (request.prompt_count * n_ > kPromptsMax) {
    RespondError(BadRequest("n times the number of prompts must be at most 1024", "n"));
    return false;
  }
  for (size_t p = 0; p < request.prompt_count; ++p) {
    const Prompt& prompt = request.prompts[p];
    if (const auto error = CheckLengths(request.max_tokens, prompt.token_count, limit)) {
      RespondError(*error);
      return false;
    }
    prompt_tokens_.push_back(static_cast<uint32_t>(prompt.token_count));
    if (request.return_token_ids) prompt_ids_.push_back(prompt.tokens);
  }
  choices_.resize(request.prompt_count * n_);
  for (uint32_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    choice.owner = this;
    choice.index = i;
    choice.prompt = i / n_;
    const Prompt& prompt = request.prompts[choice.prompt];
    if (server_.config().mode == ReplyMode::kEcho) {
      choice.text = ReplyText::Echo(request.echo[choice.prompt]);
    } else {
      // The same prompt gets the same reply; its end is enough to tell prompts apart.
      const size_t tail = std::min<size_t>(prompt.tokens.size(), 64);
      const std::string_view bytes(
          reinterpret_cast<const char*>(prompt.tokens.data() + prompt.tokens.size() - tail),
          tail * sizeof(engine::Token));
      choice.text = ReplyText::Canned(base::Mix64(
          base::Mix64(server_.config().seed, i % n_), base::Hash64(bytes) + prompt.token_count));
    }
    choice.plan = PlanReply(request, prompt, choice.text);
  }
  return true;
}

ReplyPlan Completion::PlanReply(const SimRequest& request, const Prompt& prompt,
                                const ReplyText& text) const {
  const uint32_t room = server_.config().engine.model_tokens_max -
                        static_cast<uint32_t>(prompt.token_count);
  const uint32_t most =
      request.max_tokens ? static_cast<uint32_t>(*request.max_tokens) : room;
  ReplyPlan plan;
  switch (server_.config().mode) {
    case ReplyMode::kFixed:
      plan.tokens = request.max_tokens ? most : std::min(room, kTokensDefault);
      break;
    case ReplyMode::kRandom:
      plan.tokens = request.ignore_eos  ? most
                    : request.max_tokens ? RandomLengthUpTo(most, &server_.random())
                                         : RandomLength(room, &server_.random());
      plan.stopped = plan.tokens < most;
      break;
    case ReplyMode::kEcho:
      plan.tokens = static_cast<uint32_t>(std::min<size_t>(most, text.size()));
      plan.stopped = plan.tokens < most;
      break;
  }
  ApplyStops(text, request.stops, &plan);
  return plan;
}

bool Completion::Submit(const SimRequest& request) {
  const base::TimePoint now = server_.CatchUp();
  for (Choice& choice : choices_) {
    const Prompt& prompt = request.prompts[choice.prompt];
    const auto id = server_.engine().Submit(
        {.prompt = prompt.tokens,
         .prompt_tokens = static_cast<uint32_t>(prompt.token_count),
         .output_tokens = choice.plan.tokens,
         .reason = choice.plan.stopped ? engine::FinishReason::kStop
                                       : engine::FinishReason::kLength,
         .output_cycle = choice.text.cycle(),
         .output_offset = choice.text.cycle_offset(),
         .cache_salt = request.cache_salt,
         .tag = reinterpret_cast<uintptr_t>(&choice)},
        now);
    if (!id) {
      AbortChoices();
      if (id.error().code() == base::StatusCode::kResourceExhausted) {
        ++server_.metrics().rejected_queue_full;
        RespondError({.status = 429,
                      .type = "RateLimitError",
                      .message = "The server's waiting queue is full. Please try again later.",
                      .param = ""});
      } else {
        RespondError(BadRequest(std::string(id.error().message()), ""));
      }
      return false;
    }
    choice.id = *id;
    choice.submitted = true;
    choice.submitted_at = now;
  }
  return true;
}

void Completion::BeginReply(const SimRequest& request) {
  streamed_ = request.stream;
  include_usage_ = request.include_usage;
  const bool chat = route_ == Route::kChat;
  writer_ = StreamWriter({.chat = chat,
                          .token_ids = request.return_token_ids,
                          .every_usage = request.continuous_usage && request.include_usage,
                          .id = (chat ? "chatcmpl-" : "cmpl-") + server_.RequestIdOf(exchange_, 16),
                          .created = server_.loop().wall_now().unix_ns / 1000000000,
                          .model = request.model.empty() ? server_.config().served[0]
                                                         : request.model,
                          .fingerprint = server_.fingerprint()});
  ServerMetrics& metrics = server_.metrics();
  metrics.request_params_n.Observe(n_, choices_.size());
  metrics.request_params_max_tokens.Observe(
      request.max_tokens ? static_cast<double>(*request.max_tokens) : kTokensDefault,
      choices_.size());
  if (!streamed_) return;
  const std::string id = server_.RequestIdOf(exchange_, 32);
  const wire::HttpField fields[] = {
      {.name = "content-type", .value = "text/event-stream; charset=utf-8"},
      {.name = "vary", .value = "Origin"},
      {.name = "x-request-id", .value = id}};
  exchange_.SendHead(200, fields, net::ResponseFraming::kChunked);
}

// --- events --------------------------------------------------------------------------------------

bool Completion::Mark() { return !std::exchange(marked_, true); }

bool Completion::OnToken(Choice* choice, base::TimePoint at) {
  const double scale = server_.time_scale();
  if (choice->available++ == 0) {
    server_.metrics().time_to_first_token.Observe(
        base::ToSeconds(at - choice->submitted_at) * scale);
  } else {
    server_.metrics().inter_token_latency.Observe(
        base::ToSeconds(at - choice->last_token_at) * scale);
  }
  choice->last_token_at = at;
  return streamed_ && Mark();
}

bool Completion::OnChoiceFinished(Choice* choice, const engine::RequestReport& report) {
  choice->finished = true;
  choice->submitted = false;
  choice->cached_tokens = report.cached_tokens;
  server_.metrics().ObserveFinished(report, server_.time_scale());
  return AllFinished() && Mark();
}

void Completion::OnFinished() { server_.Release(this); }

void Completion::OnClientGone(net::GoneReason) {
  for (const Choice& choice : choices_) server_.metrics().success_abort += choice.submitted;
  AbortChoices();
  server_.Release(this);
}

void Completion::AbortChoices() {
  bool any = false;
  for (Choice& choice : choices_) {
    if (!std::exchange(choice.submitted, false)) continue;
    server_.engine().Abort(choice.id, server_.CatchUp());
    any = true;
  }
  if (any) server_.StepSoon();
}

bool Completion::AllFinished() const {
  return std::ranges::all_of(choices_, [](const Choice& c) { return c.finished; });
}

// --- reply ---------------------------------------------------------------------------------------

void Completion::Pump() {
  marked_ = false;
  if (ended_) return;
  if (streamed_) {
    PumpStream();
  } else if (AllFinished()) {
    Reply();
  }
}

void Completion::PumpStream() {
  if (exchange_.pending_bytes() >= net::ServerExchange::kPendingHighBytes) return;
  std::string& out = server_.scratch();
  out.clear();
  bool all_shown = true;
  for (Choice& choice : choices_) {
    while (choice.shown < choice.available && out.size() < kPumpBytesMax) ShowToken(&choice, &out);
    all_shown &= choice.finished && choice.shown == choice.available;
  }
  if (all_shown) {
    if (include_usage_) writer_.AppendUsage(TotalUsage(), &out);
    StreamWriter::AppendDone(&out);
  }
  if (!out.empty()) exchange_.SendBody(out);
  if (all_shown) {
    ended_ = true;
    exchange_.Finish();
  } else if (out.size() >= kPumpBytesMax) {
    PumpStream();  // until nothing is left or the connection is full: at most four times
  }
}

void Completion::ShowToken(Choice* choice, std::string* out) {
  const auto prompt_ids = prompt_ids_.empty() ? std::span<const engine::Token>{}
                                              : prompt_ids_[choice->prompt];
  if (!std::exchange(choice->role_shown, true) && route_ == Route::kChat) {
    writer_.AppendRole(choice->index, prompt_ids, ChoiceUsage(*choice), out);
  }
  const uint32_t i = choice->shown++;
  ReplyPiece piece = choice->text.piece(i);
  const uint64_t left = choice->plan.text_bytes_max - choice->shown_bytes;
  const bool whole = piece.text.size() <= left;
  if (!whole) piece.text = piece.text.substr(0, left);
  choice->shown_bytes += piece.text.size();
  std::string escaped;
  if (!whole || piece.json.empty()) {
    base::AppendJsonString(&escaped, piece.text);
    piece.json = std::string_view(escaped).substr(1, escaped.size() - 2);
  }
  const auto cycle = choice->text.cycle();
  StreamWriter::Delta delta{.index = choice->index,
                            .json_text = piece.json,
                            .token = cycle[(choice->text.cycle_offset() + i) % cycle.size()],
                            .first = i == 0,
                            .prompt_token_ids = prompt_ids};
  if (choice->shown == choice->plan.tokens) {
    delta.end = {choice->plan.stopped ? "stop" : "length", choice->plan.stop};
  }
  writer_.AppendDelta(delta, ChoiceUsage(*choice), out);
}

void Completion::Reply() {
  ended_ = true;
  std::vector<ReplyChoice> replies(choices_.size());
  std::vector<std::vector<engine::Token>> ids(choices_.size());
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = choices_[i];
    choice.shown = choice.plan.tokens;
    replies[i].index = choice.index;
    replies[i].text = choice.text.Join(choice.plan.tokens);
    if (replies[i].text.size() > choice.plan.text_bytes_max) {
      replies[i].text.resize(choice.plan.text_bytes_max);
    }
    replies[i].end = {choice.plan.stopped ? "stop" : "length", choice.plan.stop};
    if (!writer_.head().token_ids) continue;
    const auto cycle = choice.text.cycle();
    for (uint32_t t = 0; t < choice.plan.tokens; ++t) {
      ids[i].push_back(cycle[(choice.text.cycle_offset() + t) % cycle.size()]);
    }
    replies[i].token_ids = ids[i];
    replies[i].prompt_token_ids = prompt_ids_[choice.prompt];
  }
  std::string& out = server_.scratch();
  out.clear();
  AppendReply(writer_.head(), replies, TotalUsage(), &out);
  server_.Respond(exchange_, 200, out);
}

Usage Completion::ChoiceUsage(const Choice& choice) const {
  return {.prompt_tokens = prompt_tokens_[choice.prompt], .completion_tokens = choice.shown};
}

Usage Completion::TotalUsage() const {
  Usage usage;
  for (const uint32_t tokens : prompt_tokens_) usage.prompt_tokens += tokens;
  const engine::EngineConfig& config = server_.config().engine;
  for (const Choice& choice : choices_) {
    usage.completion_tokens += choice.shown;
    if (choice.index % n_ != 0) continue;  // the prompt's numbers are those of its first choice
    usage.cached_tokens += choice.cached_tokens;
    const uint32_t tokens = prompt_tokens_[choice.prompt];
    if (config.prefix_caching) {
      usage.created_cache_tokens += tokens - tokens % config.block_tokens - choice.cached_tokens;
    }
  }
  return usage;
}

void Completion::RespondError(const ApiError& error) {
  ended_ = true;
  std::string& out = server_.scratch();
  out.clear();
  AppendError(error, &out);
  server_.Respond(exchange_, error.status, out);
}

}  // namespace llmd::sim
