#include "bench/stream_event.h"

#include "gtest/gtest.h"

namespace llmd::bench {
namespace {

TEST(ClassifyEvent, TellsTokensFromTheRest) {
  struct Case {
    const char* payload;
    EventKind kind;
  };
  for (const Case& c : {
           Case{R"({"id":"c","choices":[{"index":0,"delta":{"content":"hi"}}]})",
                EventKind::kToken},
           Case{R"({"choices": [{"delta": {"content": " a"}}]})", EventKind::kToken},
           Case{R"({"choices":[{"delta":{"role":"assistant","content":""}}]})", EventKind::kOther},
           Case{R"({"choices":[{"delta":{"content":null},"finish_reason":"stop"}]})",
                EventKind::kOther},
           Case{R"({"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}]})",
                EventKind::kToken},
           Case{R"({"choices":[{"delta":{"reasoning":"hm"}}]})", EventKind::kToken},
           Case{R"({"choices":[{"delta":{"tool_calls":[{"index":0}]}}]})", EventKind::kToken},
           Case{R"({"choices":[{"delta":{"tool_calls":[]}}]})", EventKind::kOther},
           Case{R"({"choices":[{"index":0,"text":"x","logprobs":null}]})", EventKind::kToken},
           Case{R"({"choices":[{"text":"","finish_reason":"length"}]})", EventKind::kOther},
           // Two choices, the first one empty.
           Case{R"({"choices":[{"text":""},{"text":"x"}]})", EventKind::kToken},
           Case{R"({"choices":[],"usage":{"prompt_tokens":3}})", EventKind::kOther},
           Case{R"({"error":{"message":"engine died"}})", EventKind::kError},
           Case{R"({ "error": {"message":"engine died"}})", EventKind::kError},
           // The word inside a text is escaped and no member name.
           Case{R"({"choices":[{"delta":{"refusal":"\"content\":\"x\""}}]})", EventKind::kOther},
           Case{"[DONE]", EventKind::kDone},
           Case{"", EventKind::kOther},
           Case{R"("content":)", EventKind::kOther},
           Case{R"("content":")", EventKind::kOther},
       }) {
    EXPECT_EQ(ClassifyEvent(c.payload), c.kind) << c.payload;
  }
}

}  // namespace
}  // namespace llmd::bench
