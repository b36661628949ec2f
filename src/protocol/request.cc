#include "protocol/request.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/strings.h"
#include "protocol/dialect.h"

namespace llmd::protocol {
namespace {

using wire::JsonEvent;

std::string At(std::string_view what, uint64_t offset) {
  return base::Concat(what, " (at byte ", std::to_string(offset), ")");
}

// Fields whose value lies in the prompt: what is wrong with them is told behind the API's own text.
bool IsContent(Field field) {
  switch (field) {
    case Field::kMessages: case Field::kInput: case Field::kPrompts: case Field::kTextPrompt:
    case Field::kRole: case Field::kContent: case Field::kPartText: case Field::kImage:
    case Field::kAudio: case Field::kVideo: case Field::kFile: case Field::kMediaBytes:
      return true;
    default: return false;
  }
}

// Several keys lead to it, so meeting it again does not mean the same key again.
bool IsSharedByKeys(Field field) {
  return field == Field::kToolCalls || field == Field::kAudio || field == Field::kFile ||
         field == Field::kMediaBytes;
}

PieceKind MediaKind(Field field) {
  switch (field) {
    case Field::kAudio: return PieceKind::kAudio;
    case Field::kVideo: return PieceKind::kVideo;
    case Field::kFile: return PieceKind::kFile;
    default: return PieceKind::kImage;
  }
}

std::string_view TypeErrorOf(Field field) {
  switch (field) {
    case Field::kModel: return "model must be a string";
    case Field::kStream: return "stream must be a boolean";
    case Field::kStreamOptions: return "stream_options must be an object";
    case Field::kIncludeUsage: return "include_usage must be a boolean";
    case Field::kOutputBound: case Field::kOutputBoundFallback:
      return "the maximum number of tokens must be a whole number";
    case Field::kChoices: return "n must be a whole number";
    case Field::kCacheSalt: return "cache_salt must be a string";
    case Field::kInstructions: return "instructions must be a string";
    case Field::kMessages: return "must be an array of objects";
    case Field::kInput: return "must be a string or an array of objects";
    case Field::kPrompts: return "must be a string, token ids, or an array of either";
    case Field::kTextPrompt: return "must be a string";
    case Field::kRole: return "role must be a string";
    case Field::kContent: return "content must be a string or an array of parts";
    case Field::kPartText: return "text must be a string";
    case Field::kImage: case Field::kAudio: case Field::kVideo: case Field::kFile:
      return "media must be a string or an object";
    case Field::kMediaBytes: return "url and data must be strings";
    default: return "a field has the wrong type";
  }
}

}  // namespace

RequestParser::RequestParser(Api api, base::Arena& arena, Request* request, RequestOptions options)
    : arena_(arena), request_(request), options_(options), dialect_(&DialectOf(api)) {
  *request_ = Request{};
  request_->api = api;
}

bool RequestParser::Feed(std::string_view chunk) {
  request_->body_bytes += chunk.size();
  if (request_->api == Api::kOpaque) return true;
  if (!wrong_.empty() || scan_.error() != wire::JsonError::kNone) return false;
  scan_.Feed(chunk);
  for (JsonEvent event; (event = scan_.Next()) != JsonEvent::kMore && event != JsonEvent::kEnd;) {
    if (event == JsonEvent::kError) return false;
    OnEvent(event);
    if (!wrong_.empty()) return false;
  }
  return true;
}

base::Status RequestParser::Finish() {
  request_->pieces = {pieces_, piece_count_};
  if (request_->api == Api::kOpaque) return base::OkStatus();
  if (!wrong_.empty()) {
    const bool content = frame_count_ > 0 && IsContent(top().field);
    const std::string what = At(wrong_, wrong_at_);
    return base::InvalidArgument(content ? base::Concat(dialect_->content_error, ": ", what)
                                         : what);
  }
  if (const wire::JsonError error = scan_.Finish(); error != wire::JsonError::kNone) {
    return base::InvalidArgument(base::Concat("error unmarshaling request bodyMap: ",
                                              At(wire::JsonErrorText(error), scan_.offset())));
  }
  if (!has_content_) return base::InvalidArgument(std::string(dialect_->content_error));
  if (options_.model_required && !request_->has_model()) {
    return base::InvalidArgument("model not found in request body");
  }
  request_->max_output_tokens = output_bound_ ? output_bound_ : output_bound_fallback_;
  if (request_->message_count > 0) request_->prompt_count = 1;
  return base::OkStatus();
}

void RequestParser::OnEvent(JsonEvent event) {
  switch (event) {
    case JsonEvent::kKey: return OnKey(scan_.text());
    case JsonEvent::kString: return OnString();
    case JsonEvent::kRaw: return OnRaw();
    case JsonEvent::kNumbers: return OnNumbers();
    case JsonEvent::kNumber: return OnNumber();
    case JsonEvent::kTrue: return OnBool(true);
    case JsonEvent::kFalse: return OnBool(false);
    case JsonEvent::kNull: return OnNull();
    case JsonEvent::kObject: return OnOpen(true);
    case JsonEvent::kArray: return OnOpen(false);
    case JsonEvent::kEndObject: case JsonEvent::kEndArray: --frame_count_; return;
    default: return;
  }
}

void RequestParser::OnKey(std::string_view key) {
  Frame& frame = top();
  frame.field =
      FieldOf(frame.context == Context::kBody ? dialect_->body : FieldsIn(frame.context), key);
  if (frame.field == Field::kNone) return scan_.SkipValue();
  const uint32_t bit = uint32_t{1} << static_cast<int>(frame.field);
  if (frame.seen & bit && !IsSharedByKeys(frame.field)) return Wrong("a field is given twice");
  frame.seen |= bit;
  if (frame.field == Field::kTools || frame.field == Field::kToolCalls) return scan_.RawValue();
  if (frame.field == Field::kPrompts) return scan_.ExpectNumbers();
}

void RequestParser::OnString() {
  Frame& frame = top();
  switch (frame.context) {
    case Context::kContent: AddPart(PieceKind::kText); return;  // a part given as a plain string
    case Context::kPrompts:
      BeginPrompt();
      AddPart(PieceKind::kText);
      if (scan_.last()) scan_.ExpectNumbers();
      return;
    case Context::kMessages: return Wrong(TypeErrorOf(frame.field));
    default: break;
  }
  switch (frame.field) {
    case Field::kModel:
      if (scan_.last()) {
        request_->model_begin = scan_.value_begin();
        request_->model_end = scan_.value_end();
      }
      return OnShortString("model is too long or malformed", &request_->model);
    case Field::kCacheSalt:
      return OnShortString("cache_salt is too long or malformed", &request_->cache_salt);
    case Field::kPrompts: case Field::kTextPrompt:
      has_content_ |= !scan_.part().empty();
      BeginPrompt();
      return AddPart(PieceKind::kText);
    case Field::kInput:
      has_content_ = true;
      BeginPrompt();
      return AddPart(PieceKind::kText);
    case Field::kInstructions: case Field::kContent: case Field::kPartText:
      return AddPart(PieceKind::kText);
    case Field::kRole: return AddPart(PieceKind::kRole);
    case Field::kImage: case Field::kAudio: case Field::kVideo: case Field::kFile:
      return AddPart(MediaKind(frame.field));
    case Field::kMediaBytes: return AddPart(MediaKind(frames_[frame_count_ - 2].field));
    default: return Wrong(TypeErrorOf(frame.field));
  }
}

// A string of which the text itself is needed.
void RequestParser::OnShortString(std::string_view complaint, std::string_view* out) {
  std::string_view raw = scan_.part();
  if (joined_size_ + raw.size() > kModelBytesMax) return Wrong(complaint);
  if (joined_ || !scan_.last()) {
    if (!joined_) joined_ = static_cast<char*>(arena_.Allocate(kModelBytesMax, 1));
    std::memcpy(joined_ + joined_size_, raw.data(), raw.size());
    joined_size_ += raw.size();
    if (!scan_.last()) return;
    raw = {joined_, joined_size_};
    joined_ = nullptr;
    joined_size_ = 0;
  }
  const auto text = wire::JsonUnescape(raw, arena_);
  if (!text) return Wrong(complaint);
  *out = *text;
}

void RequestParser::OnNumber() {
  Frame& frame = top();
  const bool body = frame.context == Context::kBody;
  const std::optional<int64_t> value = wire::JsonWholeNumber(scan_.text());
  if (!body || !value) return Wrong(TypeErrorOf(frame.field));
  switch (frame.field) {
    // A negative bound means "as much as possible" to some engines and nothing to others.
    case Field::kOutputBound:
      if (*value >= 0) output_bound_ = *value;
      return;
    case Field::kOutputBoundFallback:
      if (*value >= 0) output_bound_fallback_ = *value;
      return;
    case Field::kChoices:
      request_->n = static_cast<uint32_t>(std::clamp<int64_t>(*value, 1, UINT32_MAX));
      return;
    default: return Wrong(TypeErrorOf(frame.field));
  }
}

void RequestParser::OnBool(bool value) {
  Frame& frame = top();
  if (frame.field == Field::kStream) {
    request_->stream = value;
  } else if (frame.field == Field::kIncludeUsage) {
    request_->include_usage = value;
  } else {
    Wrong(TypeErrorOf(frame.field));
  }
}

// The same as absent, except where an element of an array stands.
void RequestParser::OnNull() {
  const Context context = top().context;
  const bool element = context == Context::kMessages || context == Context::kContent ||
                       context == Context::kPrompts;
  if (element) return Wrong(TypeErrorOf(top().field));
  if (top().field == Field::kModel) {  // where a rewrite puts the model
    request_->model_begin = scan_.value_begin();
    request_->model_end = scan_.value_end();
  }
}

void RequestParser::OnOpen(bool object) {
  if (frame_count_ == 0) {
    request_->model_begin = request_->model_end = scan_.value_begin() + 1;
    Push(Context::kBody);
    return;
  }
  Frame& frame = top();
  switch (frame.context) {
    case Context::kMessages:
      if (!object) break;
      ++request_->message_count;
      has_content_ = true;
      return Push(Context::kMessage);
    case Context::kContent:
      if (!object) break;
      return Push(Context::kPart);
    case Context::kPrompts: break;
    default:
      switch (frame.field) {
        case Field::kStreamOptions:
          if (!object) break;
          return Push(Context::kStreamOptions);
        case Field::kMessages:
          if (object) break;
          return Push(Context::kMessages);
        case Field::kInput:
          if (object) break;
          has_content_ = true;
          return Push(Context::kMessages);
        case Field::kPrompts:
          if (object) break;
          Push(Context::kPrompts);
          return scan_.ExpectNumbers();
        case Field::kContent:
          if (object) break;
          return Push(Context::kContent);
        case Field::kImage: case Field::kAudio: case Field::kVideo: case Field::kFile:
          if (!object) break;
          return Push(Context::kMedia);
        default: break;
      }
  }
  Wrong(TypeErrorOf(frame.field));
}

void RequestParser::OnNumbers() {
  has_content_ = true;
  BeginPrompt();
  AddPart(PieceKind::kTokenIds);
  if (!scan_.last()) return;
  request_->token_count += scan_.count();
  if (top().context == Context::kPrompts) scan_.ExpectNumbers();
}

void RequestParser::OnRaw() {
  AddPart(top().field == Field::kTools ? PieceKind::kTools : PieceKind::kToolCalls);
}

// Counts the prompt that the value at hand is, once for all of its parts.
void RequestParser::BeginPrompt() {
  if (in_value_) return;
  if (top().context == Context::kPrompts) has_content_ = true;
  ++request_->prompt_count;
}

// Records the part of a value that the scanner holds.
void RequestParser::AddPart(PieceKind kind) {
  const std::string_view bytes = scan_.part();
  if (!in_value_) piece_open_ = false;
  in_value_ = !scan_.last();
  if (!in_value_ && IsMedia(kind)) ++request_->media_count;
  request_->text_bytes += bytes.size();
  Piece* open = piece_open_ ? &pieces_[piece_count_ - 1] : nullptr;
  if (open && open->bytes.data() + open->bytes.size() == bytes.data()) {
    open->bytes = {open->bytes.data(), open->bytes.size() + bytes.size()};
  } else if (!bytes.empty()) {
    if (piece_count_ == kPiecesMax) {
      ++request_->pieces_dropped;
      return;
    }
    if (piece_count_ == piece_capacity_) {
      piece_capacity_ = piece_capacity_ ? piece_capacity_ * 2 : 16;
      const std::span<Piece> grown = arena_.NewSpan<Piece>(piece_capacity_);
      std::copy_n(pieces_, piece_count_, grown.data());
      pieces_ = grown.data();
    }
    const uint32_t prompt = request_->prompt_count > 0 ? request_->prompt_count - 1 : 0;
    pieces_[piece_count_++] = {bytes, prompt, 0, kind, open != nullptr};
    piece_open_ = true;
  }
  if (kind == PieceKind::kTokenIds && !in_value_ && piece_open_) {
    pieces_[piece_count_ - 1].token_count = static_cast<uint32_t>(scan_.count());
  }
}

void RequestParser::Push(Context context) {
  if (frame_count_ == kFramesMax) return Wrong("nested too deeply");
  // Elements of an array are told by the field that holds it.
  const Field field = frame_count_ > 0 ? top().field : Field::kNone;
  frames_[frame_count_++] = {context, field, 0};
}

void RequestParser::Wrong(std::string_view what) {
  wrong_ = what;
  wrong_at_ = scan_.value_begin();
}

wire::Edit ModelEdit(const Request& request, std::string_view model, base::Arena& arena) {
  std::string text;
  const bool insert = request.model_begin == request.model_end;
  if (insert) text = "\"model\":";
  base::AppendJsonString(&text, model);
  if (insert) text.push_back(',');
  return {request.model_begin, request.model_end, base::Slice::Unowned(arena.Copy(text))};
}

}  // namespace llmd::protocol
