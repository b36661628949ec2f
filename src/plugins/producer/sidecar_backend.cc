#include "plugins/producer/sidecar_backend.h"

#include <optional>
#include <utility>

#include "base/strings.h"
#include "plugins/producer/anthropic_chat.h"
#include "plugins/producer/prompt.h"
#include "plugins/producer/sidecar_messages.h"
#include "protocol/request.h"
#include "telemetry/log.h"
#include "wire/json_scan.h"

namespace llmd::plugins {

using protocol::Api;

namespace {

constexpr base::Duration kWaitMargin = std::chrono::milliseconds(100);
constexpr std::string_view kWarmup = R"({"messages":[{"role":"user","content":"warmup"}]})";

// The one text that a completion is for; nothing when it is for ids or for several.
std::optional<std::string> OneText(const protocol::Request& body) {
  if (body.prompt_count != 1 || body.pieces_dropped > 0 || body.token_count > 0) {
    return std::nullopt;
  }
  std::string text;
  bool only_text = true;
  ForEachValue(body, [&](const PromptValue& value) {
    only_text &= value.kind == protocol::PieceKind::kText;
    for (const protocol::Piece& piece : value.pieces) text.append(piece.bytes);
  });
  if (!only_text) return std::nullopt;
  return text;
}

}  // namespace

// A body put into the sidecar's form.
class SidecarBackend::Writing final : public plugin::OutsideJob {
 public:
  enum class Form : uint8_t { kText, kChat, kMessages };

  base::Status Run() override {
    switch (form) {
      case Form::kText: {
        std::string plain(body.size(), '\0');
        const auto size = wire::JsonUnescapeInto(body, plain.data());
        if (!size) return base::InvalidArgument("a malformed escape in the prompt");
        plain.resize(*size);
        message = SidecarTextRequest(model, plain);
        break;
      }
      case Form::kMessages: {
        LLMD_ASSIGN_OR_RETURN(body, ChatOfMessages(body, ""));
        [[fallthrough]];
      }
      case Form::kChat: {
        LLMD_ASSIGN_OR_RETURN(message, SidecarChatRequest(model, body));
      }
    }
    body.clear();
    return base::OkStatus();
  }

  Form form = Form::kChat;
  std::string body;  // or, of a text, the inside of its JSON string
  std::string model;
  base::Duration timeout{};
  std::string message;  // the result
};

struct SidecarBackend::Call final : plugin::OutsideCall {
  Rpc rpc = Rpc::kChat;
};

std::shared_ptr<plugin::OutsideTask> SidecarBackend::Ask(const plugin::RequestContext& request) {
  if (!initialized_.load(std::memory_order_relaxed) || breaker_.open()) return nullptr;
  const protocol::Request& body = *request.body;
  auto job = std::make_shared<Writing>();
  switch (body.api) {
    case Api::kChatCompletions:
    case Api::kChatCompletionsRender: job->form = Writing::Form::kChat; break;
    case Api::kMessages: job->form = Writing::Form::kMessages; break;
    case Api::kCompletions:
    case Api::kCompletionsRender: job->form = Writing::Form::kText; break;
    default: return nullptr;
  }
  if (job->form == Writing::Form::kText) {
    auto text = OneText(body);
    if (!text) return nullptr;
    job->body = std::move(*text);
  } else {
    if (request.body_parts.empty()) return nullptr;
    job->body = BodyOf(request);
  }
  job->model = options_.model;
  job->timeout = body.media_count > 0 ? kMediaTimeout : kTextTimeout;
  return job;
}

std::shared_ptr<SidecarBackend::Call> SidecarBackend::MakeCall(Rpc rpc, std::string message,
                                                               base::Duration timeout) const {
  auto call = std::make_shared<Call>();
  call->protocol = plugin::OutsideCall::Protocol::kGrpc;
  call->server = options_.server;
  call->rpc = rpc;
  call->path = rpc == Rpc::kInitialize ? kSidecarInitialize
               : rpc == Rpc::kChat     ? kSidecarRenderChat
                                       : kSidecarRenderText;
  call->body = std::move(message);
  call->timeout = timeout;
  call->reply_bytes_max = kReplyBytesMax;
  return call;
}

std::shared_ptr<plugin::OutsideTask> SidecarBackend::Next(plugin::OutsideTask& task) {
  auto* job = dynamic_cast<Writing*>(&task);
  if (!job || !job->status().ok()) return nullptr;
  const Rpc rpc = job->form == Writing::Form::kText ? Rpc::kText : Rpc::kChat;
  return MakeCall(rpc, std::move(job->message), job->timeout);
}

bool SidecarBackend::Answered(const plugin::OutsideTask& call) {
  switch (call.status().code()) {
    case base::StatusCode::kOk: breaker_.CountAnswer(); return true;
    case base::StatusCode::kUnavailable:
    case base::StatusCode::kDeadlineExceeded:
      if (breaker_.CountFailure()) {
        LLMD_LOG(kWarn, "the tokenizer sidecar fails: prompts are estimated until it answers",
                 {"server", options_.server}, {"error", call.status()});
      }
      return false;
    // Turned away by us, or nobody waited.
    case base::StatusCode::kCancelled:
    case base::StatusCode::kResourceExhausted: return false;
    default: breaker_.CountAnswer(); return false;
  }
}

base::Result<std::vector<TokenPrompt>> SidecarBackend::Read(plugin::OutsideTask& task,
                                                            base::TimePoint) {
  const auto* call = dynamic_cast<Call*>(&task);
  if (!call || !Answered(*call)) return std::unexpected(task.status());
  LLMD_ASSIGN_OR_RETURN(TokenPrompt prompt, call->rpc == Rpc::kChat ? ReadSidecarChat(call->reply)
                                                                    : ReadSidecarText(call->reply));
  std::vector<TokenPrompt> prompts;
  prompts.push_back(std::move(prompt));
  return prompts;
}

base::Duration SidecarBackend::wait_max() const { return kMediaTimeout + kWaitMargin; }

std::string SidecarBackend::Describe() const {
  std::string out = "{\"backend\":\"udsTokenizer\",\"server\":";
  base::AppendJsonString(&out, options_.server);
  out += ",\"model\":";
  base::AppendJsonString(&out, options_.model);
  const bool initialized = initialized_.load(std::memory_order_relaxed);
  return out + base::Concat(",\"initialized\":", initialized ? "true" : "false",
                            ",\"answers\":", breaker_.open() ? "false" : "true", "}");
}

// Loading the model, then a small chat, which makes the sidecar load what it loads on first use;
// the chat again while the breaker is open.
std::shared_ptr<plugin::OutsideTask> SidecarBackend::NextErrand(base::TimePoint now) {
  const bool initialized = initialized_.load(std::memory_order_relaxed);
  if ((initialized && warmed_up_ && !breaker_.open()) || now < try_at_) return nullptr;
  try_at_ = now + TokenBreaker::kProbePause;
  if (!initialized) {
    return MakeCall(Rpc::kInitialize, SidecarInitializeRequest(options_.model), kInitializeTimeout);
  }
  auto message = SidecarChatRequest(options_.model, kWarmup);
  if (!message) return nullptr;
  return MakeCall(Rpc::kChat, std::move(*message), warmed_up_ ? kTextTimeout : kMediaTimeout);
}

void SidecarBackend::OnErrandEnd(plugin::OutsideTask& task, base::TimePoint now) {
  const auto& call = static_cast<Call&>(task);
  if (call.rpc != Rpc::kInitialize) {
    // One that cannot render this chat has answered all the same.
    const auto prompts = Read(task, now);
    if (!prompts) {
      LLMD_LOG(kVerbose, "the tokenizer sidecar does not render a chat",
               {"server", options_.server}, {"error", prompts.error()});
    }
    warmed_up_ = true;
    return;
  }
  const base::Status loaded =
      call.status().ok() ? ReadSidecarInitialized(call.reply) : call.status();
  if (!loaded.ok()) {
    LLMD_LOG(kVerbose, "the tokenizer sidecar has not loaded the model",
             {"server", options_.server}, {"error", loaded});
    if (std::exchange(told_, true)) return;
    LLMD_LOG(kWarn, "no tokenizer sidecar yet: prompts are estimated until it has the model",
             {"server", options_.server}, {"model", options_.model}, {"error", loaded});
    return;
  }
  LLMD_LOG(kInfo, "the tokenizer sidecar has loaded the model", {"server", options_.server},
           {"model", options_.model});
  try_at_ = now;
  initialized_.store(true, std::memory_order_relaxed);
}

}  // namespace llmd::plugins
