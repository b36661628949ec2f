// What one event of a streamed reply means to a stop watch. Pure, thread-safe, no heap.
#pragma once

#include <cstdint>
#include <string_view>

namespace llmd::bench {

enum class EventKind : uint8_t {
  kToken,  // carries text, reasoning or a tool call: counts for TTFT and inter-token latency
  kOther,  // role, finish reason, usage, empty text
  kError,  // {"error": ...}: the stream failed
  kDone,   // [DONE]
};

// Looks only at the member names that OpenAI's chat and completions chunks use; JSON with blanks
// after the colon is understood too. Text that quotes these names has its quotes escaped, so it
// cannot be mistaken for them.
EventKind ClassifyEvent(std::string_view payload);

}  // namespace llmd::bench
