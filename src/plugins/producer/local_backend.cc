#include "plugins/producer/local_backend.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/strings.h"
#include "plugins/producer/anthropic_chat.h"
#include "plugins/producer/prompt.h"
#include "plugins/producer/render_backend.h"
#include "protocol/request.h"
#include "telemetry/log.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "wire/json_scan.h"

namespace llmd::plugins {

using protocol::Api;
using protocol::PieceKind;

struct LocalBackend::Model {
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::optional<text::ChatTemplate> chat;  // none: chats are estimated
  std::string chat_error;
};

namespace {

constexpr size_t kFileBytesMax = text::kTokenizerFileBytesMax;
// Text in which tokenizers of different models rarely agree: words, digits, code, other scripts.
constexpr std::string_view kSample =
    "Hello, world! Tokenization of 1234567 différent things: {\"k\": [1, 2]} naïve "
    "Übergrößenträger 東京 مرحبا привет\n\tif (x != 0) return y;";

}  // namespace

// The prompt of one request; owns its text.
class LocalBackend::Tokenizing final : public plugin::OutsideJob {
 public:
  struct Text {
    std::string raw;
    bool escaped = false;  // the inside of a JSON string
    std::vector<uint32_t> ids;  // given by the client
  };

  explicit Tokenizing(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

  base::Status Run() override {
    if (!chat_body.empty()) {
      if (anthropic) {
        LLMD_ASSIGN_OR_RETURN(chat_body, ChatOfMessages(chat_body, ""));
      }
      std::string prompt;
      LLMD_RETURN_IF_ERROR(model_->chat->Render(chat_body, {.now_s = now_s}, prompt));
      return Encode(prompt, /*add_special_tokens=*/false);
    }
    for (Text& text : texts) {
      if (!text.ids.empty()) {
        prompts.push_back({.ids = std::move(text.ids), .features = {}});
        continue;
      }
      if (text.escaped) {
        std::string plain(text.raw.size(), '\0');
        const auto size = wire::JsonUnescapeInto(text.raw, plain.data());
        if (!size) return base::InvalidArgument("a malformed escape in the prompt");
        plain.resize(*size);
        text.raw = std::move(plain);
      }
      LLMD_RETURN_IF_ERROR(Encode(text.raw, /*add_special_tokens=*/true));
    }
    return base::OkStatus();
  }

  std::string chat_body;  // or texts
  bool anthropic = false;
  int64_t now_s = 0;
  std::vector<Text> texts;
  std::vector<TokenPrompt> prompts;  // the result

 private:
  base::Status Encode(std::string_view text, bool add_special_tokens) {
    TokenPrompt prompt;
    LLMD_RETURN_IF_ERROR(
        model_->tokenizer->Encode(text, add_special_tokens, prompt.ids, &cancel_flag()));
    prompts.push_back(std::move(prompt));
    return base::OkStatus();
  }

  const std::shared_ptr<const Model> model_;
};

class LocalBackend::Loading final : public plugin::OutsideJob {
 public:
  explicit Loading(const LocalOptions& options) : options_(options) {
    for (const std::string_view name :
         {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
      files.push_back({.path = base::Concat(options.path, "/", name), .bytes_max = kFileBytesMax});
    }
  }

  base::Status Run() override {
    if (!files[0].content) return files[0].content.error();
    const std::string config = files[1].content.value_or("");
    auto tokenizer = text::Tokenizer::Load(
        {.tokenizer_json = *files[0].content, .tokenizer_config_json = config},
        {.cache_bytes = options_.cache_bytes, .seed = options_.seed});
    if (!tokenizer) return tokenizer.error().WithContext(files[0].path);
    auto made = std::make_shared<Model>();
    made->tokenizer = std::move(*tokenizer);
    auto chat = text::ChatTemplate::Load({.tokenizer_config_json = config,
                                          .chat_template = files[2].content.value_or("")});
    if (chat) {
      made->chat.emplace(std::move(*chat));
    } else {
      made->chat_error = chat.error().message();
    }
    files.clear();
    model = std::move(made);
    return base::OkStatus();
  }

  std::shared_ptr<const Model> model;  // the result

 private:
  const LocalOptions& options_;
};

class LocalBackend::Checking final : public plugin::OutsideCall {
 public:
  std::vector<uint32_t> ours;
};

std::shared_ptr<plugin::OutsideTask> LocalBackend::Ask(const plugin::RequestContext& request) {
  if (check_.load(std::memory_order_relaxed) == Check::kDiffers) return nullptr;
  std::shared_ptr<const Model> model = model_.Current();
  if (!model) return nullptr;
  const protocol::Request& body = *request.body;
  auto job = std::make_shared<Tokenizing>(model);
  switch (body.api) {
    case Api::kChatCompletions:
    case Api::kChatCompletionsRender:
    case Api::kMessages:
      if (!model->chat || body.media_count > 0 || request.body_parts.empty()) return nullptr;
      job->chat_body = BodyOf(request);
      job->anthropic = body.api == Api::kMessages;
      job->now_s = request.received_unix_ns / 1'000'000'000;
      return job;
    case Api::kCompletions:
    case Api::kCompletionsRender:
    case Api::kSglangGenerate:
    case Api::kVllmGrpcGenerate: break;
    default: return nullptr;
  }
  job->texts.resize(body.prompt_count);
  bool only_text = true;
  ForEachValue(body, [&](const PromptValue& value) {
    if (value.prompt >= job->texts.size()) return;
    Tokenizing::Text& text = job->texts[value.prompt];
    if (value.kind == PieceKind::kTokenIds) {
      protocol::ForEachTokenId(body.encoding, value.pieces,
                               [&](uint32_t id) { text.ids.push_back(id); });
    } else if (value.kind == PieceKind::kText) {
      text.escaped = body.encoding == protocol::Encoding::kJson;
      for (const protocol::Piece& piece : value.pieces) text.raw.append(piece.bytes);
    } else {
      only_text = false;
    }
  });
  if (!only_text || job->texts.empty() || body.pieces_dropped > 0) return nullptr;
  return job;
}

base::Result<std::vector<TokenPrompt>> LocalBackend::Read(plugin::OutsideTask& task,
                                                          base::TimePoint) {
  auto& job = static_cast<Tokenizing&>(task);
  if (!job.status().ok()) return std::unexpected(job.status());
  return std::move(job.prompts);
}

std::shared_ptr<plugin::OutsideTask> LocalBackend::NextErrand(base::TimePoint now) {
  if (now < try_at_) return nullptr;
  if (!model_.Current()) return std::make_shared<Loading>(options_);
  if (check_.load(std::memory_order_relaxed) == Check::kOpen) return NextCheck(now);
  return nullptr;
}

std::shared_ptr<plugin::OutsideTask> LocalBackend::NextCheck(base::TimePoint now) {
  try_at_ = now + kCheckPause;
  const std::shared_ptr<const fleet::Members> members = fleet_.members();
  if (members->numbers.empty()) return nullptr;
  if (++checks_ > kChecksMax) {
    check_.store(Check::kGivenUp, std::memory_order_relaxed);
    LLMD_LOG(kWarn, "no engine tells at /tokenize whether the tokenizer is its model's",
             {"path", options_.path});
    return nullptr;
  }
  const auto number = members->numbers[next_endpoint_++ % members->numbers.size()];
  auto call = std::make_shared<Checking>();
  if (const base::Status encoded =
          model_.Current()->tokenizer->Encode(kSample, /*add_special_tokens=*/true, call->ours);
      !encoded.ok()) {
    LLMD_LOG(kError, "the tokenizer fails on a small text", {"error", encoded});
    check_.store(Check::kDiffers, std::memory_order_relaxed);
    return nullptr;
  }
  call->server = members->by_number[number]->host_port;
  call->engine = true;
  call->path = "/tokenize";
  call->body = "{";
  if (!options_.model.empty()) {
    call->body += "\"model\":";
    base::AppendJsonString(&call->body, options_.model);
    call->body += ",";
  }
  call->body += "\"prompt\":";
  base::AppendJsonString(&call->body, kSample);
  call->body += "}";
  return call;
}

void LocalBackend::OnErrandEnd(plugin::OutsideTask& task, base::TimePoint now) {
  if (auto* loading = dynamic_cast<Loading*>(&task)) return OnLoaded(*loading, now);
  OnChecked(static_cast<Checking&>(task));
}

void LocalBackend::OnLoaded(Loading& job, base::TimePoint now) {
  if (!job.status().ok()) {
    try_at_ = now + kRetryPause;
    LLMD_LOG(kError, "the tokenizer cannot be loaded: prompts are estimated",
             {"path", options_.path}, {"error", job.status()});
    return;
  }
  const std::shared_ptr<const Model> model = std::move(job.model);
  LLMD_LOG(kInfo, "tokenizer loaded", {"path", options_.path},
           {"engine", text::TokenizerEngineName(model->tokenizer->engine())},
           {"why", model->tokenizer->engine_reason()});
  if (!model->chat) {
    LLMD_LOG(kWarn, "no chat template: chats are estimated", {"path", options_.path},
             {"error", model->chat_error});
  }
  model_.Publish(model);
}

void LocalBackend::OnChecked(const Checking& call) {
  if (!call.status().ok() || call.http_status != 200) return;  // asked again, elsewhere
  // {"count": n, "tokens": [...]}: the shape of a render reply but for the name.
  std::string reply = call.reply;
  const size_t at = reply.find("\"tokens\"");
  if (at == std::string::npos) return;
  reply.replace(at, 8, "\"token_ids\"");
  const auto theirs = ReadRenderReply(reply);
  if (!theirs) return;
  const bool agrees = theirs->front().ids == call.ours;
  check_.store(agrees ? Check::kAgrees : Check::kDiffers, std::memory_order_relaxed);
  if (agrees) {
    LLMD_LOG(kInfo, "the tokenizer is the engine's", {"engine", call.server});
    return;
  }
  LLMD_LOG(kError,
           "the tokenizer does not belong to the engine's model: prompts are estimated. Give the "
           "tokenizer directory of the model that is served",
           {"path", options_.path}, {"engine", call.server}, {"our_ids", call.ours.size()},
           {"engine_ids", theirs->front().ids.size()});
}

std::string LocalBackend::Describe() const {
  const std::shared_ptr<const Model> model = model_.Current();
  std::string out = "{\"backend\":\"local\",\"path\":";
  base::AppendJsonString(&out, options_.path);
  out += base::Concat(",\"loaded\":", model ? "true" : "false");
  if (model) {
    const text::Tokenizer::CacheStats cache = model->tokenizer->cache_stats();
    out += base::Concat(",\"engine\":\"", text::TokenizerEngineName(model->tokenizer->engine()),
                        "\",\"why\":");
    base::AppendJsonString(&out, model->tokenizer->engine_reason());
    out += base::Concat(",\"chatTemplate\":", model->chat ? "true" : "false",
                        ",\"cacheBytes\":", std::to_string(cache.bytes),
                        ",\"cacheHitBytes\":", std::to_string(cache.hit_bytes),
                        ",\"cacheMissBytes\":", std::to_string(cache.miss_bytes));
  }
  constexpr std::string_view kChecks[] = {"open", "agrees", "differs", "no answer"};
  return out + base::Concat(",\"engineCheck\":\"",
                            kChecks[static_cast<size_t>(check_.load(std::memory_order_relaxed))],
                            "\"}");
}

}  // namespace llmd::plugins
