// Measurements: what one worker saw of the measured requests, and how two workers' views add up.
//
// Thread safety: none; each worker has its own, merged after the run.
// Units: histograms of times hold nanoseconds.
// Formulas (those of inference-perf): TPOT = (latency - TTFT) / (output tokens - 1), NTPOT =
// latency / output tokens. Latency and TTFT begin when the request is sent, not when it was due:
// what the generator was late is `delay`.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/time.h"
#include "protocol/usage.h"
#include "telemetry/histogram.h"

namespace llmd::bench {

// A request that was answered with success.
struct Success {
  base::Duration latency{};
  base::Duration ttft{-1};  // below 0: not streamed, or no token came
  uint64_t events = 0;      // SSE events but [DONE]
  uint64_t token_events = 0;
  uint64_t reply_bytes = 0;  // of the body, transfer coding removed
  protocol::Usage usage;
};

struct Failure {
  uint64_t count = 0;
  std::string first_detail;  // body of the first refusal or the system's words, shortened
};

struct Measurements {
  static constexpr size_t kFailureKindsMax = 64;  // beyond: counted under "other"
  static constexpr size_t kDetailBytesMax = 300;

  telemetry::ValueHistogram latency, ttft, inter_token, tpot, ntpot, delay;
  // ext_proc: last request byte written to headers reply read; chunk sent to its echo read.
  telemetry::ValueHistogram decision, chunk_echo;
  telemetry::ValueHistogram prompt_tokens, output_tokens;
  uint64_t sent = 0;
  uint64_t succeeded = 0;
  uint64_t failed = 0;
  uint64_t request_bytes = 0;  // bodies
  uint64_t reply_bytes = 0;
  uint64_t events = 0;
  uint64_t token_events = 0;
  uint64_t prompt_tokens_sum = 0;
  uint64_t output_tokens_sum = 0;
  uint64_t cached_tokens_sum = 0;
  uint64_t replies_with_usage = 0;
  uint64_t replies_with_cached = 0;
  uint64_t starts_at_limit = 0;  // open loop: late because all places were taken
  std::map<std::string, Failure, std::less<>> failures;
  base::TimePoint last_sent{};
  base::TimePoint last_ended{};

  void RecordSent(base::TimePoint due, base::TimePoint now, uint64_t body_bytes);
  void RecordSuccess(const Success& success, base::TimePoint now);
  // `kind` such as "http 503" or "connect-failed".
  void RecordFailure(std::string_view kind, std::string_view detail, base::TimePoint now);
  void Merge(const Measurements& other);
};

}  // namespace llmd::bench
