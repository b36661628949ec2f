#include "telemetry/trace.h"

#include <algorithm>
#include <utility>

namespace llmd::telemetry {
namespace {

constexpr uint8_t kKnownFlags = 0x03;
constexpr std::string_view kHex = "0123456789abcdef";

// Lower-case digits only, as the format wants them.
bool ParseHex(std::string_view digits, uint64_t* value) {
  *value = 0;
  for (const char c : digits) {
    const size_t digit = kHex.find(c);
    if (digit == std::string_view::npos) return false;
    *value = *value << 4 | digit;
  }
  return true;
}

void WriteHex(uint64_t value, char* out, size_t digits) {
  for (size_t i = digits; i-- > 0; value >>= 4) out[i] = kHex[value & 15];
}

}  // namespace

// "00-<32 digits>-<16 digits>-<2 digits>"; a later version may go on behind a further dash.
std::optional<TraceContext> ParseTraceparent(std::string_view header) {
  constexpr uint64_t kInvalidVersion = 0xff;
  if (header.size() < kTraceparentBytes) return std::nullopt;
  uint64_t version, flags;
  TraceContext context;
  if (header[2] != '-' || header[35] != '-' || header[52] != '-' ||
      !ParseHex(header.substr(0, 2), &version) || version == kInvalidVersion ||
      !ParseHex(header.substr(3, 16), &context.trace_high) ||
      !ParseHex(header.substr(19, 16), &context.trace_low) ||
      !ParseHex(header.substr(36, 16), &context.span_id) ||
      !ParseHex(header.substr(53, 2), &flags)) {
    return std::nullopt;
  }
  if (header.size() > kTraceparentBytes && (version == 0 || header[kTraceparentBytes] != '-')) {
    return std::nullopt;
  }
  if ((context.trace_high | context.trace_low) == 0 || context.span_id == 0) return std::nullopt;
  context.flags = static_cast<uint8_t>(flags) & kKnownFlags;
  return context;
}

std::array<char, kTraceparentBytes> FormatTraceparent(const TraceContext& context) {
  std::array<char, kTraceparentBytes> out;
  char* const at = out.data();
  at[0] = at[1] = '0';
  at[2] = at[35] = at[52] = '-';
  WriteHex(context.trace_high, at + 3, 16);
  WriteHex(context.trace_low, at + 19, 16);
  WriteHex(context.span_id, at + 36, 16);
  WriteHex(context.flags, at + 53, 2);
  return out;
}

TraceSampler TraceSampler::Ratio(double ratio, bool parent_based) {
  constexpr uint64_t kAll = uint64_t{1} << 63;
  if (!(ratio > 0)) return {parent_based, 0};  // NaN, too
  return {parent_based, ratio >= 1 ? kAll : static_cast<uint64_t>(ratio * 0x1p63)};
}

bool Tracer::Push(std::string spans, size_t count) {
  {
    const std::scoped_lock lock(mutex_);
    if (queued_spans_ + count <= options_.queue_spans_max &&
        queued_bytes_ + spans.size() <= options_.queue_bytes_max) {
      queued_spans_ += count;
      queued_bytes_ += spans.size();
      queue_.push_back({std::move(spans), count});
      return true;
    }
  }
  dropped_.fetch_add(count, std::memory_order_relaxed);
  return false;
}

Tracer::Batch Tracer::Take(size_t spans_max) {
  Batch batch;
  const std::scoped_lock lock(mutex_);
  while (!queue_.empty() && (batch.empty() || batch.count + queue_.front().count <= spans_max)) {
    Entry& entry = queue_.front();
    queued_spans_ -= entry.count;
    queued_bytes_ -= entry.spans.size();
    batch.count += entry.count;
    batch.spans.push_back(std::move(entry.spans));
    queue_.pop_front();
  }
  return batch;
}

void Tracer::CountExported(size_t spans, size_t rejected) {
  rejected = std::min(rejected, spans);
  exported_.fetch_add(spans - rejected, std::memory_order_relaxed);
  CountFailed(rejected);
}

Tracer::Stats Tracer::stats() const {
  return {.exported = exported_.load(std::memory_order_relaxed),
          .dropped = dropped_.load(std::memory_order_relaxed),
          .failed = failed_.load(std::memory_order_relaxed)};
}

}  // namespace llmd::telemetry
