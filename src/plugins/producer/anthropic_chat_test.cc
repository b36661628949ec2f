#include "plugins/producer/anthropic_chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>

namespace llmd::plugins {
namespace {

using ::testing::HasSubstr;

std::string Chat(std::string_view body, std::string_view model = "") {
  const auto chat = ChatOfMessages(body, model);
  return chat ? *chat : "error: " + chat.error().ToString();
}

TEST(AnthropicChat, TextsBecomeMessages) {
  EXPECT_EQ(Chat(R"({"model":"claude","max_tokens":5,"system":"Be brief.",
                     "messages":[{"role":"user","content":"Hi \"you\""},
                                 {"role":"assistant","content":[{"type":"text","text":"Hello"}]},
                                 {"role":"user","content":[{"type":"text","text":"a"},
                                                           {"type":"text","text":"b"}]}]})",
                 "llama"),
            R"({"model":"llama","messages":[{"role":"system","content":"Be brief."},)"
            R"({"role":"user","content":"Hi \"you\""},{"role":"assistant","content":"Hello"},)"
            R"({"role":"user","content":[{"type":"text","text":"a"},)"
            R"({"type":"text","text":"b"}]}]})");
}

struct Case {
  const char* what;
  const char* messages;  // the members of the body
  const char* chat;      // the members of the chat
};
void ExpectAll(std::span<const Case> cases) {
  for (const Case& c : cases) {
    EXPECT_EQ(Chat("{" + std::string(c.messages) + "}"), "{" + std::string(c.chat) + "}") << c.what;
  }
}

TEST(AnthropicChat, TextsAndImagesAsVllmHasThem) {
  constexpr Case kCases[] = {
      {"a system prompt of blocks is joined, without the header that changes each time",
       R"("system":[{"type":"text","text":"x-anthropic-billing-header: 1"},
                    {"type":"text","text":"One."},{"type":"text","text":"Two."}],"messages":[])",
       R"("messages":[{"role":"system","content":"One.Two."}])"},
      {"the header in a plain system prompt stays",
       R"("system":"x-anthropic-billing-header: 1","messages":[])",
       R"("messages":[{"role":"system","content":"x-anthropic-billing-header: 1"}])"},
      {"a system message among the others",
       R"("messages":[{"role":"system","content":[{"type":"text","text":"S"}]},
                      {"role":"system","content":""}])",
       R"("messages":[{"role":"system","content":"S"}])"},
      {"a user's message of nothing goes, an assistant's stays",
       R"("messages":[{"role":"user","content":""},{"role":"user","content":[]},
                      {"role":"assistant","content":""}])",
       R"("messages":[{"role":"assistant"}])"},
      {"thinking is the reasoning, redacted thinking is nothing",
       R"("messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"hm ",
          "signature":"s"},{"type":"redacted_thinking","data":"x"},
          {"type":"thinking","thinking":"so"},{"type":"text","text":"Yes"}]}])",
       R"("messages":[{"role":"assistant","content":"Yes","reasoning":"hm so"}])"},
      {"images by URL, as data, and of nothing",
       R"("messages":[{"role":"user","content":[
          {"type":"image","source":{"type":"url","url":"http://x/y.png"}},
          {"type":"image","source":{"url":"http://x/z.png"}},
          {"type":"image","source":{"type":"base64","data":"AA=="}},
          {"type":"image","source":{"type":"base64"}},{"type":"image"}]}])",
       R"("messages":[{"role":"user","content":[)"
       R"({"type":"image_url","image_url":{"url":"http://x/y.png"}},)"
       R"({"type":"image_url","image_url":{"url":"http://x/z.png"}},)"
       R"({"type":"image_url","image_url":{"url":"data:image/jpeg;base64,AA=="}}]}])"},
  };
  ExpectAll(kCases);
}

TEST(AnthropicChat, ToolsAsVllmHasThem) {
  constexpr Case kCases[] = {
      {"tool calls, with json.dumps of what is to go in",
       R"("messages":[{"role":"assistant","content":[{"type":"tool_use","id":"c1","name":"get",
          "input":{"z":1,"a":[true,null,1.50,1e20,1e-7,100000.0,-3],"s":"é\t\"\u0001😀","e":{}}},
          {"type":"tool_use","name":"now"}]}])",
       R"("messages":[{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":)"
       R"({"name":"get","arguments":"{\"z\": 1, \"a\": [true, null, 1.5, 1e+20, 1e-07, )"
       R"(100000.0, -3], \"s\": \"\\u00e9\\t\\\"\\u0001\\ud83d\\ude00\", \"e\": {}}"}},)"
       R"({"id":"call_0000000000","type":"function","function":{"name":"now",)"
       R"("arguments":"{}"}}]}])"},
      {"results of a user come before the user's own text, images in them behind",
       R"("messages":[{"role":"user","content":[{"type":"text","text":"there"},
          {"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"1"},
           {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}},
           {"type":"text","text":"2"}]},
          {"type":"tool_result","tool_use_id":"c2","content":"3"},
          {"type":"tool_result","tool_use_id":"c3"}]}])",
       R"("messages":[{"role":"tool","content":"1\n2","tool_call_id":"c1"},)"
       R"({"role":"user","content":[{"type":"image_url",)"
       R"("image_url":{"url":"data:image/png;base64,AA=="}}]},)"
       R"({"role":"tool","content":"3","tool_call_id":"c2"},)"
       R"({"role":"tool","content":"","tool_call_id":"c3"},{"role":"user","content":"there"}])"},
      {"an assistant's result is text",
       R"("messages":[{"role":"assistant","content":[{"type":"tool_result","content":"7"}]}])",
       R"("messages":[{"role":"assistant","content":"Tool result: 7"}])"},
      {"tools keep the order of their schema's keys",
       R"("messages":[],"tools":[{"name":"get","description":"Gets","strict":true,
          "input_schema":{"type":"object","b":1,"a":2}},
          {"input_schema":null,"name":"now","description":""}])",
       R"("messages":[],"tools":[{"type":"function","function":{"name":"get","description":"Gets",)"
       R"("parameters":{"type":"object","b":1,"a":2},"strict":true}},)"
       R"({"type":"function","function":{"name":"now","parameters":{"type":"object"}}}])"},
  };
  ExpectAll(kCases);
}

TEST(AnthropicChat, WhatIsNoneIsRefused) {
  for (const char* bad :
       {"", "[]", "{", R"({"messages":5})", R"({"messages":["x"]})",
        R"({"messages":[{"role":5}]})", R"({"messages":[{"role":"user","content":7}]})",
        R"({"messages":[{"role":"user","content":[{"type":"text","text":[]}]}]})",
        R"({"messages":[{"role":"user","content":[{"type":"image","source":"x"}]}]})",
        R"({"messages":[],"tools":[{"name":"n","strict":1}]})", "{\"system\":\"\xff\"}"}) {
    EXPECT_THAT(Chat(bad), HasSubstr("error: INVALID_ARGUMENT")) << bad;
  }
  const std::string deep = R"({"messages":[{"role":"assistant","content":[{"type":"tool_use",)"
                           R"("input":)" + std::string(5000, '[');
  EXPECT_THAT(Chat(deep), HasSubstr("error: INVALID_ARGUMENT"));
}

}  // namespace
}  // namespace llmd::plugins
