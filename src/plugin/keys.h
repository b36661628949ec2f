// The attribute types that more than one plugin reads: the vocabulary between producers and
// consumers. Per-endpoint values are arrays by EndpointNumber that live in the request's arena.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>

#include "protocol/pieces.h"

namespace llmd::plugin {

// What a prefix match is drawn from.
enum class MatchSource : uint8_t {
  kNone,         // nothing is known
  kApproximate,  // what was sent where
  kPrecise,      // what the model servers said of their caches
  kMixed,        // of some endpoints the one, of some the other
  kShared,       // precise, and of some endpoints what other pickers were told
};
constexpr std::string_view MatchSourceName(MatchSource source) {
  switch (source) {
    case MatchSource::kNone: return "none";
    case MatchSource::kApproximate: return "approximate";
    case MatchSource::kPrecise: return "precise";
    case MatchSource::kMixed: return "mixed";
    case MatchSource::kShared: return "shared";
  }
  return "";
}

struct RequestContext;

// What a producer of prefix matches can tell of single tiers (memory, disk, ...) of the servers'
// caches. It costs a look-up of its own, so who needs it asks.
class PrefixTiers {
 public:
  // Blocks from the start of the prompt that each endpoint has in `tier` ("cpu"), by
  // EndpointNumber, in the request's arena; of the request that the match was made for. Endpoints
  // of which only something else is known count with what is known.
  virtual std::span<const uint32_t> BlocksIn(RequestContext& request, std::string_view tier) = 0;

 protected:
  ~PrefixTiers() = default;
};

// How much of the prompt each endpoint's prefix cache holds. Upstream: PrefixCacheMatchInfo.
struct PrefixCacheMatchInfo {
  static constexpr std::string_view kKey = "PrefixCacheMatchInfo";
  std::span<const uint32_t> matched_blocks;  // by EndpointNumber; contiguous from the start
  uint32_t total_blocks = 0;                 // of the prompt, a last partial block included
  uint32_t block_tokens = 0;                 // tokens per block
  // The same with blocks in slower tiers counting less; empty: all count in full.
  std::span<const float> weighted_blocks;
  MatchSource source = MatchSource::kApproximate;
  PrefixTiers* tiers = nullptr;  // nullptr: nothing is known of single tiers
};

// The prompt in tokens. Upstream: TokenizedPrompt (the cache salt is the request's).
struct TokenizedPrompt {
  static constexpr std::string_view kKey = "TokenizedPrompt";
  uint64_t token_count = 0;
  bool estimated = true;  // 4 bytes per token, not a tokenizer's count
  // Placeholder tokens of each media value of the prompt (image, audio, video, file), in document
  // order; part of token_count.
  std::span<const uint32_t> media_tokens;
  // The model's own token ids, per prompt of the request; empty where they are not known.
  struct Prompt {
    std::span<const uint32_t> ids;
    // Stretches of ids that stand for other content, by offset.
    std::span<const protocol::MediaFeature> media;
  };
  std::span<const Prompt> prompts;
};

// How many of the prompt's images, sounds and videos each endpoint has encoded before. Upstream:
// EncoderCacheMatchInfo.
struct EncoderCacheMatchInfo {
  static constexpr std::string_view kKey = "EncoderCacheMatchInfo";
  std::span<const uint32_t> matched_items;  // by EndpointNumber
  uint32_t total_items = 0;                 // different ones
};

// What is in flight to each endpoint by this process. Upstream: InFlightLoad. The arrays are the
// View's own columns: valid for one decision, until the next Refresh.
struct InFlightLoad {
  static constexpr std::string_view kKey = "InFlightLoad";
  std::span<const int64_t> requests;  // by EndpointNumber
  std::span<const int64_t> tokens;

  // What this request would add.
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;  // 0 unless the producer estimates the answer
  const PrefixCacheMatchInfo* match = nullptr;  // nullptr: nothing is known to be cached
  // Tokens that endpoint `n` would have to compute for it.
  int64_t NewTokens(uint32_t n) const {
    if (!match || match->block_tokens == 0) return prompt_tokens + output_tokens;
    const int64_t matched = n < match->matched_blocks.size() ? match->matched_blocks[n] : 0;
    const int64_t total = match->total_blocks, block = match->block_tokens;
    return std::max<int64_t>(0, total - matched) * block +
           std::max<int64_t>(0, prompt_tokens - total * block) + output_tokens;
  }
};

// Who is at work behind the request: an agent's session, as its client names it. Stands in for a
// fairness id that the client did not give. Upstream: agent-identity.
struct AgentIdentity {
  static constexpr std::string_view kKey = "agent-identity";
  std::string_view id;  // not empty
};

// The conversation that a request belongs to, as its client names it. Upstream: SessionIDDataKey.
struct SessionId {
  static constexpr std::string_view kKey = "SessionIDDataKey";
  std::string_view id;  // not empty
};

}  // namespace llmd::plugin
