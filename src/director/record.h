// DecisionRecord: one request as explain, the dashboard and replay read it. Sizes, hashes, scores
// and the age of inputs; never prompt text.
//
// Records live in a bounded ring per worker (record_ring.h); writing one costs a copy of the part
// that is filled. Trivially copyable; `candidates` stands last, so that unused ones are not copied.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/time.h"
#include "fleet/endpoint.h"

namespace llmd::director {

inline constexpr size_t kRecordCandidatesMax = 16;  // best first; more are counted only
inline constexpr size_t kRecordScorersMax = 8;
inline constexpr size_t kRecordIdBytes = 48;
inline constexpr size_t kRecordModelBytes = 64;

struct RecordCandidate {
  fleet::EndpointNumber endpoint = fleet::kNoEndpoint;
  uint32_t endpoint_generation = 0;       // low bits of Endpoint::generation: whose number it was
  float score = 0;                        // weighted sum
  float scores[kRecordScorersMax] = {};   // per scorer, clamped, unweighted
  float waiting = 0, running = 0, kv_usage = 0;
  int32_t in_flight = 0;                  // of all workers, this request not counted
  int32_t load_age_ms = -1;               // -1: never scraped
  uint32_t matched_blocks = 0;
};

struct DecisionRecord {
  uint64_t sequence = 0;  // 0 = empty slot
  uint64_t generation = 0;
  uint64_t fleet_version = 0;
  int64_t received_unix_ns = 0;
  char request_id[kRecordIdBytes] = {};  // cut, NUL-terminated
  char model[kRecordModelBytes] = {};
  uint64_t body_bytes = 0;
  uint32_t prompt_tokens_estimated = 0;
  uint32_t total_blocks = 0;
  uint64_t prefix_hash =
      0;  // of the prompt's first bytes, to see who shares a prefix; 0 = no prompt
  int32_t priority = 0;
  uint32_t decision_ns = 0;   // from the last body byte to the decision; 0 without a clock
  uint16_t candidate_count = 0;       // after filters
  uint16_t fleet_count = 0;           // before
  uint8_t shown = 0;                  // entries in `candidates`
  uint8_t scorer_count = 0;
  uint8_t attempts = 0;
  uint16_t http_status = 0;
  uint8_t termination = 0;            // Termination
  uint8_t match_source = 0;           // plugin::MatchSource: what matched_blocks are drawn from
  fleet::EndpointNumber endpoint = fleet::kNoEndpoint;  // that served
  uint32_t endpoint_generation = 0;
  uint32_t scorer_plugins[kRecordScorersMax] = {};
  uint64_t ttft_us = 0, duration_us = 0;
  uint32_t prompt_tokens = 0, output_tokens = 0, cached_tokens = 0;
  RecordCandidate candidates[kRecordCandidatesMax];
};
static_assert(std::is_trivially_copyable_v<DecisionRecord>);
static_assert(sizeof(DecisionRecord) % sizeof(uint64_t) == 0);

}  // namespace llmd::director
