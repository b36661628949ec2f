// The C border of the crate llmd-text. Only src/text/ includes it.
//
// Thread safety: each function may be called by any thread; what is compiled or loaded is
// immutable, so many threads may use one at once, and it is freed once, by anyone, after the last.
// Invariants:
//   1. Nothing unwinds across the border: a panic in Rust is LLMD_TEXT_INTERNAL.
//   2. Memory is freed on the side that allocated it: what Rust hands out goes back to the function
//      named after it; texts of errors are written to the caller's buffer.
//   3. Pointers need to be valid during the call only. A slice of size 0 may have a null pointer.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum LlmdTextStatus {
  LLMD_TEXT_OK = 0,
  LLMD_TEXT_INVALID = 1,   // what was to be compiled or loaded is wrong
  LLMD_TEXT_FAILED = 2,    // the evaluation ended in an error
  LLMD_TEXT_INTERNAL = 3,  // a panic
  LLMD_TEXT_UNSUPPORTED = 4,  // correct, but not something that is done here
  LLMD_TEXT_LIMIT = 5,        // longer, deeper or more work than allowed
} LlmdTextStatus;

typedef struct LlmdTextSlice {
  const char* data;  // UTF-8, not terminated
  size_t size;
} LlmdTextSlice;

// Where the text of an error goes: cut at `capacity` at a character's border, not terminated.
typedef struct LlmdTextMessage {
  char* data;
  size_t capacity;
  size_t size;  // out
} LlmdTextMessage;

// --- CEL: src/cel.rs ---------------------------------------------------------------------------

typedef struct LlmdCelProgram LlmdCelProgram;

typedef struct LlmdCelLimits {
  size_t source_bytes;
  size_t depth;  // of operators inside operators
  size_t cost;   // of the worst evaluation, in steps
} LlmdCelLimits;

typedef struct LlmdCelInput {
  int64_t value;
  uint8_t present;  // 0 or 1
} LlmdCelInput;

typedef enum LlmdCelKind { LLMD_CEL_INT = 0, LLMD_CEL_DOUBLE = 1, LLMD_CEL_BOOL = 2 } LlmdCelKind;

typedef struct LlmdCelValue {
  int32_t kind;  // LlmdCelKind
  int64_t integer;  // the int, or 0 or 1 for a bool
  double number;    // the double
} LlmdCelValue;

// `paths` are the names of the inputs: identifiers joined by dots, none twice, none the beginning
// of another.
LlmdTextStatus llmd_cel_compile(LlmdTextSlice source, const LlmdTextSlice* paths,
                                size_t path_count, const LlmdCelLimits* limits,
                                LlmdCelProgram** program, LlmdTextMessage* error);
// `inputs` has one element for each path, in their order.
LlmdTextStatus llmd_cel_evaluate(const LlmdCelProgram* program, const LlmdCelInput* inputs,
                                 size_t input_count, LlmdCelValue* result,
                                 LlmdTextMessage* error);
// Null does nothing.
void llmd_cel_free(LlmdCelProgram* program);

// --- Tokenizers: src/tokenizer_border.rs -------------------------------------------------------

typedef struct LlmdTokenizer LlmdTokenizer;

typedef struct LlmdTokenizerInfo {
  uint8_t fast;          // fastokens, else tokenizers
  uint8_t reuses;        // there are places where a text may be cut
  uint8_t fixed_around;  // the ids around a text with special tokens are the same for each text
  uint32_t vocab_size;   // one past the largest id
  LlmdTextSlice reason;  // why the engine is the one it is; lives as long as the tokenizer
  const uint32_t* before;  // the ids around a text, when fixed; live as long as the tokenizer
  size_t before_count;
  const uint32_t* after;
  size_t after_count;
} LlmdTokenizerInfo;

// Takes the ids of a text: called once, or never when encoding fails. May not throw.
typedef void (*LlmdIdSink)(void* context, const uint32_t* ids, size_t count);

// `config`, the tokenizer_config.json, may be empty. With `fast` 0 the engine is tokenizers.
LlmdTextStatus llmd_tokenizer_load(LlmdTextSlice json, LlmdTextSlice config, uint8_t fast,
                                   LlmdTokenizer** tokenizer, LlmdTextMessage* error);
void llmd_tokenizer_info(const LlmdTokenizer* tokenizer, LlmdTokenizerInfo* info);
// Cuts a text where the ids of the pieces are the ids of the whole: the ends of the pieces, the end
// of the text last. All but the last have at least LLMD_PIECE_MIN bytes, so that `capacity` =
// size / LLMD_PIECE_MIN + 1 is enough.
#define LLMD_PIECE_MIN 256
LlmdTextStatus llmd_tokenizer_cut(const LlmdTokenizer* tokenizer, LlmdTextSlice text, size_t* ends,
                                  size_t capacity, size_t* count, LlmdTextMessage* error);
LlmdTextStatus llmd_tokenizer_encode(const LlmdTokenizer* tokenizer, LlmdTextSlice text,
                                     uint8_t add_special_tokens, LlmdIdSink sink, void* context,
                                     LlmdTextMessage* error);
// Null does nothing.
void llmd_tokenizer_free(LlmdTokenizer* tokenizer);

// --- Chat templates: src/chat_border.rs --------------------------------------------------------

typedef struct LlmdChatTemplate LlmdChatTemplate;

typedef struct LlmdChatTemplateLimits {
  size_t template_bytes;
  uint64_t steps;  // of the template's machine; 64 bytes of text made count as one more
  size_t depth;    // a loop or condition counts 1, a macro about 10
  size_t prompt_bytes;
} LlmdChatTemplateLimits;

// Takes a prompt: called once, or never when rendering fails. May not throw.
typedef void (*LlmdTextSink)(void* context, const char* text, size_t size);

// `config` is the tokenizer_config.json, `source` the chat_template.jinja; either may be empty.
// Null comes back when neither has a template. `takes_parts`: the template goes through the parts
// of a content.
LlmdTextStatus llmd_chat_template_load(LlmdTextSlice config, LlmdTextSlice source,
                                       const LlmdChatTemplateLimits* limits,
                                       LlmdChatTemplate** chat_template, uint8_t* takes_parts,
                                       LlmdTextMessage* error);
// `request` is the JSON of a request of chat completions, `now_s` the Unix time.
LlmdTextStatus llmd_chat_template_render(const LlmdChatTemplate* chat_template,
                                         LlmdTextSlice request, int64_t now_s, LlmdTextSink sink,
                                         void* context, LlmdTextMessage* error);
// Null does nothing.
void llmd_chat_template_free(LlmdChatTemplate* chat_template);

#ifdef __cplusplus
}
#endif
