#include "plugins/producer/burst_prefix_cache_producer.h"

#include <map>
#include <mutex>

#include "base/strings.h"
#include "plugin/keys.h"
#include "plugins/factory.h"
#include "plugins/producer/burst_assignment.h"
#include "plugins/producer/prompt.h"

namespace llmd::plugins {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kWindowMaxMs = 10'000;      // every request waits that long
constexpr size_t kDefaultBlocksMax = 2048;
constexpr base::Duration kWaitMargin = milliseconds(300);

enum class BalanceBy { kRequests, kTokens };

struct Parameters {
  int64_t window_ms = 100;
  int64_t max_per_replica = -1;
  uint32_t block_tokens = 64;
  uint64_t prefix_tokens_max = 0;
  uint64_t min_colocate_blocks = 0;
  int64_t batch_max = 1000;
  BalanceBy balance_by = BalanceBy::kRequests;
};

const config::ObjectType<Parameters>& ParametersType() {
  constexpr uint32_t kBlockTokensMax = prefix::kBlockBytesMax / prefix::kBytesPerToken;
  static const auto type =
      config::Object<Parameters>("BurstPrefixCacheProducerParameters")
          .Field("windowDurationMs", "How long requests are gathered.", &Parameters::window_ms,
                 config::Int<int64_t>(1, kWindowMaxMs))
          .Field("maxPerReplica", "Requests of one prompt per endpoint; -1: no limit.",
                 &Parameters::max_per_replica, config::Int<int64_t>(-1))
          .Field("blockSizeTokens", "Tokens per block.", &Parameters::block_tokens,
                 config::Int<uint32_t>(1, kBlockTokensMax))
          .Field("maxPrefixTokensToMatch", "Tokens of a prompt to look at; 0: 2048 blocks.",
                 &Parameters::prefix_tokens_max, config::Int<uint64_t>(0))
          .Field("minColocateBlocks",
                 "Leading blocks in common from which different prompts are placed, too; 0: never.",
                 &Parameters::min_colocate_blocks, config::Int<uint64_t>(0))
          .Field("maxBatchSize", "Requests per window; -1: no limit.", &Parameters::batch_max,
                 config::Int<int64_t>(-1))
          .Field("balanceBy", "What is spread evenly.", &Parameters::balance_by,
                 config::Enum<BalanceBy>(
                     {{"requests", BalanceBy::kRequests}, {"tokens", BalanceBy::kTokens}}))
          .Build();
  return *type;
}

class BurstPrefixCacheProducer final : public plugin::Plugin, public plugin::DataProducer {
 public:
  BurstPrefixCacheProducer(const Parameters& parameters, plugin::PluginContext& context)
      : window_(milliseconds(parameters.window_ms)),
        block_tokens_(parameters.block_tokens),
        blocks_max_(parameters.prefix_tokens_max > 0
                        ? parameters.prefix_tokens_max / parameters.block_tokens
                        : kDefaultBlocksMax),
        batch_max_(parameters.batch_max < 0 ? SIZE_MAX
                                            : static_cast<size_t>(parameters.batch_max)),
        rules_{.max_per_replica = {},
               .min_colocate_blocks = parameters.min_colocate_blocks,
               .by_tokens = parameters.balance_by == BalanceBy::kTokens},
        match_(context.Produces<plugin::PrefixCacheMatchInfo>()),
        ticket_(context.Produces<Ticket>()),
        tokens_(context.Consumes<plugin::TokenizedPrompt>("")) {
    const auto refuse = [&](std::string_view field, std::string_view why) {
      context.errors().Add(context.parameters().FindOrSelf(field), std::string(why));
    };
    if (parameters.max_per_replica == 0) refuse("maxPerReplica", "must be -1 or above 0");
    if (parameters.batch_max == 0) refuse("maxBatchSize", "must be -1 or above 0");
    if (blocks_max_ == 0) {
      refuse("maxPrefixTokensToMatch", "must be 0 or at least blockSizeTokens");
    }
    if (parameters.max_per_replica > 0) {
      rules_.max_per_replica = static_cast<size_t>(parameters.max_per_replica);
    }
  }

  base::Status Produce(plugin::RequestContext& request,
                       std::span<const plugin::EndpointNumber> candidates) override {
    const Ticket* ticket = request.attributes.Get(ticket_);
    if (!ticket) return Join(request, candidates);
    if (request.now < ticket->ready_at) {
      request.wait_until = ticket->ready_at;
      return base::OkStatus();
    }
    Leave(request, *ticket, candidates);
    return base::OkStatus();
  }
  base::Duration wait_max() const override { return window_ + kWaitMargin; }
  void Abandon(plugin::RequestContext& request) override {
    const Ticket* ticket = request.attributes.Get(ticket_);
    if (!ticket) return;
    std::lock_guard lock(mutex_);
    Release(ticket->window);
  }

 private:
  // A request's place in a window; lives in its arena.
  struct Ticket {
    static constexpr std::string_view kKey = "BurstPrefixTicket";
    uint64_t window;
    size_t place;
    uint32_t total_blocks;
    base::TimePoint ready_at;
  };
  struct Replica {
    plugin::EndpointNumber number;
    uint64_t generation;
  };
  struct Window {
    base::TimePoint ready_at;
    std::vector<std::vector<prefix::BlockHash>> prompts;
    size_t waiting = 0;
    std::vector<Replica> replicas;  // the candidates of the first request with a prompt
    std::vector<BurstReplica> described;
    bool is_assigned = false;
    std::vector<std::optional<size_t>> assigned;
  };

  base::Status Join(plugin::RequestContext& request,
                    std::span<const plugin::EndpointNumber> candidates) {
    const plugin::TokenizedPrompt* tokens = request.attributes.Get(tokens_);
    if (!tokens || !request.body) return base::OkStatus();
    const uint64_t seed = prefix::ChainSeed(request.target_model, request.body->cache_salt);
    const PromptChains chains = HashPrompts(*request.body, tokens->media_tokens, seed,
                                            block_tokens_, blocks_max_, *request.arena);
    std::vector<prefix::BlockHash> blocks;
    for (const auto& chain : chains.prompts) {
      blocks.insert(blocks.end(), chain.begin(), chain.end());
    }

    std::lock_guard lock(mutex_);
    if (windows_.empty() || windows_.rbegin()->second.ready_at <= request.now) {
      windows_[++last_window_].ready_at = request.now + window_;
    }
    Window& window = windows_.rbegin()->second;
    if (window.prompts.size() >= batch_max_) {
      return base::ResourceExhausted("the burst's window is full");
    }
    if (window.replicas.empty() && !blocks.empty()) Describe(request, candidates, &window);
    auto* ticket = request.arena->New<Ticket>(
        Ticket{windows_.rbegin()->first, window.prompts.size(),
               static_cast<uint32_t>(blocks.size()), window.ready_at});
    window.prompts.push_back(std::move(blocks));
    ++window.waiting;
    request.attributes.Set(ticket_, ticket);
    request.wait_until = window.ready_at;
    return base::OkStatus();
  }

  static void Describe(const plugin::RequestContext& request,
                       std::span<const plugin::EndpointNumber> candidates, Window* window) {
    for (const plugin::EndpointNumber n : candidates) {
      const fleet::Endpoint& endpoint = request.fleet->endpoint(n);
      window->replicas.push_back({n, endpoint.generation});
      window->described.push_back(
          {.name = base::Concat(endpoint.spec.name_space, "/", endpoint.spec.name),
           .running = request.fleet->running()[n]});
    }
  }

  void Leave(plugin::RequestContext& request, const Ticket& ticket,
             std::span<const plugin::EndpointNumber> candidates) {
    std::optional<Replica> meant;
    {
      std::lock_guard lock(mutex_);
      Window& window = windows_.at(ticket.window);
      if (!std::exchange(window.is_assigned, true)) {
        window.assigned = AssignBurst(window.prompts, window.described, rules_);
      }
      if (const auto replica = window.assigned[ticket.place]) meant = window.replicas[*replica];
      Release(ticket.window);
    }
    if (candidates.empty()) return;
    const std::span<uint32_t> matched =
        request.arena->NewSpan<uint32_t>(candidates.back() + 1);  // ascending
    for (const plugin::EndpointNumber n : candidates) {
      if (meant && n == meant->number &&
          request.fleet->endpoint(n).generation == meant->generation) {
        matched[n] = ticket.total_blocks;
      }
    }
    auto* match = request.arena->New<plugin::PrefixCacheMatchInfo>();
    match->matched_blocks = matched;
    match->total_blocks = ticket.total_blocks;
    match->block_tokens = block_tokens_;
    request.attributes.Set(match_, match);
  }

  void Release(uint64_t id) {
    const auto window = windows_.find(id);
    if (window != windows_.end() && --window->second.waiting == 0) windows_.erase(window);
  }

  const base::Duration window_;
  const uint32_t block_tokens_;
  const size_t blocks_max_;
  const size_t batch_max_;
  BurstRules rules_;
  const plugin::Slot<plugin::PrefixCacheMatchInfo> match_;
  const plugin::Slot<Ticket> ticket_;
  const plugin::Slot<plugin::TokenizedPrompt> tokens_;
  std::mutex mutex_;
  std::map<uint64_t, Window> windows_;  // with requests that wait; the last one may be joined
  uint64_t last_window_ = 0;
};

}  // namespace

plugin::PluginType BurstPrefixCacheProducerType() {
  plugin::PluginType type = MakeType<BurstPrefixCacheProducer>(
      "burst-prefix-cache-producer",
      "Lets requests that arrive together with the same prompt meet on one endpoint.",
      ParametersType);
  type.stability = plugin::Stability::kAlpha;
  return type;
}

}  // namespace llmd::plugins
