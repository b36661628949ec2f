// Calibrated engines by name: `qwen3-32b-h100-tp2` and so on, and `instant`.
//
// Step times: least squares over the closed-loop TPOT rows of the measured table that
// ai-dynamo/aiconfigurator publishes (systems/silicon_sample.csv, Apache-2.0; engine and version in
// `source`), TPOT = C0 + b CSEQ + b (ISL + OSL/2) CKV + (b - 1) ISL/OSL PA over rows with TTFT
// below 3 s. The attention part of a prefill is inside PA, so PQ is 0: right for the prompts of
// 1,000 to 8,000 tokens that were measured, too fast for much longer ones.
//
// KV sizes: `kv_tokens` = (TP (0.9 M - 3.9 GB) - W) / B with device memory M (H100 85.5, H200
// 150.8, B200 192.3 GB), weights W and KV bytes per token B. The two published sizes (Qwen3-32B TP2
// 307,328 and Llama-3.1-70B bf16 TP4 461,376 tokens, llm-d-kv-cache benchmarking/73- and
// 37-capacity) come out within 0.2 %, the published numbers are used where they exist. Blocks of 64
// tokens as in those benchmarks; max-num-seqs 1024 is vLLM's default on such devices; max-model-len
// is the model's.
//
// A table in static storage: pure, thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "engine/engine.h"

namespace llmd::engine {

struct Profile {
  std::string_view name;
  std::string_view model;
  std::string_view source;
  uint32_t model_tokens_max;
  uint32_t sequences_max;
  uint32_t kv_tokens;
  uint32_t block_tokens;
  base::Duration frontend_delay;  // client TTFT minus the engine's: about 90 ms as measured
  Timing timing;

  EngineConfig Config() const;
};

std::span<const Profile> Profiles();
// nullptr if there is none of that name.
const Profile* FindProfile(std::string_view name);

}  // namespace llmd::engine
