// How long a step of the engine takes.
//
// StepCost is the linear model that silicon measurements fit to 1-3 % for dense models:
//   step = base + sum over prefills (n * prefill_token + n * (ctx + n/2) * prefill_pair)
//        + decodes * sequence + sum over decodes (ctx) * context_token
// where n is the number of tokens that a sequence computes in the step and ctx the number already
// in its KV. A sequence that computes exactly one token is a decode, more is a prefill. All
// sequences of a step end together.
//
// Pace gives every sequence a clock of its own, whatever the others do: the time to the first token
// is `first_token`, or, if that is zero, prefill_overhead + prefill_token * tokens not in the
// cache; then one token every `inter_token`. It is llm-d-inference-sim's latency model without its
// integer milliseconds. All zero: a request finishes the moment it is scheduled.
//
// Units: nanoseconds. Value types, pure.
#pragma once

#include <cstdint>
#include <variant>

#include "base/time.h"

namespace llmd::engine {

// What a step computes, in whole numbers, so that the order of adding up cannot matter.
struct BatchShape {
  uint64_t prefill_tokens = 0;
  uint64_t prefill_pairs_doubled = 0;  // sum of n * (2 * ctx + n)
  uint64_t decodes = 0;
  uint64_t decode_context_tokens = 0;

  void Add(uint64_t tokens, uint64_t context) {
    if (tokens == 1) {
      ++decodes;
      decode_context_tokens += context;
    } else {
      prefill_tokens += tokens;
      prefill_pairs_doubled += tokens * (2 * context + tokens);
    }
  }
  uint64_t tokens() const { return prefill_tokens + decodes; }
};

struct StepCost {
  double base_ns = 0;            // C0
  double prefill_token_ns = 0;   // PA
  double prefill_pair_ns = 0;    // PQ
  double sequence_ns = 0;        // CSEQ
  double context_token_ns = 0;   // CKV

  base::Duration Of(const BatchShape& shape) const {
    return base::Duration(static_cast<int64_t>(
        base_ns + prefill_token_ns * static_cast<double>(shape.prefill_tokens) +
        prefill_pair_ns * 0.5 * static_cast<double>(shape.prefill_pairs_doubled) +
        sequence_ns * static_cast<double>(shape.decodes) +
        context_token_ns * static_cast<double>(shape.decode_context_tokens) + 0.5));
  }
};

struct Pace {
  base::Duration first_token{0};
  base::Duration prefill_overhead{0};
  base::Duration prefill_token{0};
  base::Duration inter_token{0};

  base::Duration Prefill(uint64_t tokens) const {
    if (first_token.count() != 0) return first_token;
    return prefill_overhead + prefill_token * static_cast<int64_t>(tokens);
  }
};

using Timing = std::variant<StepCost, Pace>;

}  // namespace llmd::engine
