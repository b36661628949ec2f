// What the index service is asked and what it answers, as JSON and as messages of indexer.v1.
//
//   POST /query          {"model": "m", "token_ids": [1, 2, ...]}
//                        {"model": "m", "prompt": "text"}        with --tokenizer only
//   POST /query_by_hash  {"block_keys": [11, 12, ...]}           with hashAlgorithm set only
// and optionally "lora_name", "cache_salt" and "instances", a list of "ip:port" to answer for (all
// when it is not given). The answer:
//   {"block_size": 16, "blocks": 3, "instances": {"10.0.0.1:8000": {"longest_matched": 48,
//     "blocks": 3, "score": 3.0, "confidence": 1.0, "ranks": {"0": 48}}}}
// where longest_matched counts tokens. (Field names as Mooncake's conductor has them.)
//
// indexer.v1.IndexerService/GetPodScores (llm-d-kv-cache api/indexerpb/indexer.proto) has a prompt,
// a model and pods, and answers with scores; pods that hold nothing are left out, as upstream does.
//
// Thread safety: pure functions.
// Limits: kTokensMax tokens or keys; bodies are bounded by the doors.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "base/status.h"
#include "plugin/prefix_query.h"

namespace llmd::index {

// Twice the longest context of today's models.
inline constexpr size_t kTokensMax = 20'000'000;

struct Query {
  enum class Form : uint8_t { kTokens, kPrompt, kKeys };
  Form form = Form::kTokens;
  std::string model;
  std::string cache_salt;
  std::string prompt;
  std::vector<uint32_t> tokens;
  std::vector<uint64_t> keys;
  std::vector<std::string> instances;  // none: all

  plugin::PrefixQuestion question() const {
    return {.model = model, .cache_salt = cache_salt, .tokens = tokens, .keys = keys};
  }
};

// InvalidArgument names the field at fault. `by_hash`: the body came to /query_by_hash.
base::Result<Query> ParseQuery(std::string_view json, bool by_hash);
// A GetPodScoresRequest.
base::Result<Query> ParsePodScoresRequest(std::string_view message);

// One server, whatever ranks it has.
struct Instance {
  std::string address;
  uint32_t blocks = 0;  // of the rank that holds most, and so are the next two
  float score = 0;
  float confidence = 0;
  std::vector<std::pair<uint32_t, uint32_t>> ranks;  // rank, blocks
};
// Ordered by address; only those asked for.
std::vector<Instance> InstancesOf(std::vector<plugin::PrefixHolding> holdings, const Query& query);

// `blocks` is the number of full blocks of the prompt.
std::string AnswerJson(const std::vector<Instance>& instances, uint64_t blocks,
                       uint32_t block_tokens);
// A GetPodScoresResponse.
base::Slice PodScoresResponse(const std::vector<Instance>& instances, base::BufferPool* pool);

}  // namespace llmd::index
