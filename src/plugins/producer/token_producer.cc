#include "plugins/producer/token_producer.h"

#include <algorithm>

#include "base/strings.h"
#include "plugin/keys.h"
#include "plugins/factory.h"
#include "plugins/producer/local_backend.h"
#include "plugins/producer/prompt.h"
#include "plugins/producer/render_backend.h"
#include "plugins/producer/sidecar_backend.h"
#include "plugins/producer/token_estimate.h"

namespace llmd::plugins {
namespace {

// What a sockaddr_un holds besides the zero byte.
constexpr size_t kSocketPathMax = 107;

struct Vllm {
  std::string url = "http://localhost:8000";
  base::Duration timeout = std::chrono::seconds(5);
  base::Duration mm_timeout = std::chrono::seconds(30);
};
struct Local {
  std::string path;
  int64_t cache_size = 64 << 20;
  base::Duration timeout = std::chrono::milliseconds(400);
};
struct Uds {
  std::string socket_file = "/tmp/tokenizer/tokenizer-uds.socket";
  bool use_tcp = false;
  std::optional<config::StringMapValue> model_tokenizer_map;
};
struct Parameters {
  std::string model_name;
  std::optional<EstimateParameters> estimate;
  std::optional<Vllm> vllm;
  std::optional<Local> local;
  std::optional<Uds> uds;
};

const config::ObjectType<Parameters>& ParametersType() {
  constexpr auto kTimeoutMin = std::chrono::milliseconds(1);
  static const auto vllm =
      config::Object<Vllm>("VllmConfig")
          .Field("url", "Render server.", &Vllm::url)
          .Field("timeout", "How long a prompt of text is waited for.", &Vllm::timeout,
                 config::GoDuration(kTimeoutMin))
          .Field("mmTimeout", "How long one with images and the like is waited for.",
                 &Vllm::mm_timeout, config::GoDuration(kTimeoutMin))
          .Build();
  static const auto local =
      config::Object<Local>("LocalTokenizer")
          .Field("path", "Directory with tokenizer.json.", &Local::path, config::String(1),
                 config::Presence::kRequired)
          .Field("cacheSize", "Memory for text that was tokenised before.", &Local::cache_size,
                 config::Quantity(0, /*bytes=*/true))
          .Field("timeout", "How long a prompt is waited for.", &Local::timeout,
                 config::GoDuration(kTimeoutMin))
          .Build();
  static const auto uds =
      config::Object<Uds>("UdsTokenizerConfig")
          .Field("socketFile", "Unix socket of the sidecar, or host:port with useTCP.",
                 &Uds::socket_file, config::String(1))
          .Field("useTCP", "Speak to the sidecar over TCP, for tests.", &Uds::use_tcp)
          .Field("modelTokenizerMap",
                 "From a model's name to the directory of its tokenizer, as the sidecar sees it.",
                 &Uds::model_tokenizer_map,
                 config::Optional<config::StringMapValue>(config::StringMap()))
          .Build();
  static const auto type =
      config::Object<Parameters>("TokenProducerParameters")
          .Field("modelName", "Model whose tokenizer counts; alone it selects the vllm back end.",
                 &Parameters::model_name)
          .Field("estimate", "Count without a tokenizer, four bytes per token.",
                 &Parameters::estimate,
                 config::Optional<EstimateParameters>(EstimateParametersType()))
          .Field("vllm", "Tokenise with a vLLM render server.", &Parameters::vllm,
                 config::Optional<Vllm>(vllm))
          .Field("local", "Tokenise in this process.", &Parameters::local,
                 config::Optional<Local>(local))
          .Field("udsTokenizerConfig", "Tokenise with a tokenizer sidecar.", &Parameters::uds,
                 config::Optional<Uds>(uds))
          .Build();
  return *type;
}

base::Result<SidecarOptions> OptionsOf(const Uds& uds, const std::string& model) {
  const auto fail = [](std::string why) {
    return std::unexpected(base::InvalidArgument(std::move(why)));
  };
  if (model.empty()) return fail("modelName must be specified for the udsTokenizerConfig back end");
  const std::string& file = uds.socket_file;
  if (uds.use_tcp) {
    const size_t colon = file.rfind(':');
    const auto port = colon == std::string::npos ? std::nullopt
                                                 : base::ParseInt(file.substr(colon + 1));
    if (colon == 0 || !port || *port < 1 || *port > 65535) {
      return fail(base::Concat("\"", file, "\" is not host:port, which useTCP wants"));
    }
  } else if (!file.starts_with('/') || file.size() > kSocketPathMax) {
    return fail(base::Concat("\"", file, "\" is not the absolute path of a socket, at most ",
                             std::to_string(kSocketPathMax), " bytes"));
  }
  SidecarOptions options{.server = file, .model = model};
  if (!uds.model_tokenizer_map) return options;
  const auto found = uds.model_tokenizer_map->find(model);
  if (found == uds.model_tokenizer_map->end()) {
    return fail(base::Concat("modelTokenizerMap has no entry for modelName ", model));
  }
  options.model = found->second;
  constexpr std::string_view kFile = "/tokenizer.json";
  if (options.model.ends_with(kFile)) options.model.resize(options.model.size() - kFile.size());
  return options;
}

std::unique_ptr<TokenBackend> MakeBackend(const Parameters& parameters,
                                          plugin::PluginContext& context) {
  const config::Node& node = context.parameters();
  const auto refuse = [&](std::string_view field, std::string_view why) {
    context.errors().Add(node.FindOrSelf(field), std::string(why));
  };
  const bool uds = parameters.uds.has_value();
  const bool vllm =
      parameters.vllm || (!parameters.model_name.empty() && !parameters.local && !uds);
  const int given = (parameters.estimate ? 1 : 0) + (uds ? 1 : 0) + (vllm ? 1 : 0) +
                    (parameters.local ? 1 : 0);
  if (given > 1) {
    refuse(parameters.estimate ? "estimate" : "vllm",
           "only one of estimate, vllm, local and udsTokenizerConfig may be set; a model selects "
           "vllm");
    return nullptr;
  }
  if (uds) {
    auto options = OptionsOf(*parameters.uds, parameters.model_name);
    if (options) return std::make_unique<SidecarBackend>(*options);
    refuse(parameters.model_name.empty() ? "modelName" : "udsTokenizerConfig",
           options.error().message());
    return nullptr;
  }
  if (parameters.local) {
    return std::make_unique<LocalBackend>(
        LocalOptions{.path = parameters.local->path,
                     .cache_bytes = static_cast<size_t>(parameters.local->cache_size),
                     .model = parameters.model_name,
                     .timeout = parameters.local->timeout,
                     .seed = context.secret()},
        context.fleet());
  }
  if (!vllm) return nullptr;
  if (parameters.model_name.empty()) {
    refuse("modelName", "modelName must be specified for the vllm back end");
    return nullptr;
  }
  const Vllm server = parameters.vllm.value_or(Vllm());
  auto backend = RenderBackend::Create({.url = server.url,
                                        .timeout = server.timeout,
                                        .mm_timeout = server.mm_timeout,
                                        .model = parameters.model_name});
  if (backend) return std::move(*backend);
  refuse("vllm", backend.error().message());
  return nullptr;
}

class TokenProducer final : public plugin::Plugin,
                            public plugin::DataProducer,
                            public plugin::ErrandRunner {
 public:
  TokenProducer(const Parameters& parameters, plugin::PluginContext& context)
      : slot_(context.Produces<plugin::TokenizedPrompt>()),
        estimate_(parameters.estimate.value_or(EstimateParameters())),
        backend_(MakeBackend(parameters, context)) {}

  base::Status Produce(plugin::RequestContext& request,
                       std::span<const plugin::EndpointNumber>) override {
    if (request.asked) return Continue(request);
    if (!request.body || request.body->pieces.empty()) return base::OkStatus();
    auto* prompt = request.arena->New<plugin::TokenizedPrompt>();
    estimate_.Count(request, prompt);
    const bool given = TakeGivenIds(request, prompt);
    request.attributes.Set(slot_, static_cast<const plugin::TokenizedPrompt*>(prompt));
    if (given || !backend_) return base::OkStatus();
    request.asked = backend_->Ask(request);
    if (request.asked) request.wait_until = request.now + backend_->wait_max();
    return base::OkStatus();
  }
  base::Duration wait_max() const override {
    return backend_ ? backend_->wait_max() : plugin::kProduceWaitMax;
  }
  std::string DumpState() const override { return backend_ ? backend_->Describe() : ""; }
  std::shared_ptr<plugin::OutsideTask> NextErrand(base::TimePoint now) override {
    return backend_ ? backend_->NextErrand(now) : nullptr;
  }
  void OnErrandEnd(plugin::OutsideTask& task, base::TimePoint now) override {
    backend_->OnErrandEnd(task, now);
  }

 private:
  // The estimate that stands there already counts until the ids have come.
  base::Status Continue(plugin::RequestContext& request) {
    if (!request.asked->ended()) {
      request.wait_until = request.now + backend_->wait_max();
      return base::OkStatus();
    }
    const std::shared_ptr<plugin::OutsideTask> task = std::move(request.asked);
    if (auto next = backend_->Next(*task)) {
      request.asked = std::move(next);
      request.wait_until = request.now + backend_->wait_max();
      return base::OkStatus();
    }
    LLMD_ASSIGN_OR_RETURN(const std::vector<TokenPrompt> prompts,
                          backend_->Read(*task, request.now));
    const plugin::TokenizedPrompt* estimated = request.attributes.Get(slot_);
    base::Arena& arena = *request.arena;
    auto* prompt = arena.New<plugin::TokenizedPrompt>(*estimated);
    const auto out = arena.NewSpan<plugin::TokenizedPrompt::Prompt>(prompts.size());
    prompt->token_count = 0;
    for (size_t i = 0; i < prompts.size(); ++i) {
      out[i] = CopyOf(prompts[i], arena);
      prompt->token_count += prompts[i].ids.size();
    }
    prompt->estimated = false;
    prompt->prompts = out;
    request.attributes.Set(slot_, static_cast<const plugin::TokenizedPrompt*>(prompt));
    return base::OkStatus();
  }

  static plugin::TokenizedPrompt::Prompt CopyOf(const TokenPrompt& prompt, base::Arena& arena) {
    const auto ids = arena.NewSpan<uint32_t>(prompt.ids.size());
    std::ranges::copy(prompt.ids, ids.begin());
    const auto media = arena.NewSpan<protocol::MediaFeature>(prompt.features.size());
    for (size_t i = 0; i < media.size(); ++i) {
      const TokenPrompt::Feature& f = prompt.features[i];
      media[i] = {.modality = f.modality,
                  .offset = f.offset,
                  .length = f.length,
                  .hash = arena.Copy(f.hash)};
    }
    return {.ids = ids, .media = media};
  }

  // Of prompts that the client gave as ids. Of a batch with text among them nothing is taken.
  static bool TakeGivenIds(const plugin::RequestContext& request,
                           plugin::TokenizedPrompt* prompt) {
    const protocol::Request& body = *request.body;
    if (body.token_count == 0 || body.pieces_dropped > 0) return false;
    base::Arena& arena = *request.arena;
    const auto out = arena.NewSpan<plugin::TokenizedPrompt::Prompt>(body.prompt_count);
    bool only_ids = true;
    ForEachValue(body, [&](const PromptValue& value) {
      only_ids &= value.kind == protocol::PieceKind::kTokenIds && value.prompt < out.size();
      if (!only_ids) return;
      const auto ids = arena.NewSpan<uint32_t>(value.pieces.back().token_count);
      size_t n = 0;
      protocol::ForEachTokenId(body.encoding, value.pieces, [&](uint32_t id) {
        if (n < ids.size()) ids[n++] = id;
      });
      out[value.prompt] = {.ids = ids.first(n), .media = {}};
    });
    if (!only_ids || out.empty()) return false;
    if (out.size() == 1) out[0].media = body.media_features;
    prompt->prompts = out;
    prompt->estimated = false;
    return true;
  }

  const plugin::Slot<plugin::TokenizedPrompt> slot_;
  const TokenEstimate estimate_;
  const std::unique_ptr<TokenBackend> backend_;  // nullptr: estimated
};

}  // namespace

plugin::PluginType TokenProducerType() {
  plugin::PluginType type = MakeType<TokenProducer>(
      "token-producer", "Tells the tokens of the prompt, or estimates them at four bytes each.",
      ParametersType);
  type.default_producer_of = plugin::TokenizedPrompt::kKey;
  return type;
}

plugin::PluginType TokenizerType() {
  plugin::PluginType type = TokenProducerType();
  type.type = "tokenizer";
  type.stability = plugin::Stability::kDeprecated;
  type.default_producer_of.clear();
  type.help = "Old name of token-producer.";
  return type;
}

}  // namespace llmd::plugins
