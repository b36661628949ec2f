#include "bench/measure.h"

#include <algorithm>

namespace llmd::bench {
namespace {

uint64_t Nanoseconds(base::Duration d) {
  return static_cast<uint64_t>(std::max<int64_t>(d.count(), 0));
}

uint64_t Count(int64_t tokens) { return static_cast<uint64_t>(std::max<int64_t>(tokens, 0)); }

}  // namespace

void Measurements::RecordSent(base::TimePoint due, base::TimePoint now, uint64_t body_bytes) {
  ++sent;
  request_bytes += body_bytes;
  delay.Record(Nanoseconds(now - due));
  last_sent = std::max(last_sent, now);
}

void Measurements::RecordSuccess(const Success& success, base::TimePoint now) {
  ++succeeded;
  last_ended = std::max(last_ended, now);
  latency.Record(Nanoseconds(success.latency));
  reply_bytes += success.reply_bytes;
  events += success.events;
  token_events += success.token_events;
  uint64_t output = success.token_events;  // the best guess without usage: one token per event
  if (success.usage.present) {
    ++replies_with_usage;
    output = Count(success.usage.completion_tokens);
    const uint64_t prompt = Count(success.usage.prompt_tokens);
    prompt_tokens.Record(prompt);
    prompt_tokens_sum += prompt;
    if (success.usage.has_cached) {
      ++replies_with_cached;
      cached_tokens_sum += Count(success.usage.cached_tokens);
    }
  }
  if (success.usage.present || success.token_events > 0) {
    output_tokens.Record(output);
    output_tokens_sum += output;
  }
  if (output > 0) ntpot.Record(Nanoseconds(success.latency) / output);
  if (success.ttft.count() < 0) return;
  ttft.Record(Nanoseconds(success.ttft));
  if (output > 1) tpot.Record(Nanoseconds(success.latency - success.ttft) / (output - 1));
}

void Measurements::RecordFailure(std::string_view kind, std::string_view detail,
                                 base::TimePoint now) {
  ++failed;
  last_ended = std::max(last_ended, now);
  auto at = failures.find(kind);
  if (at == failures.end()) {
    if (failures.size() >= kFailureKindsMax) kind = "other";
    at = failures.try_emplace(std::string(kind)).first;
  }
  if (at->second.count++ == 0) at->second.first_detail = detail.substr(0, kDetailBytesMax);
}

void Measurements::Merge(const Measurements& other) {
  latency.Merge(other.latency);
  ttft.Merge(other.ttft);
  inter_token.Merge(other.inter_token);
  tpot.Merge(other.tpot);
  ntpot.Merge(other.ntpot);
  delay.Merge(other.delay);
  decision.Merge(other.decision);
  chunk_echo.Merge(other.chunk_echo);
  prompt_tokens.Merge(other.prompt_tokens);
  output_tokens.Merge(other.output_tokens);
  sent += other.sent;
  succeeded += other.succeeded;
  failed += other.failed;
  request_bytes += other.request_bytes;
  reply_bytes += other.reply_bytes;
  events += other.events;
  token_events += other.token_events;
  prompt_tokens_sum += other.prompt_tokens_sum;
  output_tokens_sum += other.output_tokens_sum;
  cached_tokens_sum += other.cached_tokens_sum;
  replies_with_usage += other.replies_with_usage;
  replies_with_cached += other.replies_with_cached;
  starts_at_limit += other.starts_at_limit;
  for (const auto& [kind, failure] : other.failures) {
    Failure& mine = failures[kind];
    if (mine.count == 0) mine.first_detail = failure.first_detail;
    mine.count += failure.count;
  }
  last_sent = std::max(last_sent, other.last_sent);
  last_ended = std::max(last_ended, other.last_ended);
}

}  // namespace llmd::bench
