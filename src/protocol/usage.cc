#include "protocol/usage.h"

#include <algorithm>
#include <optional>

namespace llmd::protocol {

using wire::JsonEvent;

bool MayHoldUsage(std::string_view payload, ReplyFormat format) {
  const std::string_view key =
      format == ReplyFormat::kSglang ? "\"meta_info\"" : "\"usage\"";
  for (size_t at; (at = wire::FindBytes(payload, key)) != std::string_view::npos;) {
    payload.remove_prefix(at + key.size());
    const size_t value = payload.find_first_not_of(" \t\r\n:");
    if (value == std::string_view::npos) return false;
    if (payload[value] != 'n') return true;  // null is the other value of the field
  }
  return false;
}

void ScanPayload(std::string_view payload, ReplyFields* fields) {
  ReplyScanner scanner;
  scanner.fields_.usage = fields->usage;
  scanner.Feed(payload);
  *fields = scanner.fields_;
}

bool FindModel(std::string_view payload, uint64_t* begin, uint64_t* end) {
  ReplyScanner scanner;
  scanner.scan_.Feed(payload);
  scanner.Run(/*only_model=*/true);
  *begin = scanner.fields_.model_begin;
  *end = scanner.fields_.model_end;
  return *begin != *end;
}

void ReplyScanner::Feed(std::string_view chunk) {
  if (done_) return;
  scan_.Feed(chunk);
  Run(/*only_model=*/false);
}

void ReplyScanner::Run(bool only_model) {
  for (;;) {
    switch (scan_.Next()) {
      case JsonEvent::kMore: return;
      case JsonEvent::kKey:
        field_ = FieldOf(contexts_[context_count_ - 1], scan_.text());
        if (field_ == Field::kNone) scan_.SkipValue();
        break;
      case JsonEvent::kString:
        if (field_ != Field::kModel || !scan_.last()) break;
        fields_.model_begin = scan_.value_begin();
        fields_.model_end = scan_.value_end();
        if (only_model) return;
        break;
      case JsonEvent::kNumber: OnNumber(); break;
      case JsonEvent::kObject:
        if (OnObject()) break;
        done_ = true;
        return;
      case JsonEvent::kEndObject: --context_count_; break;
      case JsonEvent::kTrue: case JsonEvent::kFalse: case JsonEvent::kNull: break;
      // The end, broken, or something that no reply has: an array for one of the fields.
      default: done_ = true; return;
    }
  }
}

ReplyScanner::Field ReplyScanner::FieldOf(Context context, std::string_view key) {
  switch (context) {
    case Context::kBody:
      if (key == "response" || key == "message") return Field::kResponse;
      if (key == "meta_info") return Field::kMetaInfo;
      [[fallthrough]];
    case Context::kResponse:
      if (key == "usage") return Field::kUsage;
      return key == "model" ? Field::kModel : Field::kNone;
    case Context::kUsage:
      if (key == "prompt_tokens" || key == "input_tokens") return Field::kPrompt;
      if (key == "completion_tokens" || key == "output_tokens") return Field::kCompletion;
      if (key == "total_tokens") return Field::kTotal;
      if (key == "prompt_tokens_details" || key == "input_tokens_details") return Field::kDetails;
      return key == "cache_read_input_tokens" ? Field::kCached : Field::kNone;
    case Context::kMetaInfo:
      if (key == "prompt_tokens") return Field::kPrompt;
      if (key == "completion_tokens") return Field::kCompletion;
      return key == "cached_tokens" ? Field::kCached : Field::kNone;
    case Context::kDetails: return key == "cached_tokens" ? Field::kCached : Field::kNone;
  }
  return Field::kNone;
}

// Enters the object; false when no object belongs here.
bool ReplyScanner::OnObject() {
  Context context = Context::kBody;
  if (context_count_ > 0) {
    switch (field_) {
      case Field::kResponse: context = Context::kResponse; break;
      case Field::kUsage:
        context = Context::kUsage;
        fields_.usage.present = true;
        break;
      case Field::kMetaInfo: context = Context::kMetaInfo; break;
      case Field::kDetails: context = Context::kDetails; break;
      default: return false;
    }
  }
  contexts_[context_count_++] = context;
  return true;
}

void ReplyScanner::OnNumber() {
  const int64_t value = std::max<int64_t>(0, wire::JsonWholeNumber(scan_.text()).value_or(0));
  Usage& usage = fields_.usage;
  const auto set = [value](int64_t* field) {
    if (value > 0) *field = value;
  };
  switch (field_) {
    case Field::kPrompt: set(&usage.prompt_tokens); break;
    case Field::kCompletion: set(&usage.completion_tokens); break;
    case Field::kTotal:
      set(&usage.total_tokens);
      usage.has_total = true;
      return;
    case Field::kCached:
      set(&usage.cached_tokens);
      usage.has_cached = true;
      return;
    default: return;
  }
  // meta_info is usage only if it has one of these.
  usage.present = true;
  if (!usage.has_total) usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
}

}  // namespace llmd::protocol
