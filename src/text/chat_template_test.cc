#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <utility>
#include <vector>

#include "base/strings.h"

namespace llmd::text {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

constexpr int64_t kNow = 1'750'000'000;  // 2025-06-15 15:06:40 UTC, a Sunday

constexpr char kConfig[] = R"({"bos_token": {"content": "<s>", "lstrip": false},
                               "eos_token": "</s>", "pad_token": null})";

ChatTemplate Compile(std::string_view source) {
  auto loaded = ChatTemplate::Load({.tokenizer_config_json = kConfig, .chat_template = source});
  EXPECT_TRUE(loaded) << loaded.error().ToString();
  return *std::move(loaded);
}

// The prompt, or the status.
std::string Render(const ChatTemplate& chat_template, std::string_view request) {
  std::string prompt;
  const base::Status status = chat_template.Render(request, {.now_s = kNow}, prompt);
  return status.ok() ? prompt : status.ToString();
}

std::string Render(std::string_view source, std::string_view request) {
  return Render(Compile(source), request);
}

constexpr char kHello[] = R"({"messages": [{"role": "user", "content": "Hello"}]})";

TEST(ChatTemplate, RendersTheMessages) {
  const ChatTemplate chatml = Compile(
      "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message['content'] }}"
      "{{ eos_token }}\n{% endfor %}\n"
      "{% if add_generation_prompt %}<|assistant|>{% endif %}\n");
  EXPECT_EQ(chatml.content_format(), ChatContentFormat::kString);
  EXPECT_EQ(Render(chatml, kHello), "<s><|user|>Hello</s>\n<|assistant|>");
  EXPECT_EQ(Render(chatml, R"({"messages": [{"role": "system", "content": "é\n"},
                               {"role": "user", "content": [{"type": "text", "text": "a"},
                                {"type": "text", "text": ""}, {"type": "text", "text": "b"}]}],
                               "add_generation_prompt": false, "max_tokens": 3})"),
            "<s><|system|>é\n</s>\n<|user|>a\nb</s>\n");
}

struct Case {
  const char* name;
  const char* source;
  const char* wanted;
};

class Language : public testing::TestWithParam<Case> {};

// What comes out is what Python's jinja2 gives with transformers' settings; tests/
// peers/text_models_test.sh compares whole templates.
TEST_P(Language, IsPythons) {
  EXPECT_EQ(Render(GetParam().source,
                   R"({"messages": [{"role": "user", "content": "  Hello, World \n"}],
                       "tools": [{"function": {"parameters": {"b": 1.0, "a": [1, null, true]},
                                               "name": "é\"<"}}],
                       "chat_template_kwargs": {"x": 1e22, "y": "a b  c", "z": [1, 2, 3],
                                                "d": {"k": "v", "n": null}}})"),
            GetParam().wanted);
}

INSTANTIATE_TEST_SUITE_P(
    ChatTemplate, Language,
    testing::Values(
        Case{"json", "{{ tools | tojson }}",
             R"([{"type": "function", "function": {"name": "é\"<", "description": null, )"
             R"("parameters": {"b": 1.0, "a": [1, null, true]}}}])"},
        Case{"json_indent", "{{ d | tojson(indent=2) }}", "{\n  \"k\": \"v\",\n  \"n\": null\n}"},
        Case{"json_ascii", "{{ 'é😀' | tojson(ensure_ascii=True) }}", R"("\u00e9\ud83d\ude00")"},
        Case{"json_separators", "{{ d | tojson(separators=(',', ':')) }}", R"({"k":"v","n":null})"},
        Case{"json_sorted", "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}",
             R"({"a": 2, "b": 1})"},
        Case{"floats", "{{ x }} {{ 0.5 }} {{ x | string }} {{ 1e-5 | tojson }}",
             "1e+22 0.5 1e+22 1e-05"},
        Case{"constants", "{{ true }} {{ none }} {{ [1, 'a', none] }}", "True None [1, 'a', None]"},
        Case{"now", "{{ strftime_now('%Y-%m-%d %H:%M %B %b %A %-d %j %p%%') }}",
             "2025-06-15 15:06 June Jun Sunday 15 166 PM%"},
        Case{"strip", "[{{ messages[0].content.strip() }}][{{ messages[0].content | trim }}]",
             "[Hello, World][Hello, World]"},
        Case{"strip_chars",
             "{{ 'xxaxx'.strip('x') }}{{ 'xxa'.lstrip('x') }}{{ 'axx'.rstrip('x') }}", "aaa"},
        Case{"split", "{{ y.split() }} {{ y.split(' ') }} {{ y.split(' ', 1) }}",
             "['a', 'b', 'c'] ['a', 'b', '', 'c'] ['a', 'b  c']"},
        Case{"rsplit", "{{ y.rsplit(' ', maxsplit=1) }} {{ y.rsplit(None, 1) }}",
             "['a b ', 'c'] ['a b', 'c']"},
        Case{"affixes", "{{ 'a-b'.removeprefix('a') }}{{ 'a-b'.removesuffix('-b') }}", "-ba"},
        Case{"partition", "{{ 'k=v=w'.partition('=')[2] }} {{ 'k=v=w'.rpartition('=')[0] }}",
             "v=w k=v"},
        Case{"indent", "{{ 'a\n\nb\n' | indent(2, first=true) }}.", "  a\n\n  b\n."},
        Case{"dicts", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{{ d.get('q', 7) }}",
             "k=v;n=None;7"},
        Case{"slices", "{{ z[1:] }}{{ z[::-1] }}{{ z[-1] }}", "[2, 3][3, 2, 1]3"},
        Case{"loops", "{% for i in z %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
             "13"},
        Case{"namespace",
             "{% set n = namespace(a=0) %}{% for i in z %}{% set n.a = n.a + i %}"
             "{% endfor %}{{ n.a }}",
             "6"},
        Case{"macro",
             "{% macro m(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(2, b=3) }}",
             "1x23"},
        Case{"generation", "a\n{%- generation -%} b {%- endgeneration %} c", "ab c"},
        Case{"blocks", "  {% if true %}\n  x\n  {% endif %}\ny", "  x\ny"},
        Case{"undefined",
             "[{{ nothing }}]{{ nothing is defined }}{{ tools is defined }}"
             "{{ documents is none }}",
             "[]FalseTrueTrue"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(ChatTemplate, GivesPartsToTemplatesThatGoThroughThem) {
  const ChatTemplate parts = Compile(
      "{% for m in messages %}{% for part in m['content'] %}<{{ part.type }}:{{ part.text }}>"
      "{% endfor %}{% endfor %}");
  EXPECT_EQ(parts.content_format(), ChatContentFormat::kOpenai);
  EXPECT_EQ(Render(parts, kHello), "<text:Hello>");
  // vLLM joins the parts of a tool's answer all the same.
  EXPECT_EQ(Render("{% for m in messages %}{% for p in m.content %}{% endfor %}{{ m.content }}"
                   "{% endfor %}",
                   R"({"messages": [{"role": "tool", "content": [{"type": "text", "text": "a"},
                               {"type": "text", "text": "b"}]}]})"),
            "a\nb");
}

TEST(ChatTemplate, PreparesToolCallsAndReasoning) {
  EXPECT_EQ(Render("{{ messages[0] | tojson }}",
                   R"({"messages": [{"role": "assistant", "extra": 1, "reasoning_content": "r",
                 "tool_calls": [{"type": "function", "id": "i",
                                 "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": 2}"}},
                                {"function": {"arguments": "nonsense", "name": "g"}}]}]})"),
            R"({"thinking": "r", "role": "assistant", "content": "", "tool_calls": [)"
            R"({"id": "i", "function": {"arguments": {"b": 1, "a": 2}, "name": "f"}, )"
            R"("type": "function"}, )"
            R"({"function": {"arguments": {}, "name": "g"}}], "reasoning": "r", )"
            R"("reasoning_content": "r"})");
  EXPECT_EQ(Render("{{ enable_thinking }} {{ reasoning_effort }}",
                   R"({"messages": [{"role": "user"}], "reasoning_effort": "none"})"),
            "False none");
}

TEST(ChatTemplate, ContinuesTheFinalMessage) {
  const char source[] =
      "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[end]{% endfor %}";
  EXPECT_EQ(Render(source, R"({"messages": [{"role": "user", "content": "a"},
                                            {"role": "assistant", "content": "It is "}],
                               "add_generation_prompt": false, "continue_final_message": true})"),
            "[user]a[end][assistant]It is");
  EXPECT_THAT(Render(source, R"({"messages": [{"role": "assistant", "content": "x"}],
                                 "continue_final_message": true})"),
              HasSubstr("exclude each other"));
}

TEST(ChatTemplate, TakesTemplateAndTokensFromTheConfig) {
  const auto one = ChatTemplate::Load(
      {.tokenizer_config_json = R"({"chat_template": "{{ eos_token }}!", "eos_token": "E"})"});
  ASSERT_TRUE(one);
  EXPECT_EQ(Render(*one, kHello), "E!");
  const auto two = ChatTemplate::Load(
      {.tokenizer_config_json = R"({"chat_template": [{"name": "default", "template": "plain"},
                                    {"name": "tool_use", "template": "tools"}]})"});
  ASSERT_TRUE(two);
  EXPECT_EQ(Render(*two, kHello), "plain");
  EXPECT_EQ(Render(*two, R"({"messages": [{"role": "user"}], "tools": []})"), "tools");
  const auto none = ChatTemplate::Load({.tokenizer_config_json = "{}"});
  EXPECT_EQ(none.error().code(), base::StatusCode::kNotFound);
}

TEST(ChatTemplate, SaysWhatIsWrongWithATemplate) {
  const auto loaded = ChatTemplate::Load({.chat_template = "a\n{% if %}"});
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code(), base::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(loaded.error().message()), HasSubstr("line 2"));
  const std::string large(kChatTemplateBytesMax + 1, 'x');
  EXPECT_EQ(ChatTemplate::Load({.chat_template = large}).error().code(),
            base::StatusCode::kResourceExhausted);
  EXPECT_EQ(ChatTemplate::Load({.tokenizer_config_json = "{"}).error().code(),
            base::StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, RefusesTemplatesThatCouldTakeTheStack) {
  const auto repeated = [](std::string_view text) {
    std::string out;
    for (int i = 0; i < 50'000; ++i) out += text;
    return out;
  };
  for (const std::string& source : {
           "{{ " + repeated("(") + "1" + repeated(")") + " }}",
           "{{ " + repeated("[") + repeated("]") + " }}",
           "{{ " + repeated("not ") + "1 }}",
           "{{ 1" + repeated("+1") + " }}",
           "{{ x" + repeated(".a") + " }}",
           "{{ x" + repeated("|e") + " }}",
           "{% if a %}" + repeated("{% elif a %}") + "{% endif %}",
           repeated("{% if a %}") + repeated("{% endif %}"),
       }) {
    EXPECT_FALSE(ChatTemplate::Load({.chat_template = source})) << source.substr(0, 20);
  }
}

TEST(ChatTemplate, AnswersWrongRequestsWithAStatus) {
  const ChatTemplate chat = Compile("{{ messages }}");
  const std::vector<std::pair<std::string, base::StatusCode>> cases = {
      {"", base::StatusCode::kInvalidArgument},
      {"[]", base::StatusCode::kInvalidArgument},
      {"{}", base::StatusCode::kInvalidArgument},
      {R"({"messages": []})", base::StatusCode::kInvalidArgument},
      {R"({"messages": [1]})", base::StatusCode::kInvalidArgument},
      {R"({"messages": [{"content": "x"}]})", base::StatusCode::kInvalidArgument},
      {R"({"messages": [{"role": "user", "content": 1}]})", base::StatusCode::kInvalidArgument},
      {R"({"messages": [{"role": "user", "content": [{"type": "odd"}]}]})",
       base::StatusCode::kInvalidArgument},
      {R"({"messages": [{"role": "user"}], "tools": {}})", base::StatusCode::kInvalidArgument},
      {R"({"messages": [{"role": "user"}], "chat_template_kwargs": {"tokenize": 1}})",
       base::StatusCode::kInvalidArgument},
      {R"({"messages": [{"role": "user"}], "chat_template": "x"})",
       base::StatusCode::kUnimplemented},
      {R"({"messages": [{"role": "user", "content": [{"type": "image_url",
           "image_url": {"url": "x"}}]}]})",
       base::StatusCode::kUnimplemented},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\"}]}",
       base::StatusCode::kInvalidArgument},
  };
  for (const auto& [request, wanted] : cases) {
    std::string prompt = "old";
    EXPECT_EQ(chat.Render(request, {}, prompt).code(), wanted) << request;
    EXPECT_EQ(prompt, "") << request;
  }
}

TEST(ChatTemplate, PassesOnWhatTheTemplateRefuses) {
  EXPECT_EQ(Render("{{ raise_exception('Only ' ~ 2 ~ ' roles') }}", kHello),
            "FAILED_PRECONDITION: chat template: line 1: the template says: Only 2 roles");
  EXPECT_THAT(Render("{% for t in tools %}{% endfor %}", kHello),
              HasSubstr("None is not iterable"));
  EXPECT_THAT(Render("{{ messages.append(1) }}", kHello), HasSubstr("FAILED_PRECONDITION"));
}

TEST(ChatTemplate, EndsWhateverTheTemplate) {
  const std::vector<std::string> sources = {
      "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
      "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
      "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
      "{{ 'x' * 99999999999 }}",
      "{{ ('x' * 1000000).replace('x', 'y' * 1000000) }}",
      "{% for i in range(99999) %}{{ 'y' * 99999 }}{% endfor %}",
      "{{ 'x'.ljust(99999999) }}",
      "{{ '%999999999d' % 1 }}",
      "{{ range(999999999999) | list | length }}",
  };
  for (const std::string& source : sources) {
    std::string prompt;
    EXPECT_FALSE(Compile(source).Render(kHello, {}, prompt).ok()) << source;
  }
  const std::string deep =
      base::Concat(R"({"messages": [{"role": "user"}], "chat_template_kwargs": {"x": )",
                   std::string(100'000, '['), std::string(100'000, ']'), "}}");
  EXPECT_THAT(Render("{{ x }}", deep), HasSubstr("INVALID_ARGUMENT"));
}

}  // namespace
}  // namespace llmd::text
