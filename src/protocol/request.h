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
// chunks is several Pieces with `continued` set from the second on. 3. Pieces stand in document
// order.
// Limits: kPiecesMax pieces; what comes beyond is counted in pieces_dropped, and the request is
// still routed, by the prefix that was recorded. Parts side by side in memory count as one.
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
};
inline constexpr int kApiCount = 9;

struct ApiInfo {
  Api api;
  std::string_view name;         // for logs and metric labels: "chat/completions"
  std::string_view path_suffix;  // what a parser claims; empty for kOpaque
  bool streams;                  // replies may be server-sent events
};
const ApiInfo& InfoOf(Api api);
// The APIs of the openai parser, in the order of Api.
std::span<const ApiInfo> OpenAiApis();
// The API with the longest suffix of `path`. `path` carries no query; one slash at its end is
// ignored.
std::optional<Api> OpenAiApiOfPath(std::string_view path);

// True for content that is not text: bytes are its URL, data or file id, escapes untouched.
enum class PieceKind : uint8_t {
  kRole,          // of a message, raw string content
  kText,          // message content, prompt, input or instructions: raw string content
  kTools,         // the tools array as raw JSON
  kToolCalls,     // an assistant message's tool_calls (or function call arguments) as raw JSON
  kTokenIds,      // an array of token ids as raw JSON, `token_count` numbers
  kImage,
  kAudio,
  kVideo,
  kFile,
};
constexpr bool IsMedia(PieceKind kind) { return kind >= PieceKind::kImage; }

struct Piece {
  std::string_view bytes;
  // Which prompt of the request it belongs to: completions and embeddings take lists of prompts,
  // messages are all prompt 0.
  uint32_t prompt = 0;
  uint32_t token_count = 0;  // kTokenIds, on the last Piece of the value
  PieceKind kind = PieceKind::kText;
  bool continued = false;    // goes on with the value of the Piece before
};

struct Request {
  Api api = Api::kOpaque;
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
  // The client asked for no particular model (only with RequestOptions::model_required off).
  bool has_model() const { return !model.empty(); }
  std::string_view model;      // unescaped
  // Bytes of the model's literal in the body, a string's quotes included; without the field both
  // are the offset behind the opening brace.
  uint64_t model_begin = 0;
  uint64_t model_end = 0;
  std::string_view cache_salt;  // unescaped; empty when absent
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
};

// The edit that makes `model` the model of the body that `request` was read from; its bytes live in
// `arena`.
wire::Edit ModelEdit(const Request& request, std::string_view model, base::Arena& arena);

struct RequestOptions {
  // Off when a header names the target model, so that the body need not.
  bool model_required = true;
};

// Internal, see dialect.h.
enum class Field : uint8_t;
enum class Context : uint8_t;
struct Dialect;

class RequestParser {
 public:
  // 8,192 pieces are 256 KiB of arena: a conversation of over 4,000 messages.
  static constexpr size_t kPiecesMax = 8192;
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
    Field field;         // what the value at hand is
    uint32_t seen;       // fields met in this object, one bit each
  };
  // Body, messages, message, content, part, media.
  static constexpr size_t kFramesMax = 6;

  void OnEvent(wire::JsonEvent event);
  void OnKey(std::string_view key);
  void OnString();
  void OnNumber();
  void OnBool(bool value);
  void OnNull();
  void OnOpen(bool object);
  void OnNumbers();
  void OnRaw();
  void OnShortString(std::string_view complaint, std::string_view* out);
  void BeginPrompt();
  void AddPart(PieceKind kind);
  void Push(Context context);
  void Wrong(std::string_view what);
  Frame& top() { return frames_[frame_count_ - 1]; }

  base::Arena& arena_;
  Request* request_;
  RequestOptions options_;
  const Dialect* dialect_;
  wire::JsonScanner scan_;
  std::string_view wrong_;     // what is wrong with a field that is read; empty when nothing is
  uint64_t wrong_at_ = 0;
  Frame frames_[kFramesMax];
  uint8_t frame_count_ = 0;
  bool has_content_ = false;   // the field that the API requires is there and not empty
  bool piece_open_ = false;    // the value at hand has a Piece already
  bool in_value_ = false;      // the value at hand has had a part
  std::optional<int64_t> output_bound_;
  std::optional<int64_t> output_bound_fallback_;
  char* joined_ = nullptr;     // a short string that a chunk border cuts
  size_t joined_size_ = 0;
  Piece* pieces_ = nullptr;
  size_t piece_count_ = 0;
  size_t piece_capacity_ = 0;
};

}  // namespace llmd::protocol
