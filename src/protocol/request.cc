#include "protocol/request.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/strings.h"
#include "protocol/dialect.h"
#include "protocol/grpc_request.h"

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
    case Field::kTokenIds: case Field::kRole: case Field::kContent: case Field::kPartType:
    case Field::kPartText: case Field::kThinking: case Field::kImage: case Field::kAudio:
    case Field::kVideo: case Field::kFile: case Field::kSource: case Field::kMediaBytes:
      return true;
    default: return false;
  }
}

// Fields that only tell of load and reply: engines read "true" and "5" too, so that a scalar of
// another type is theirs to judge and tells nothing here.
bool IsHint(Field field) {
  switch (field) {
    case Field::kStream: case Field::kStreamOptions: case Field::kIncludeUsage:
    case Field::kOutputBound: case Field::kOutputBoundFallback: case Field::kChoices:
    case Field::kSamplingParams:
      return true;
    default: return false;
  }
}

// Several keys lead to it, so meeting it again does not mean the same key again.
bool IsSharedByKeys(Field field) {
  return field == Field::kToolCalls || field == Field::kAudio || field == Field::kFile ||
         field == Field::kMediaBytes;
}

PieceKind KindOf(Field media) {
  switch (media) {
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
    case Field::kExtraKey: return "extra_key must be a string";
    case Field::kSystem: return "the system prompt must be a string or an array of parts";
    case Field::kMessages: return "must be an array of objects";
    case Field::kInput: return "must be a string or an array of objects";
    case Field::kPrompts: return "must be a string, token ids, or an array of either";
    case Field::kTextPrompt: return "must be a string";
    case Field::kTokenIds: return "must be an array of token ids";
    case Field::kSamplingParams: return "sampling_params must be an object";
    case Field::kFeatures: case Field::kHashes: case Field::kPlaceholders: case Field::kOffset:
    case Field::kLength:
      return "features must hold mm_hashes and mm_placeholders by modality";
    case Field::kRole: return "role must be a string";
    case Field::kContent: return "content must be a string or an array of parts";
    case Field::kPartType: return "type must be a string";
    case Field::kPartText: case Field::kThinking: return "text must be a string";
    case Field::kImage: case Field::kAudio: case Field::kVideo: case Field::kFile:
    case Field::kSource:
      return "media must be a string or an object";
    case Field::kMediaBytes: return "url and data must be strings";
    default: return "a field has the wrong type";
  }
}

uint32_t Clamp32(int64_t value, int64_t min) {
  return static_cast<uint32_t>(std::clamp<int64_t>(value, min, UINT32_MAX));
}

}  // namespace

RequestParser::RequestParser(Api api, base::Arena& arena, Request* request, RequestOptions options)
    : arena_(arena),
      request_(request),
      options_(options),
      dialect_(&DialectOf(api)),
      pieces_(arena, request),
      features_(arena) {
  *request_ = Request{};
  request_->api = api;
  request_->skip_response =
      api != Api::kOpaque && dialect_->info.reply == ReplyFormat::kNone;
  options_.model_required &= dialect_->info.takes_model;
  if (dialect_->format == BodyFormat::kJson || dialect_->format == BodyFormat::kRaw) return;
  grpc_ = arena.New<GrpcRequestReader>(*dialect_, arena, &pieces_, &features_, request);
  if (dialect_->format == BodyFormat::kVertexGrpc) dialect_ = &DialectOf(dialect_->inner);
}

bool RequestParser::Feed(std::string_view chunk) {
  request_->body_bytes += chunk.size();
  if (!grpc_) return dialect_->format == BodyFormat::kRaw || FeedJson(chunk);
  bool good = true;
  grpc_->Feed(chunk);
  for (std::string_view json; grpc_->Next(&json);) good = FeedJson(json);
  return good && grpc_->good();
}

bool RequestParser::FeedJson(std::string_view chunk) {
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
  pieces_.Finish();
  features_.Finish(request_);
  if (dialect_->format == BodyFormat::kRaw) return base::OkStatus();
  if (!grpc_) return FinishJson();
  LLMD_RETURN_IF_ERROR(grpc_->Finish());
  if (dialect_->format != BodyFormat::kJson) return base::OkStatus();
  const base::Status inner = FinishJson();
  // The model's place counts from the start of the inner document: nobody may write there.
  request_->model_begin = request_->model_end = 0;
  if (inner.ok()) return inner;
  const std::string_view message = DialectOf(request_->api).message;
  return base::InvalidArgument(base::Concat("parsing ", message, ": ", inner.message()));
}

base::Status RequestParser::FinishJson() {
  if (!wrong_.empty()) {
    const bool content = frame_count_ > 0 && IsContent(top().field);
    const std::string what = At(wrong_, wrong_at_);
    return base::InvalidArgument(content ? base::Concat(dialect_->content_error, ": ", what)
                                         : what);
  }
  if (const wire::JsonError error = scan_.Finish(); error != wire::JsonError::kNone) {
    return base::InvalidArgument(base::Concat(dialect_->unreadable, ": ",
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
    case JsonEvent::kEndObject: case JsonEvent::kEndArray: return OnClose();
    default: return;
  }
}

void RequestParser::OnKey(std::string_view key) {
  Frame& frame = top();
  frame.field = FieldOf(FieldsIn(*dialect_, frame.context), key);
  if (frame.field == Field::kNone) return scan_.SkipValue();
  const uint64_t bit = uint64_t{1} << static_cast<int>(frame.field);
  if (frame.seen & bit && !IsSharedByKeys(frame.field)) return Wrong("a field is given twice");
  frame.seen |= bit;
  if (frame.field == Field::kTools || frame.field == Field::kToolCalls) return scan_.RawValue();
  if (frame.field == Field::kPrompts || frame.field == Field::kTokenIds) {
    return scan_.ExpectNumbers();
  }
}

void RequestParser::OnString() {
  const Frame& frame = top();
  switch (frame.context) {
    case Context::kContent: return AddPart(TextKind());  // a part given as a plain string
    case Context::kPrompts:
      AddPrompt(PieceKind::kText);
      if (scan_.last()) scan_.ExpectNumbers();
      return;
    case Context::kHashes: {
      std::string_view hash;
      if (OnShortString("a hash is too long or malformed", &hash)) {
        features_.AddHash(KindOf(frame.field), hash);
      }
      return;
    }
    case Context::kMessages: case Context::kTokenIds: case Context::kModalities:
    case Context::kPlaceholders:
      return Wrong(TypeErrorOf(frame.field));
    default: return OnStringField();
  }
}

void RequestParser::OnStringField() {
  Frame& frame = top();
  switch (frame.field) {
    case Field::kModel:
      if (scan_.last()) {
        request_->model_begin = scan_.value_begin();
        request_->model_end = scan_.value_end();
      }
      OnShortString("model is too long or malformed", &request_->model);
      return;
    case Field::kCacheSalt: case Field::kExtraKey:
      OnShortString("cache_salt is too long or malformed", &request_->cache_salt);
      return;
    case Field::kPartType: {
      std::string_view type;
      if (OnShortString("type is too long or malformed", &type)) {
        frame.document = type == "document";
      }
      return;
    }
    case Field::kPrompts: case Field::kTextPrompt:
      has_content_ |= !scan_.part().empty();
      return AddPrompt(PieceKind::kText);
    case Field::kInput:
      has_content_ = true;
      return AddPrompt(PieceKind::kText);
    case Field::kSystem: case Field::kContent: case Field::kPartText: case Field::kThinking:
      return AddPart(TextKind());
    case Field::kRole: return AddPart(PieceKind::kRole);
    case Field::kImage: case Field::kAudio: case Field::kVideo: case Field::kFile:
    case Field::kSource: case Field::kMediaBytes:
      return AddPart(MediaKind());
    default: return WrongScalar(frame.field);
  }
}

// A string of which the text itself is needed: true when `out` is it.
bool RequestParser::OnShortString(std::string_view complaint, std::string_view* out) {
  std::string_view raw = scan_.part();
  if (joined_size_ + raw.size() > kModelBytesMax) {
    Wrong(complaint);
    return false;
  }
  if (joined_ || !scan_.last()) {
    if (!joined_) joined_ = static_cast<char*>(arena_.Allocate(kModelBytesMax, 1));
    std::memcpy(joined_ + joined_size_, raw.data(), raw.size());
    joined_size_ += raw.size();
    if (!scan_.last()) return false;
    raw = {joined_, joined_size_};
    joined_ = nullptr;
    joined_size_ = 0;
  }
  const auto text = wire::JsonUnescape(raw, arena_);
  if (!text) {
    Wrong(complaint);
    return false;
  }
  *out = *text;
  return true;
}

void RequestParser::OnNumber() {
  const Frame& frame = top();
  const std::optional<int64_t> value = wire::JsonWholeNumber(scan_.text());
  if (!value) return WrongScalar(frame.field);
  switch (frame.field) {
    // A negative bound means "as much as possible" to some engines and nothing to others.
    case Field::kOutputBound:
      if (*value >= 0) output_bound_ = *value;
      return;
    case Field::kOutputBoundFallback:
      if (*value >= 0) output_bound_fallback_ = *value;
      return;
    case Field::kChoices: request_->n = Clamp32(*value, 1); return;
    case Field::kOffset: placeholder_offset_ = Clamp32(*value, 0); return;
    case Field::kLength: placeholder_length_ = Clamp32(*value, 0); return;
    default: return WrongScalar(frame.field);
  }
}

void RequestParser::OnBool(bool value) {
  const Frame& frame = top();
  if (frame.field == Field::kStream) {
    request_->stream = value;
  } else if (frame.field == Field::kIncludeUsage) {
    request_->include_usage = value;
  } else {
    WrongScalar(frame.field);
  }
}

// The same as absent, except where an element of an array stands.
void RequestParser::OnNull() {
  const Frame& frame = top();
  switch (frame.context) {
    case Context::kMessages: case Context::kContent: case Context::kPrompts:
    case Context::kTokenIds: case Context::kPlaceholders:
      return Wrong(TypeErrorOf(frame.field));
    case Context::kHashes: return features_.AddHash(KindOf(frame.field), {});
    default: break;
  }
  if (frame.field == Field::kModel) {  // where a rewrite puts the model
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
  const Frame& frame = top();
  switch (frame.context) {
    case Context::kMessages:
      if (!object) break;
      ++request_->message_count;
      has_content_ = true;
      return Push(Context::kMessage);
    case Context::kContent:
      if (!object) break;
      return Push(Context::kPart);
    case Context::kModalities:
      if (object) break;
      return Push(frames_[frame_count_ - 2].field == Field::kHashes ? Context::kHashes
                                                                    : Context::kPlaceholders);
    case Context::kPlaceholders:
      if (!object) break;
      placeholder_offset_ = placeholder_length_ = 0;
      return Push(Context::kPlaceholder);
    case Context::kPrompts: case Context::kTokenIds: case Context::kHashes: break;
    default: return OnOpenField(object);
  }
  Wrong(TypeErrorOf(frame.field));
}

void RequestParser::OnOpenField(bool object) {
  const Frame& frame = top();
  switch (frame.field) {
    case Field::kStreamOptions:
      if (!object) break;
      return Push(Context::kStreamOptions);
    case Field::kSamplingParams:
      if (!object) break;
      return Push(Context::kSampling);
    case Field::kFeatures:
      if (!object) break;
      return Push(Context::kFeatures);
    case Field::kHashes: case Field::kPlaceholders:
      if (!object) break;
      return Push(Context::kModalities);
    case Field::kMessages:
      if (object) break;
      return Push(Context::kMessages);
    case Field::kInput:
      if (object) break;
      has_content_ = true;
      return Push(Context::kMessages);
    case Field::kPrompts: case Field::kTokenIds:
      if (object) break;
      Push(frame.field == Field::kPrompts ? Context::kPrompts : Context::kTokenIds);
      return scan_.ExpectNumbers();
    case Field::kSystem:
      if (object) break;
      return Push(Context::kContent);
    case Field::kContent:
      if (!object) return Push(Context::kContent);
      if (frame.context == Context::kMessage) break;
      return Push(Context::kIgnored);
    case Field::kImage: case Field::kAudio: case Field::kVideo: case Field::kFile:
    case Field::kSource:
      if (!object) break;
      return Push(Context::kMedia);
    default: break;
  }
  Wrong(TypeErrorOf(frame.field));
}

void RequestParser::OnClose() {
  const Context closed = top().context;
  --frame_count_;
  if (closed == Context::kPlaceholder) {
    features_.AddPlaceholder(KindOf(top().field), placeholder_offset_, placeholder_length_);
  }
}

void RequestParser::OnNumbers() {
  // In a list of token ids this is a list in the list.
  if (top().context == Context::kTokenIds) return Wrong(TypeErrorOf(top().field));
  has_content_ = true;
  AddPrompt(PieceKind::kTokenIds);
  if (scan_.last() && top().context == Context::kPrompts) scan_.ExpectNumbers();
}

void RequestParser::OnRaw() {
  AddPart(top().field == Field::kTools ? PieceKind::kTools : PieceKind::kToolCalls);
}

// A value that is a prompt of its own.
void RequestParser::AddPrompt(PieceKind kind) {
  if (top().context == Context::kPrompts) has_content_ = true;
  pieces_.BeginPrompt();
  AddPart(kind);
}

// Records the part of a value that the scanner holds.
void RequestParser::AddPart(PieceKind kind) {
  const uint64_t ids = kind == PieceKind::kTokenIds ? scan_.count() : 0;
  pieces_.Add(kind, scan_.part(), scan_.last(), ids);
}

PieceKind RequestParser::TextKind() const {
  return frames_[0].field == Field::kSystem ? PieceKind::kSystem : PieceKind::kText;
}

// Of the media field at hand, or of the one that the object at hand belongs to.
PieceKind RequestParser::MediaKind() const {
  const Frame* frame = &frames_[frame_count_ - 1];
  if (frame->field == Field::kMediaBytes) --frame;
  return frame->document ? PieceKind::kFile : KindOf(frame->field);
}

void RequestParser::Push(Context context) {
  if (frame_count_ == kFramesMax) return Wrong("nested too deeply");
  // Elements of an array are told by the field that holds it.
  const Field field = frame_count_ > 0 ? top().field : Field::kNone;
  frames_[frame_count_++] = {context, field, false, 0};
}

void RequestParser::Wrong(std::string_view what) {
  wrong_ = what;
  wrong_at_ = scan_.value_begin();
}

void RequestParser::WrongScalar(Field field) {
  if (!IsHint(field)) Wrong(TypeErrorOf(field));
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
