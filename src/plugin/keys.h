// The attribute types that more than one plugin reads: the vocabulary between producers and
// consumers. Per-endpoint values are arrays by EndpointNumber that live in the request's arena.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace llmd::plugin {

// How much of the prompt each endpoint's prefix cache holds. Upstream: PrefixCacheMatchInfo.
struct PrefixCacheMatchInfo {
  static constexpr std::string_view kKey = "PrefixCacheMatchInfo";
  std::span<const uint32_t> matched_blocks;  // by EndpointNumber; contiguous from the start
  uint32_t total_blocks = 0;                 // of the prompt, a last partial block included
  uint32_t block_tokens = 0;                 // tokens per block
};

// Size of the prompt. Upstream: TokenizedPrompt (whose ids the KV-cache issue adds).
struct TokenizedPrompt {
  static constexpr std::string_view kKey = "TokenizedPrompt";
  uint64_t token_count = 0;
  bool estimated = true;  // 4 bytes per token, not a tokenizer's count
  // Placeholder tokens of each media value of the prompt (image, audio, video, file), in document
  // order; part of token_count.
  std::span<const uint32_t> media_tokens;
};

// What is in flight to each endpoint by this process. Upstream: InFlightLoad. The arrays are the
// View's own columns: valid for one decision, until the next Refresh.
struct InFlightLoad {
  static constexpr std::string_view kKey = "InFlightLoad";
  std::span<const int64_t> requests;  // by EndpointNumber
  std::span<const int64_t> tokens;
  uint64_t this_request_tokens = 0;
};

// Who is at work behind the request: an agent's session, as its client names it. Stands in for a
// fairness id that the client did not give. Upstream: agent-identity.
struct AgentIdentity {
  static constexpr std::string_view kKey = "agent-identity";
  std::string_view id;  // not empty
};

}  // namespace llmd::plugin
