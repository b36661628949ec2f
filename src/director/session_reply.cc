// From the reply's head to the end of the request: usage, first token, the counters' way back.
#include <algorithm>
#include <atomic>

#include "director/session_state.h"
#include "scheduling/stages.h"
#include "telemetry/log.h"

namespace llmd::director {
namespace {

// Clock readings around a chunk cost more than handling it: of a stream, one chunk in kSampled is
// timed and stands for the others; which one is drawn, so that short streams are not misjudged.
constexpr uint64_t kSampled = 16;

void FirstByte(SessionState& s) {
  s.first_byte_at = s.context.now;
  for (plugin::Booking& b : s.bookings.items()) {
    if (!b.until_first_token || b.amount == 0) continue;
    Book(s, b, -b.amount);
    b.amount = 0;
  }
  const telemetry::RequestSeries& series = Series(s);
  const auto& ttft = s.event_stream ? series.ttft_streaming_seconds : series.ttft_seconds;
  ttft.Observe(s.writer(), base::ToSeconds(s.context.now - s.context.received_at));
}

Forward::Splice ReadEvents(SessionState& s, std::string_view bytes) {
  const protocol::ReplyFormat format = protocol::InfoOf(s.api).reply;
  ModelRestorer* restorer = s.restorer ? &*s.restorer : nullptr;
  if (restorer) restorer->Begin(bytes);
  s.sse->Feed(bytes);
  for (wire::SseEvent event; s.sse->Next(&event);) {
    ++s.events;
    if (protocol::MayHoldUsage(event.data, format)) protocol::ScanPayload(event.data, &s.fields);
    uint64_t begin, end;
    if (restorer && event.contiguous && protocol::FindModel(event.data, &begin, &end)) {
      restorer->Replace(event.data_begin + begin, event.data_begin + end);
    }
  }
  return restorer ? restorer->End(s.sse->pending_bytes()) : Forward::Splice();
}

Forward::Splice ReadDocument(SessionState& s, std::string_view bytes) {
  protocol::ReplyScanner& scan = *s.reply_scan;
  if (s.restorer) s.restorer->Begin(bytes);
  if (!scan.done()) {
    scan.Feed(bytes);
    s.fields = scan.fields();
  }
  if (!s.restorer) return {};
  s.restorer->Replace(scan.fields().model_begin, scan.fields().model_end);
  return s.restorer->End(scan.model_settled() ? 0 : s.restorer->from().size());
}

Forward::Splice Read(SessionState& s, std::string_view bytes) {
  if (s.sse) return ReadEvents(s, bytes);
  if (s.reply_scan) return ReadDocument(s, bytes);
  if (s.grpc_scan) {
    s.grpc_scan->Feed(bytes);
    s.fields.usage = s.grpc_scan->usage();
  }
  return {};
}

uint32_t Tokens(int64_t count) {
  return static_cast<uint32_t>(std::clamp<int64_t>(count, 0, UINT32_MAX));
}

void ObserveTokens(SessionState& s, double duration_seconds) {
  const protocol::Usage& usage = s.fields.usage;
  if (!usage.present) return;
  s.record.prompt_tokens = Tokens(usage.prompt_tokens);
  s.record.output_tokens = Tokens(usage.completion_tokens);
  s.record.cached_tokens = Tokens(usage.cached_tokens);
  const telemetry::RequestSeries& series = Series(s);
  const size_t w = s.writer();
  if (usage.prompt_tokens > 0) {
    series.input_tokens.Observe(w, static_cast<double>(usage.prompt_tokens));
  }
  if (usage.completion_tokens > 0) {
    series.output_tokens.Observe(w, static_cast<double>(usage.completion_tokens));
  }
  if (usage.has_cached) series.cached_tokens.Observe(w, static_cast<double>(usage.cached_tokens));
  if (usage.completion_tokens <= 0) return;
  const auto output = static_cast<double>(usage.completion_tokens);
  series.ntpot_seconds.Observe(w, duration_seconds / output);
  // A stream that came in one chunk has no time per token.
  if (s.event_stream && output > 1 && s.chunks > 1) {
    series.tpot_seconds.Observe(w,
                                base::ToSeconds(s.last_chunk_at - s.first_byte_at) / (output - 1));
  }
}

// The proxy went on to another endpoint of the list: what is booked and recorded goes there, too.
void MoveToServed(SessionState& s, std::string_view served) {
  const auto name_of = [&](const plugin::ScoredCandidate& c) -> std::string_view {
    return s.pin.endpoint(c.endpoint).host_port;
  };
  if (served.empty() || served == name_of(s.endpoints[0])) return;
  const auto at = std::ranges::find(s.endpoints, served, name_of);
  if (at == s.endpoints.end()) return;
  Unbook(s);
  std::rotate(s.endpoints.begin(), at, at + 1);
  s.record.endpoint = s.endpoints[0].endpoint;
  s.record.endpoint_generation =
      static_cast<uint32_t>(s.pin.endpoint(s.record.endpoint).generation);
  if (const base::Status booked = BookRoute(s); !booked.ok()) {
    LLMD_LOG(kDebug, "a request that is served cannot be booked",
             {"request_id", s.context.request_id}, {"error", booked});
  }
}

void ShowHead(SessionState& s, const plugin::ResponseHead& head) {
  scheduling::Stages stages(&s.trace);
  stages.Skip();
  for (const ResponseStep& step : s.generation().response_processors()) {
    stages(scheduling::ExtensionPoint::kResponseReceived, step.plugin,
           [&] { step.processor->OnResponseHead(s.context, head, &s.to_client); });
  }
}

void ShowEnd(SessionState& s, Termination why) {
  const plugin::ResponseEnd end{.termination = why,
                                .status = s.reply_begun ? s.status : 0,
                                .body_shown = s.chunks > 0,
                                .event_count = s.events,
                                .usage = s.fields.usage};
  s.end_metadata = s.arena->New<plugin::MetadataList>();
  scheduling::Stages stages(&s.trace);
  stages.Skip();
  for (const ResponseStep& step : s.generation().response_processors()) {
    stages(scheduling::ExtensionPoint::kResponseComplete, step.plugin,
           [&] { step.processor->OnResponseEnd(s.context, end, s.end_metadata); });
  }
}

// A reply that would have been read, had the door been shown its body.
void CountUnread(SessionState& s) {
  if (s.chunks > 0 || (!s.sse && !s.reply_scan)) return;
  s.core.replies_unread.Add(s.writer());
  static std::atomic<bool> logged{false};
  if (logged.exchange(true, std::memory_order_relaxed)) return;
  LLMD_LOG(kInfo,
           "replies end without their body having been shown: no usage, no time to first token, no "
           "restored model names (llmd_replies_unread_total counts them)",
           {"request_id", s.context.request_id}, {"model", s.context.incoming_model});
}

}  // namespace

void BeginReply(SessionState& s, const plugin::ResponseHead& head) {
  const int status = head.status;
  s.status = status;
  s.reply_begun = true;
  s.event_stream = head.event_stream;
  MoveToServed(s, head.served_endpoint.value_or(""));
  if (!s.generation().response_processors().empty()) ShowHead(s, head);
  s.sample_offset = s.context.random.Below(kSampled);
  const bool ok = status < 400;
  if (status < 500) s.core.fleet.health(s.endpoints[0].endpoint).ReportSuccess(s.context.now);
  if (!ok) Series(s).AddError(s.writer(), telemetry::ErrorCode::kModelServerError);
  // Errors have no usage and name the model in free text only; what passes through is not read.
  const protocol::ReplyFormat format = protocol::InfoOf(s.api).reply;
  if (!ok || format == protocol::ReplyFormat::kNone) {
    s.restorer.reset();
    return;
  }
  if (protocol::IsGrpc(format)) {
    s.event_stream = s.request.stream;
    s.grpc_scan = std::make_unique<protocol::GrpcReplyScanner>(s.api);
  } else if (head.event_stream) {
    s.sse.emplace();
  } else {
    s.reply_scan.emplace();
  }
}

Forward::Splice ReadReply(SessionState& s, std::string_view bytes, bool continues) {
  if (bytes.empty()) return {};
  const bool first = s.chunks == 0;
  if (first || !continues) ++s.chunks;
  if (first) {
    FirstByte(s);
  } else if (s.event_stream && !continues) {
    s.series->itl_seconds.Observe(s.writer(), base::ToSeconds(s.context.now - s.last_chunk_at));
  }
  s.last_chunk_at = s.context.now;
  const uint64_t stands_for = s.event_stream ? kSampled : 1;
  const bool timed = s.core.options.clock && (s.chunks + s.sample_offset) % stands_for == 0;
  if (!timed) return Read(s, bytes);
  const base::TimePoint begin = s.core.options.clock();
  const Forward::Splice splice = Read(s, bytes);
  s.reply_work += (s.core.options.clock() - begin) * static_cast<int64_t>(stands_for);
  return splice;
}

void Finish(SessionState& s, Termination why, uint64_t response_bytes) {
  const Phase was = s.phase;
  s.phase = Phase::kEnded;
  AbandonWait(s);
  Unbook(s);
  EndRetrying(s);
  --s.core.active;
  const size_t w = s.writer();
  if (why == Termination::kClientDisconnect) {
    const bool undecided = was == Phase::kBody || was == Phase::kWaiting;
    const AbortStage stage = undecided                 ? AbortStage::kBeforeDecision
                             : was == Phase::kRelaying ? AbortStage::kInResponse
                                                       : AbortStage::kBeforeResponse;
    s.core.aborts[static_cast<size_t>(stage)].Add(w);
  }
  const base::Duration duration = s.context.now - s.context.received_at;
  if (s.running_counted) {
    const telemetry::RequestSeries& series = Series(s);
    series.running.Add(w, -1);
    series.duration_seconds.Observe(w, base::ToSeconds(duration));
    if (was == Phase::kRelaying) {
      series.response_bytes.Observe(w, static_cast<double>(response_bytes));
      if (s.core.options.clock) {
        s.core.response_processing.Observe(w, base::ToSeconds(s.reply_work));
      }
      ObserveTokens(s, base::ToSeconds(duration));
    }
    if (why == Termination::kEvicted) series.AddError(w, telemetry::ErrorCode::kResourceExhausted);
    if (why == Termination::kError) series.AddError(w, telemetry::ErrorCode::kModelServerError);
  }
  if (was == Phase::kRelaying && why == Termination::kNatural) CountUnread(s);
  if (s.routed && !s.generation().response_processors().empty()) ShowEnd(s, why);
  if (was == Phase::kReplied) Series(s).AddError(w, ErrorCodeOf(s.status));
  DecisionRecord& r = s.record;
  r.http_status = static_cast<uint16_t>(s.status);
  r.termination = static_cast<uint8_t>(why);
  const auto micros = [](base::Duration d) {
    return static_cast<uint64_t>(std::max<int64_t>(0, d / std::chrono::microseconds(1)));
  };
  r.duration_us = micros(duration);
  if (s.chunks > 0) r.ttft_us = micros(s.first_byte_at - s.context.received_at);
  if (s.core.records.Push(w, &r)) s.core.overwritten.Add(w);
  s.core.recorded.Add(w);
  if (s.spans) EndTrace(s, why);
}

}  // namespace llmd::director
