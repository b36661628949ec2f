// The parts of the simulated server that need no socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/strings.h"
#include "engine/tokens.h"
#include "sim/json_error.h"
#include "sim/length.h"
#include "sim/options.h"
#include "sim/reply_text.h"
#include "sim/request.h"

namespace llmd::sim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ReplyTextTest, Tutorial) {
  const ReplyText text = ReplyText::Echo("Hello, big world");
  EXPECT_EQ(text.size(), 4u);
  EXPECT_EQ(text.piece(1).text, ", ");
  EXPECT_EQ(text.Join(3), "Hello, big ");

  ReplyPlan plan{.tokens = 4};
  ApplyStops(text, {{"o, b", "world"}}, &plan);
  EXPECT_EQ(plan.tokens, 3u);  // complete within "big "
  EXPECT_TRUE(plan.stopped);
  EXPECT_EQ(plan.stop, "o, b");
  EXPECT_EQ(plan.text_bytes_max, 4u);
}

TEST(ReplyTextTest, TokenisingAReplyGivesTheTokensOfItsCycle) {
  for (uint64_t start : {0, 1, 17, 150, 12345}) {
    const ReplyText text = ReplyText::Canned(start);
    std::vector<engine::Token> tokens;
    engine::Tokenize(text.Join(400), &tokens);
    ASSERT_EQ(tokens.size(), 400u);
    for (size_t i = 0; i < 400; ++i) {
      ASSERT_EQ(tokens[i], text.cycle()[(text.cycle_offset() + i) % text.cycle().size()]);
    }
  }
}

TEST(ReplyTextTest, EchoOfNothingIsOneEmptyPiece) {
  for (const char* nothing : {"", "  \n"}) {
    const ReplyText text = ReplyText::Echo(nothing);
    EXPECT_EQ(text.size(), 1u);
    EXPECT_EQ(text.Join(1), nothing);
    EXPECT_EQ(text.cycle().size(), 1u);
  }
}

TEST(ReplyTextTest, StopsThatDoNotOccurChangeNothing) {
  const ReplyText text = ReplyText::Echo("a b c d");
  ReplyPlan plan{.tokens = 3};
  ApplyStops(text, {{"d", "", "zz"}}, &plan);  // "d" is the fourth token
  EXPECT_EQ(plan.tokens, 3u);
  EXPECT_FALSE(plan.stopped);
}

// Places and words from Python 3.11's json module.
TEST(JsonErrorTest, SaysWhatPythonSays) {
  struct Row {
    const char* text;
    size_t position;
    const char* message;
  };
  for (const Row& row : {
           Row{R"({"model":"tiny",)", 16, "Expecting property name enclosed in double quotes"},
           Row{"", 0, "Expecting value"},
           Row{"[", 1, "Expecting value"},
           Row{R"({"a")", 4, "Expecting ':' delimiter"},
           Row{R"({"a" 1})", 5, "Expecting ':' delimiter"},
           Row{R"({"a":1 "b":2})", 7, "Expecting ',' delimiter"},
           Row{"[1,]", 3, "Expecting value"},
           Row{R"({"a":1,})", 7, "Expecting property name enclosed in double quotes"},
           Row{R"("abc)", 0, "Unterminated string starting at"},
           Row{"{\"a\":\"x\ny\"}", 7, "Invalid control character at"},
           Row{R"({"a":"\x"})", 6, "Invalid \\escape"},
           Row{R"({"a":"\u12g4"})", 7, "Invalid \\uXXXX escape"},
           Row{"[1] x", 4, "Extra data"},
           Row{"nul", 0, "Expecting value"},
           Row{R"({"a":-})", 5, "Expecting value"},
           Row{"[01]", 2, "Expecting ',' delimiter"},
           Row{R"({"a":1.})", 6, "Expecting ',' delimiter"},
           Row{"é\"x", 0, "Expecting value"},
           Row{"[\"é\", x]", 6, "Expecting value"},
           Row{"{\"é\":1,", 7, "Expecting property name enclosed in double quotes"},
           Row{"{a:1}", 1, "Expecting property name enclosed in double quotes"},
           Row{"\"\\", 0, "Unterminated string starting at"},
       }) {
    const auto error = FindJsonError(row.text);
    ASSERT_TRUE(error) << row.text;
    EXPECT_EQ(error->position, row.position) << row.text;
    EXPECT_EQ(error->message, row.message) << row.text;
  }
  EXPECT_FALSE(FindJsonError("[NaN,Infinity, -1.5e+3, {\"a\":[null,true,false]}] "));
  EXPECT_TRUE(FindJsonError(std::string(100000, '[')));
}

TEST(LengthTest, FollowsUpstreamsHistogram) {
  base::Random random(3);
  constexpr uint32_t kMost = 200;
  std::vector<int> buckets(6);
  for (int i = 0; i < 20000; ++i) {
    const uint32_t length = RandomLengthUpTo(kMost, &random);
    ASSERT_GE(length, 1u);
    ASSERT_LE(length, kMost);
    ++buckets[length <= 20 ? 0 : length <= 40 ? 1 : length <= 60 ? 2
              : length <= 179 ? 3 : length < 200 ? 4 : 5];
  }
  const double expected[] = {.2, .3, .2, .05, .1, .15};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(buckets[i] / 20000.0, expected[i], .01) << i;
  for (uint32_t most = 0; most < 120; ++most) {
    for (int i = 0; i < 50; ++i) {
      ASSERT_LE(RandomLengthUpTo(most, &random), most);
      if (most > 0) ASSERT_GE(RandomLengthUpTo(most, &random), 1u);
      if (most > 0) ASSERT_LE(RandomLength(most, &random), most);
    }
  }
}

TEST(RequestReaderTest, AConversationIsAPrefixOfItsContinuation) {
  RequestReader reader;
  auto read = [&](std::string_view messages) {
    reader.body() = base::Concat(R"({"model":"m","messages":[)", messages, "]}");
    EXPECT_FALSE(reader.Read(Route::kChat, {}));
    return reader.request().prompts[0].tokens;
  };
  const auto first = read(R"({"role":"user","content":"Hello there"})");
  const auto second = read(
      R"({"role":"user","content":[{"type":"text","text":"Hello there"}]},)"
      R"({"role":"assistant","content":"Well. "},{"role":"user","content":"And now?"})");
  ASSERT_GT(second.size(), first.size());
  EXPECT_TRUE(std::equal(first.begin(), first.end(), second.begin()));
  EXPECT_EQ(second[first.size()], engine::TokenId("Well"));
}

TEST(RequestReaderTest, PromptsInAllForms) {
  RequestReader reader;
  auto sizes = [&](std::string_view prompt) {
    reader.body() = base::Concat(R"({"prompt":)", prompt, "}");
    const auto error = reader.Read(Route::kCompletions, {});
    EXPECT_FALSE(error) << error->message;
    std::vector<size_t> counts;
    for (size_t i = 0; i < reader.request().prompt_count; ++i) {
      counts.push_back(reader.request().prompts[i].token_count);
    }
    return counts;
  };
  EXPECT_THAT(sizes(R"("one two three")"), ElementsAre(3u));
  EXPECT_THAT(sizes(R"(["one", "two three"])"), ElementsAre(1u, 2u));
  EXPECT_THAT(sizes("[5, 6, 7, 8]"), ElementsAre(4u));
  EXPECT_THAT(sizes("[[5, 6], [7]]"), ElementsAre(2u, 1u));
  reader.body() = R"({"prompt":"one two three"})";
  EXPECT_FALSE(reader.Read(Route::kCompletions, {.token_ids = false}));
  EXPECT_TRUE(reader.request().prompts[0].tokens.empty());
  EXPECT_EQ(reader.request().prompts[0].token_count, 3u);
}

TEST(RequestReaderTest, RefusesWhatVllmRefuses) {
  struct Row {
    const char* body;
    const char* message;
  };
  for (const Row& row : {
           Row{R"({"messages":"x"})", "valid list"},
           Row{R"({"messages":[5]})", "'loc': 'body.messages.0'"},
           Row{R"({"messages":[{"content":"x"}]})", "'loc': 'body.messages.0.role'"},
           Row{R"({"messages":[{"role":"user","content":5}]})", "valid string"},
           Row{R"({"messages":[],"stream":"maybe"})", "valid boolean"},
           Row{R"({"messages":[],"max_tokens":1.5})", "fractional part"},
           Row{R"({"messages":[],"max_tokens":[]})", "<list of 0 items>"},
           Row{R"({"messages":[],"n":0})", "n must be at least 1, got 0."},
           Row{R"({"messages":[],"n":100000})", "at most"},
           Row{R"({"messages":[],"stop":5})", "body.stop"},
           Row{R"({"messages":[],"stop":[5]})", "body.stop.0"},
           Row{R"({"messages":[],"stream_options":{"include_usage":true}})", "`stream=True`"},
           Row{R"({"messages":[],"model":5,"seed":"x"})", "2 validation errors"},
           Row{"[]", "valid dictionary"},
           Row{"7", "valid dictionary"},
           Row{"{\"messages\":[\"\xff\"]}", "JSON decode error"},
           Row{"", "Expecting value"},
       }) {
    RequestReader reader;
    reader.body() = row.body;
    const auto error = reader.Read(Route::kChat, {});
    ASSERT_TRUE(error) << row.body;
    EXPECT_EQ(error->status, 400);
    EXPECT_THAT(error->message, HasSubstr(row.message)) << row.body;
  }
}

TEST(OptionsTest, AProfileSetsWhatIsNotGiven) {
  SimOptions options;
  EXPECT_THAT(std::string(Resolve(options).error().message()), HasSubstr("--model"));
  options.model = "m";
  ServerConfig config = *Resolve(options);
  EXPECT_EQ(config.engine.model_tokens_max, 1024u);  // upstream's defaults
  EXPECT_EQ(config.engine.sequences_max, 5u);
  EXPECT_EQ(config.engine.kv_blocks, 1024u);

  options.profile = "qwen3-32b-h100-tp2";
  options.model.clear();
  options.block_tokens = 16;
  options.sequences_max = 7;
  config = *Resolve(options);
  EXPECT_EQ(config.model, "Qwen/Qwen3-32B");
  EXPECT_EQ(config.served, std::vector<std::string>{"Qwen/Qwen3-32B"});
  EXPECT_EQ(config.engine.sequences_max, 7u);
  EXPECT_EQ(config.engine.kv_blocks, 307328u / 16);  // the memory stays, the blocks shrink
  options.kv_blocks = 4000;
  EXPECT_EQ(Resolve(options)->engine.kv_blocks, 4000u);
}

TEST(OptionsTest, RefusesWithTheFlagAndTheRemedy) {
  auto message = [](auto change) {
    SimOptions options;
    options.model = "m";
    change(&options);
    const auto config = Resolve(options);
    return config ? std::string("accepted") : std::string(config.error().message());
  };
  EXPECT_THAT(message([](SimOptions* o) { o->profile = "qwen3-32b-h100-tp3"; }),
              HasSubstr("did you mean qwen3-32b-h100-tp"));
  EXPECT_THAT(message([](SimOptions* o) {
                o->profile = "qwen3-32b-h100-tp2";
                o->inter_token_latency = base::Duration(5);
              }),
              HasSubstr("--inter-token-latency"));
  EXPECT_THAT(message([](SimOptions* o) { o->model_tokens_max = 20000; }),
              HasSubstr("holds 16384 tokens"));
  EXPECT_THAT(message([](SimOptions* o) { o->block_tokens = 0; }), HasSubstr("block size is 0"));
  EXPECT_THAT(message([](SimOptions* o) { o->speedup = 0; }), HasSubstr("--speedup"));
  EXPECT_THAT(message([](SimOptions* o) { o->failure_percent = 101; }), HasSubstr("0 to 100"));
  EXPECT_THAT(message([](SimOptions* o) { o->port = 65000; o->count = 1000; }), HasSubstr("65535"));
  EXPECT_EQ(message([](SimOptions* o) { o->profile = "instant"; }), "accepted");
}

}  // namespace
}  // namespace llmd::sim
