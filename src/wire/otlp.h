// OTLP traces as protobuf: spans and the request around them out, the collector's answer in.
//
// Spans are written one by one where they end, each as an entry of ScopeSpans.spans, so that any
// number of them set one behind the other is the list; OtlpTraceRequest says what goes before it.
// Text is made valid UTF-8 (what is not becomes '?') and cut at kOtlpTextBytesMax: a collector
// refuses a whole request for one bad string.
//
// Thread safety: none; plain functions over the caller's writer.
// Format: github.com/open-telemetry/opentelemetry-proto, trace/v1/trace.proto and
// collector/trace/v1/trace_service.proto, 1.x.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>

#include "base/buffer.h"
#include "base/status.h"
#include "wire/protobuf.h"

namespace llmd::wire {

inline constexpr size_t kOtlpTextBytesMax = 512;

struct OtlpAttribute {
  std::string_view key;
  std::variant<std::string_view, int64_t, double, std::span<const std::string_view>,
               std::span<const double>>
      value;
};

enum class OtlpKind : uint8_t { kInternal = 1, kServer = 2, kClient = 3 };

struct OtlpSpan {
  uint64_t trace_high = 0, trace_low = 0;
  uint64_t span_id = 0;
  uint64_t parent_id = 0;        // 0: the root
  std::string_view trace_state;  // the W3C header, or ""
  std::string_view name;
  OtlpKind kind = OtlpKind::kInternal;
  int64_t start_unix_ns = 0, end_unix_ns = 0;
  std::span<const OtlpAttribute> attributes;
  bool failed = false;         // status ERROR
  std::string_view error;      // its message
};
void WriteOtlpSpan(const OtlpSpan& span, ProtoWriter* out);

// Who the spans come from.
struct OtlpSource {
  std::span<const OtlpAttribute> resource;
  std::string_view scope, scope_version;
};
// An ExportTraceServiceRequest is what is returned and then `spans_bytes` of spans.
base::Slice OtlpTraceRequestHead(const OtlpSource& source, size_t spans_bytes, ProtoWriter* out);

struct OtlpTraceReply {
  uint64_t rejected_spans = 0;
  std::string_view message;  // why; a view of the reply
};
base::Result<OtlpTraceReply> ReadOtlpTraceReply(std::string_view reply);

}  // namespace llmd::wire
