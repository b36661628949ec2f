#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <atomic>
#include <span>
#include <thread>

#include "text/tokenizer_testing.h"

namespace llmd::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

using Ids = std::vector<uint32_t>;

std::shared_ptr<const Tokenizer> Load(const std::string& json, const TokenizerOptions& options = {},
                                      std::string_view config = "") {
  const auto loaded =
      Tokenizer::Load({.tokenizer_json = json, .tokenizer_config_json = config}, options);
  EXPECT_TRUE(loaded) << loaded.error().ToString();
  return loaded ? *loaded : nullptr;
}

Ids Encode(const Tokenizer& tokenizer, std::string_view text, bool special = false) {
  Ids ids;
  const base::Status status = tokenizer.Encode(text, special, ids);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return ids;
}

TEST(Tokenizer, EncodesAndSaysWhatDoesIt) {
  const auto tokenizer = Load(SmallTokenizerJson());
  EXPECT_EQ(tokenizer->engine(), TokenizerEngine::kFastokens);
  EXPECT_THAT(tokenizer->engine_reason(), StartsWith("fastokens: equal ids in"));
  EXPECT_EQ(tokenizer->vocab_size(), 269u);
  EXPECT_TRUE(tokenizer->reuses_prefixes());
  // 257 is "the", 258 " the", 267 the turn marker.
  EXPECT_THAT(Encode(*tokenizer, "the the<|turn|>x"), ElementsAre(257, 258, 267, 'x'));
  EXPECT_THAT(Encode(*tokenizer, ""), ElementsAre());
}

TEST(Tokenizer, AddsSpecialTokensOnRequest) {
  const auto tokenizer = Load(SmallTokenizerJson({}, kBeginPostProcessor));
  EXPECT_THAT(Encode(*tokenizer, "x", true), ElementsAre(266, 'x'));
  EXPECT_THAT(Encode(*tokenizer, "x", false), ElementsAre('x'));
  EXPECT_THAT(Encode(*tokenizer, "", true), ElementsAre(266));
}

TEST(Tokenizer, TakesTheOtherEngineWhenAskedTo) {
  const auto plain = Load(SmallTokenizerJson(), {.fast = false});
  EXPECT_EQ(plain->engine(), TokenizerEngine::kTokenizers);
  EXPECT_EQ(TokenizerEngineName(plain->engine()), "tokenizers");
  const auto fast = Load(SmallTokenizerJson());
  const std::string text = EnglishText(20'000, 3);
  EXPECT_EQ(Encode(*plain, text), Encode(*fast, text));
}

TEST(Tokenizer, FallsBackWithAReasonWhenTheFastOneRefuses) {
  std::string json = SmallTokenizerJson();
  // A pre-tokenizer that only `tokenizers` knows.
  const std::string known = R"({"type":"ByteLevel","add_prefix_space":false,)";
  json.insert(json.find(known), R"({"type":"UnicodeScripts"},)");
  const auto tokenizer = Load(json);
  EXPECT_EQ(tokenizer->engine(), TokenizerEngine::kTokenizers);
  EXPECT_THAT(tokenizer->engine_reason(), StartsWith("tokenizers: fastokens refused it"));
}

TEST(Tokenizer, KnowsTokensOfTheConfigToo) {
  const auto tokenizer = Load(SmallTokenizerJson(), {},
                              R"({"added_tokens_decoder": {"269": {"content": "<|tool|>",
                                  "special": true, "normalized": false}}})");
  EXPECT_THAT(Encode(*tokenizer, "x<|tool|>"), ElementsAre('x', 269));
  EXPECT_EQ(tokenizer->vocab_size(), 270u);
}

TEST(Tokenizer, SaysWhatIsWrongWithAFile) {
  for (const std::string json : {"", "{", "[]", "{\"model\": 1}"}) {
    const auto loaded = Tokenizer::Load({.tokenizer_json = json});
    ASSERT_FALSE(loaded) << json;
    EXPECT_EQ(loaded.error().code(), base::StatusCode::kInvalidArgument) << json;
    EXPECT_THAT(std::string(loaded.error().message()), HasSubstr("tokenizer.json"));
  }
}

TEST(Tokenizer, RefusesWhatIsNoTextOrTooLong) {
  const auto tokenizer = Load(SmallTokenizerJson());
  Ids ids = {1};
  EXPECT_EQ(tokenizer->Encode("\xff\xfe", false, ids).code(), base::StatusCode::kInvalidArgument);
  EXPECT_TRUE(ids.empty());
  EXPECT_EQ(tokenizer->Encode(std::string(kTokenizeBytesMax + 1, 'a'), false, ids).code(),
            base::StatusCode::kResourceExhausted);
}

TEST(Tokenizer, StopsBetweenChunksWhenCancelled) {
  const auto tokenizer = Load(SmallTokenizerJson());
  const std::atomic<bool> cancel = true;
  Ids ids;
  EXPECT_EQ(tokenizer->Encode(EnglishText(10'000, 1), false, ids, &cancel).code(),
            base::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(ids.empty());
}

TEST(Tokenizer, TakesWhatWasSeenFromTheCache) {
  const auto tokenizer = Load(SmallTokenizerJson());
  const std::string before = "<|turn|>" + EnglishText(50'000, 1) + "<|end|>";
  const Ids first = Encode(*tokenizer, before);
  EXPECT_EQ(tokenizer->cache_stats().hit_bytes, 0u);
  const uint64_t seen = tokenizer->cache_stats().miss_bytes;
  const std::string after = before + "<|turn|>" + EnglishText(1000, 2) + "<|end|>";
  const Ids second = Encode(*tokenizer, after);
  EXPECT_EQ(tokenizer->cache_stats().hit_bytes, before.size());
  EXPECT_EQ(tokenizer->cache_stats().miss_bytes, seen + after.size() - before.size());
  EXPECT_TRUE(std::ranges::equal(first, std::span(second).first(first.size())));
  EXPECT_EQ(second, Encode(*Load(SmallTokenizerJson(), {.reuse = false}), after));
}

TEST(Tokenizer, ReusesAGrowingTextWithoutMarkers) {
  const auto tokenizer = Load(SmallTokenizerJson());
  const std::string text = EnglishText(100'000, 1);
  Encode(*tokenizer, text.substr(0, 80'000));
  Encode(*tokenizer, text);
  EXPECT_GT(tokenizer->cache_stats().hit_bytes, 75'000u);
}

TEST(Tokenizer, KeepsTheCacheWithinItsBudget) {
  const size_t budget = 256 << 10;
  const auto tokenizer = Load(SmallTokenizerJson(), {.cache_bytes = budget});
  for (unsigned seed = 0; seed < 40; ++seed) Encode(*tokenizer, EnglishText(40'000, seed));
  const Tokenizer::CacheStats stats = tokenizer->cache_stats();
  EXPECT_LE(stats.bytes, budget);
  EXPECT_GT(stats.bytes, budget / 2);
  EXPECT_GT(stats.evicted_chunks, 0u);
  EXPECT_GT(stats.chunks, 0u);
}

TEST(Tokenizer, MayBeUsedByManyThreads) {
  const auto tokenizer = Load(SmallTokenizerJson(), {.cache_bytes = 128 << 10});
  const auto twin = Load(SmallTokenizerJson(), {.reuse = false});
  std::vector<Ids> wanted;
  for (unsigned seed = 0; seed < 8; ++seed) {
    wanted.push_back(Encode(*twin, EnglishText(20'000, seed)));
  }
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 40; ++i) {
        const unsigned seed = (i + t) % 8;
        if (Encode(*tokenizer, EnglishText(20'000, seed)) != wanted[seed]) ++wrong;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(wrong, 0);
}

// The twin tokenises each text whole, with `tokenizers`, without cache and borders. Tokens that
// hold blanks, letters before blanks and newlines are among the added ones.
TEST(Tokenizer, PiecesGiveTheIdsOfTheWhole) {
  const std::vector<std::vector<std::string>> vocabularies = {
      {}, {"\n\n", "x y", "<|e"}, {"end\nof"}, {" <|turn|>"}};
  const std::vector<std::string> pieces = {
      "<|turn|>", "<|end|>", "<|begin|", "the ",  " the", "\n",   "\n\n",    " ",    "\r\n", "x",
      "x y",      "end\nof", "1234",     "'s",    ".",    "?!\n", "/",       "中文", "。\n", "😀",
      "e\u0301",  "\u3000",  "\u00a0",   "ing\n", "a b ", "\t",   "ll\n\nA", "<|e",  "\n/",  "Z\n"};
  for (const auto& more : vocabularies) {
    const std::string json = SmallTokenizerJson(more);
    const auto tokenizer = Load(json);
    const auto twin = Load(json, {.fast = false, .reuse = false});
    EXPECT_TRUE(rc::check([&] {
      const size_t count = *rc::gen::inRange<size_t>(0, 1500);
      const auto picks = *rc::gen::container<std::vector<size_t>>(
          count, rc::gen::inRange<size_t>(0, pieces.size()));
      std::string text;
      for (const size_t pick : picks) text += pieces[pick];
      RC_ASSERT(Encode(*tokenizer, text, true) == Encode(*twin, text, true));
    }));
  }
}

}  // namespace
}  // namespace llmd::text
