// Request: what the gateway needs of an inference request, whatever API it came in by;
// RequestParser fills it while the body arrives.
//
//   Request request;
//   RequestParser parser(Api::kChatCompletions, arena, &request);
//   for (each slice of the body) parser.Feed(slice.view());
//   LLMD_RETURN_IF_ERROR(parser.Finish());
//
// Thread safety: none, one per request.
// Invariants: 1. Views point into the body or into the arena; both must outlive the Request. No
// heap.
// 2. The outcome does not depend on how the body was cut, except that a piece which lies in several
// chunks is several Pieces with `continued` set from the second on, and which of a bad body's
// errors is told. 3. Pieces stand in document order.
// Limits: kPiecesMax pieces, MediaFeatureList::kMediaFeaturesMax features; what comes beyond is
// counted in pieces_dropped, and the request is still routed, by the prefix that was recorded.
// Parts side by side in memory count as one.
// Errors: InvalidArgument, with upstream's text where upstream has one and the place at fault
// behind it. A field that is read must have its type; null is the same as absent; a repeated field
// is an error, because readers of JSON disagree about which one counts.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/arena.h"
#include "base/status.h"
#include "protocol/pieces.h"
#include "wire/json_scan.h"
#include "wire/json_splice.h"

namespace llmd::protocol {

enum class Api : uint8_t {
  kOpaque,  // passthrough: nothing is read but the number of bytes
  kChatCompletions,
  kChatCompletionsRender,
  kCompletions,
  kCompletionsRender,
  kEmbeddings,
  kResponses,
  kConversations,
  kImagesGenerations,
  kMessages,             // Anthropic
  kMessagesCountTokens,
  kVllmGenerate,         // vLLM's tokens in, tokens out
  kSglangGenerate,
  kVllmGrpcGenerate,
  kVllmGrpcEmbed,
  kVllmGrpcOther,        // every other method of the service
  kVertexChatCompletions,
  kVertexRawPredict,
  kVertexStreamRawPredict,
};
inline constexpr int kApiCount = 19;

// Which parser an API belongs to.
enum class ApiFamily : uint8_t {
  kNone, kOpenAi, kAnthropic, kVllmHttp, kSglangHttp, kVllmGrpc, kVertexAi,
};

// How the token usage of a reply is told; see usage.h and grpc_reply.h.
enum class ReplyFormat : uint8_t {
  kNone,        // not at all: the reply is not read
  kOpenAi,      // "usage", in a JSON document or server-sent events; also Anthropic's messages
  kSglang,      // "meta_info", in the same two
  kVllmGrpc,    // protobuf messages in gRPC frames
  kVertexGrpc,  // JSON or server-sent events in google.api.HttpBody messages in gRPC frames
};
constexpr bool IsGrpc(ReplyFormat format) { return format >= ReplyFormat::kVllmGrpc; }

struct ApiInfo {
  Api api;
  ApiFamily family;
  std::string_view name;         // for logs and metric labels: "chat/completions"
  std::string_view path_suffix;  // what a parser claims; empty where it has several, and kOpaque
  ReplyFormat reply = ReplyFormat::kOpenAi;
  // The body has a place for the model, so that a rewrite is possible and (RequestOptions) a model
  // is required.
  bool takes_model = true;
  bool exact_path = false;       // the suffix is the whole path
};
const ApiInfo& InfoOf(Api api);

struct Request {
  Api api = Api::kOpaque;
  Encoding encoding = Encoding::kJson;  // of the pieces
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
  // Nothing in the reply is of use here: a door that is asked for it may stop looking at this
  // exchange once it is forwarded.
  bool skip_response = false;
  // The client asked for no particular model (only with RequestOptions::model_required off).
  bool has_model() const { return !model.empty(); }
  std::string_view model;      // unescaped
  // Bytes of the model's literal in the body, a string's quotes included; without the field both
  // are the offset behind the opening brace.
  uint64_t model_begin = 0;
  uint64_t model_end = 0;
  std::string_view cache_salt;  // unescaped; empty when absent. SGLang calls it extra_key
  std::optional<int64_t> max_output_tokens;
  uint32_t n = 1;               // choices wanted per prompt
  uint32_t prompt_count = 0;    // messages are one prompt
  uint32_t message_count = 0;
  uint32_t media_count = 0;
  uint64_t token_count = 0;     // token ids given in the body
  uint64_t text_bytes = 0;      // raw bytes of all pieces, dropped ones included
  uint64_t body_bytes = 0;
  uint64_t pieces_dropped = 0;
  std::span<const Piece> pieces;
  // What the engine fills into token ids given in the body, by offset.
  std::span<const MediaFeature> media_features;
};

// The edit that makes `model` the model of the body that `request` was read from; its bytes live in
// `arena`.
wire::Edit ModelEdit(const Request& request, std::string_view model, base::Arena& arena);

struct RequestOptions {
  // Off when a header names the target model, so that the body need not. APIs that take no model
  // require none.
  bool model_required = true;
};

// Internal, see dialect.h and grpc_request.h.
enum class Field : uint8_t;
enum class Context : uint8_t;
struct Dialect;
class GrpcRequestReader;

class RequestParser {
 public:
  static constexpr size_t kPiecesMax = PieceList::kPiecesMax;
  // Hugging Face names are under 100 bytes; paths of local checkpoints are the longest seen.
  static constexpr size_t kModelBytesMax = 1024;

  // `arena` and `request` outlive the parser.
  RequestParser(Api api, base::Arena& arena, Request* request, RequestOptions options = {});
  RequestParser(const RequestParser&) = delete;
  RequestParser& operator=(const RequestParser&) = delete;

  // False once the body is known to be bad: Finish says why, further bytes are only counted.
  bool Feed(std::string_view chunk);
  // Call once, after the last chunk. OK makes the Request valid.
  base::Status Finish();

 private:
  // One open container of the part of the document that is walked.
  struct Frame {
    Context context;
    Field field;          // what the value at hand is
    bool document;        // a content part that says it is no image
    uint64_t seen;        // fields met in this object, one bit each
  };
  // Body, messages, message, content, tool result, content, document, source, content, part, media.
  static constexpr size_t kFramesMax = 11;

  bool FeedJson(std::string_view chunk);
  base::Status FinishJson();
  void OnEvent(wire::JsonEvent event);
  void OnKey(std::string_view key);
  void OnString();
  void OnStringField();
  void OnNumber();
  void OnBool(bool value);
  void OnNull();
  void OnOpen(bool object);
  void OnOpenField(bool object);
  void OnClose();
  void OnNumbers();
  void OnRaw();
  bool OnShortString(std::string_view complaint, std::string_view* out);
  void AddPrompt(PieceKind kind);
  void AddPart(PieceKind kind);
  PieceKind TextKind() const;
  PieceKind MediaKind() const;
  void Push(Context context);
  void Wrong(std::string_view what);
  void WrongScalar(Field field);
  Frame& top() { return frames_[frame_count_ - 1]; }

  base::Arena& arena_;
  Request* request_;
  RequestOptions options_;
  const Dialect* dialect_;     // of the JSON document
  GrpcRequestReader* grpc_ = nullptr;
  wire::JsonScanner scan_;
  PieceList pieces_;
  MediaFeatureList features_;
  std::string_view wrong_;     // what is wrong with a field that is read; empty when nothing is
  uint64_t wrong_at_ = 0;
  Frame frames_[kFramesMax];
  uint8_t frame_count_ = 0;
  bool has_content_ = false;   // the field that the API requires is there and not empty
  std::optional<int64_t> output_bound_;
  std::optional<int64_t> output_bound_fallback_;
  char* joined_ = nullptr;     // a short string that a chunk border cuts
  size_t joined_size_ = 0;
  uint32_t placeholder_offset_ = 0;
  uint32_t placeholder_length_ = 0;
};

}  // namespace llmd::protocol
