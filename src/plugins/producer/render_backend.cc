#include "plugins/producer/render_backend.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "plugins/producer/anthropic_chat.h"
#include "protocol/request.h"
#include "telemetry/log.h"
#include "wire/json_scan.h"

namespace llmd::plugins {
namespace {

using protocol::Api;
using protocol::PieceKind;
using wire::JsonEvent;

constexpr std::string_view kPaths[] = {"/v1/chat/completions/render", "/v1/completions/render",
                                       "/v1/messages/render", "/v1/responses/render"};
constexpr size_t kChatPath = 0, kTextPath = 1, kMessagesPath = 2, kResponsesPath = 3;
constexpr base::Duration kWaitMargin = std::chrono::milliseconds(100);
// 1 M token ids as text, and what comes with them.
constexpr size_t kReplyBytesMax = 16u << 20;

std::optional<size_t> PathOf(Api api) {
  switch (api) {
    case Api::kChatCompletions:
    case Api::kChatCompletionsRender: return kChatPath;
    case Api::kCompletions:
    case Api::kCompletionsRender: return kTextPath;
    case Api::kMessages: return kMessagesPath;
    case Api::kResponses: return kResponsesPath;
    default: return std::nullopt;
  }
}

struct RenderCall final : plugin::OutsideCall {
  size_t path_index = 0;
};

// A messages body made into a chat's.
struct Conversion final : plugin::OutsideJob {
  base::Status Run() override {
    LLMD_ASSIGN_OR_RETURN(body, ChatOfMessages(body, model));
    return base::OkStatus();
  }
  std::string body;  // then the result
  std::string model;
  base::Duration timeout{};
};

// Walks a reply; see render_backend.h for its shape.
class ReplyReader {
 public:
  base::Result<std::vector<TokenPrompt>> Read(std::string_view reply) {
    // The scanner wants an object at the top.
    for (const std::string_view chunk : {std::string_view("{\"r\":"), reply,
                                         std::string_view("}")}) {
      scan_.Feed(chunk);
      for (JsonEvent e; (e = scan_.Next()) != JsonEvent::kMore;) {
        if (e == JsonEvent::kEnd) break;
        if (e == JsonEvent::kError) return std::unexpected(Malformed());
        On(e);
      }
    }
    if (scan_.Finish() != wire::JsonError::kNone) return std::unexpected(Malformed());
    if (prompts_.empty()) return std::unexpected(base::Internal("a render reply without ids"));
    std::vector<TokenPrompt> out;
    for (Draft& draft : prompts_) {
      GiveHashes(std::move(draft.hashes), draft.prompt);
      out.push_back(std::move(draft.prompt));
    }
    return out;
  }

 private:
  enum class Section : uint8_t { kNone, kHashes, kPlaceholders };
  struct Draft {
    TokenPrompt prompt;
    MediaHashes hashes;
  };

  base::Status Malformed() const {
    return base::Internal(
        base::Concat("a render reply that cannot be read: ", wire::JsonErrorText(scan_.error())));
  }
  // Depth of a prompt's keys.
  uint32_t level() const { return in_array_ ? 3 : 2; }

  void On(JsonEvent event) {
    const uint32_t depth = scan_.depth();
    switch (event) {
      case JsonEvent::kArray:
        if (depth == 2) in_array_ = true;
        return;
      case JsonEvent::kObject:
        if (depth == level()) prompts_.emplace_back();
        if (depth == level() + 4 && section_ == Section::kPlaceholders) {
          prompts_.back().prompt.features.push_back({.modality = modality_});
        }
        return;
      case JsonEvent::kKey: return OnKey(depth);
      case JsonEvent::kNumbers: return OnIds();
      case JsonEvent::kString:
        if (section_ == Section::kHashes && !prompts_.empty() && scan_.last()) {
          prompts_.back().hashes.emplace_back(modality_, std::string(scan_.part()));
        }
        return;
      case JsonEvent::kNumber: return OnNumber();
      default: return;
    }
  }
  void OnKey(uint32_t depth) {
    const std::string_view key = scan_.text();
    if (depth < level()) return;
    if (depth == level()) {
      section_ = Section::kNone;
      if (key == "token_ids") {
        scan_.ExpectNumbers();
      } else if (key != "features") {
        scan_.SkipValue();
      }
    } else if (depth == level() + 1) {
      section_ = key == "mm_hashes"         ? Section::kHashes
                 : key == "mm_placeholders" ? Section::kPlaceholders
                                            : Section::kNone;
      if (section_ == Section::kNone) scan_.SkipValue();
    } else if (depth == level() + 2) {
      modality_ = ModalityOf(key);
    } else {
      is_offset_ = key == "offset";
      if (!is_offset_ && key != "length") scan_.SkipValue();
    }
  }
  void OnIds() {
    if (prompts_.empty()) return;
    std::vector<uint32_t>& ids = prompts_.back().prompt.ids;
    const std::string_view part = scan_.part();
    ids.reserve(ids.size() + part.size() / 5);
    uint64_t id = 0;
    bool in_number = false;
    for (const char c : part) {
      if (c >= '0' && c <= '9') {
        id = id * 10 + static_cast<uint64_t>(c - '0');
        in_number = true;
      } else if (std::exchange(in_number, false)) {
        ids.push_back(static_cast<uint32_t>(std::exchange(id, 0)));
      }
    }
    if (in_number) ids.push_back(static_cast<uint32_t>(id));
  }
  void OnNumber() {
    if (section_ != Section::kPlaceholders || prompts_.empty()) return;
    auto& features = prompts_.back().prompt.features;
    const auto value = base::ParseInt(scan_.text());
    if (features.empty() || !value || *value < 0 || *value > UINT32_MAX) return;
    (is_offset_ ? features.back().offset : features.back().length) =
        static_cast<uint32_t>(*value);
  }
  wire::JsonScanner scan_;
  std::vector<Draft> prompts_;
  bool in_array_ = false;
  Section section_ = Section::kNone;
  PieceKind modality_ = PieceKind::kImage;
  bool is_offset_ = false;
};

// The body with `model` in place of its own.
std::string BodyWithModel(const plugin::RequestContext& request, std::string_view model) {
  const wire::Edit edit = protocol::ModelEdit(*request.body, model, *request.arena);
  std::string out;
  uint64_t at = 0;
  const auto append = [&](uint64_t begin, uint64_t end) {
    uint64_t from = 0;
    for (const std::string_view part : request.body_parts) {
      const uint64_t to = from + part.size();
      const uint64_t b = std::max(begin, from), e = std::min(end, to);
      if (b < e) out.append(part.substr(b - from, e - b));
      from = to;
    }
  };
  append(at, edit.begin);
  out.append(edit.bytes.view());
  append(edit.end, request.body->body_bytes);
  return out;
}

}  // namespace

base::Result<std::vector<TokenPrompt>> ReadRenderReply(std::string_view reply) {
  return ReplyReader().Read(reply);
}

base::Result<std::unique_ptr<RenderBackend>> RenderBackend::Create(const RenderOptions& options) {
  std::unique_ptr<RenderBackend> backend(new RenderBackend(options));
  std::string_view url = options.url;
  backend->tls_ = url.starts_with("https://");
  const std::string_view scheme = backend->tls_ ? "https://" : "http://";
  if (!url.starts_with(scheme)) {
    return std::unexpected(base::InvalidArgument(
        base::Concat("\"", url, "\" is not a URL like http://localhost:8000")));
  }
  url.remove_prefix(scheme.size());
  const size_t slash = std::min(url.find('/'), url.size());
  backend->server_ = std::string(url.substr(0, slash));
  backend->prefix_ = std::string(url.substr(slash));
  while (backend->prefix_.ends_with('/')) backend->prefix_.pop_back();
  if (backend->server_.empty()) {
    return std::unexpected(base::InvalidArgument("the URL names no host"));
  }
  const size_t bracket = backend->server_.rfind(']');
  if (backend->server_.find(':', bracket == std::string::npos ? 0 : bracket) ==
      std::string::npos) {
    backend->server_ += backend->tls_ ? ":443" : ":80";
  }
  return backend;
}

std::shared_ptr<plugin::OutsideTask> RenderBackend::Ask(const plugin::RequestContext& request) {
  const auto path = PathOf(request.body->api);
  if (!path || request.body_parts.empty()) return nullptr;
  if (breaker_.open()) return nullptr;
  const base::Duration timeout =
      request.body->media_count > 0 ? options_.mm_timeout : options_.timeout;
  if (!unknown(*path)) return MakeCall(*path, BodyWithModel(request, options_.model), timeout);
  if (*path != kMessagesPath || unknown(kChatPath)) return nullptr;
  return AsChat(BodyOf(request), timeout);
}

std::shared_ptr<plugin::OutsideCall> RenderBackend::MakeCall(size_t path, std::string body,
                                                             base::Duration timeout) const {
  auto call = std::make_shared<RenderCall>();
  call->server = server_;
  call->tls = tls_;
  call->path = base::Concat(prefix_, kPaths[path]);
  call->path_index = path;
  call->body = std::move(body);
  call->timeout = timeout;
  call->reply_bytes_max = kReplyBytesMax;
  return call;
}

std::shared_ptr<plugin::OutsideTask> RenderBackend::AsChat(std::string messages,
                                                           base::Duration timeout) const {
  auto job = std::make_shared<Conversion>();
  job->body = std::move(messages);
  job->model = options_.model;
  job->timeout = timeout;
  return job;
}

// The request whose messages the server turned out not to know goes on as a chat.
std::shared_ptr<plugin::OutsideTask> RenderBackend::Next(plugin::OutsideTask& task) {
  if (!task.status().ok()) return nullptr;
  if (auto* job = dynamic_cast<Conversion*>(&task)) {
    return MakeCall(kChatPath, std::move(job->body), job->timeout);
  }
  auto& call = static_cast<RenderCall&>(task);
  const bool unheard_of = call.http_status == 404 || call.http_status == 405;
  if (!unheard_of || call.path_index != kMessagesPath || unknown(kChatPath)) return nullptr;
  unknown_.fetch_or(1u << kMessagesPath, std::memory_order_relaxed);
  return AsChat(std::move(call.body), call.timeout);
}

base::Result<std::vector<TokenPrompt>> RenderBackend::Read(plugin::OutsideTask& task,
                                                           base::TimePoint now) {
  if (!dynamic_cast<RenderCall*>(&task)) return std::unexpected(task.status());
  auto& call = static_cast<RenderCall&>(task);
  // Turned away by us, or nobody waited: says nothing of the server.
  const bool answered = call.status().ok();
  const base::StatusCode code = call.status().code();
  if (!answered && (code == base::StatusCode::kCancelled ||
                    code == base::StatusCode::kResourceExhausted)) {
    return std::unexpected(call.status());
  }
  if (answered && call.http_status < 500) {
    breaker_.CountAnswer();
  } else if (breaker_.CountFailure()) {
    LLMD_LOG(kWarn, "the render server fails: prompts are estimated until it answers",
             {"server", server_});
  }
  if (!answered) return std::unexpected(call.status());
  if (call.http_status == 404 || call.http_status == 405) {
    unknown_.fetch_or(1u << call.path_index, std::memory_order_relaxed);
  }
  if (call.http_status != 200) {
    return std::unexpected(base::Internal(base::Concat(
        server_, call.path, ": HTTP status ", std::to_string(call.http_status))));
  }
  return ReadRenderReply(call.reply);
}

base::Duration RenderBackend::wait_max() const {
  return std::max(options_.timeout, options_.mm_timeout) + kWaitMargin;
}

std::string RenderBackend::Describe() const {
  std::string out = "{\"backend\":\"vllm\",\"server\":";
  base::AppendJsonString(&out, server_);
  return out + base::Concat(",\"answers\":", breaker_.open() ? "false" : "true", "}");
}

// Once at the start, which makes the server load what it loads on first use, and while the breaker
// is open.
std::shared_ptr<plugin::OutsideTask> RenderBackend::NextErrand(base::TimePoint now) {
  if ((warmed_up_ && !breaker_.open()) || now < probe_at_) return nullptr;
  probe_at_ = now + TokenBreaker::kProbePause;
  std::string body = "{\"model\":";
  base::AppendJsonString(&body, options_.model);
  body += ",\"prompt\":\"Hello\"}";
  return MakeCall(kTextPath, std::move(body), options_.timeout);
}

void RenderBackend::OnErrandEnd(plugin::OutsideTask& task, base::TimePoint now) {
  const auto prompts = Read(task, now);
  if (prompts) {
    if (!std::exchange(warmed_up_, true)) {
      LLMD_LOG(kInfo, "the render server answers", {"server", server_});
    }
    return;
  }
  LLMD_LOG(kVerbose, "the render server does not answer", {"error", prompts.error()});
}

}  // namespace llmd::plugins
