// The C border of the crate llmd-text. Only src/text/ includes it.
//
// Thread safety: each function may be called by any thread; a program is immutable, so many threads
// may evaluate one at once, and it is freed once, by anyone, after the last of them.
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

#ifdef __cplusplus
}
#endif
