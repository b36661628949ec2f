#include "workload/prompts.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace llmd::workload {
namespace {

std::string Write(const TextSpec& text, const Corpus& corpus) {
  std::string out;
  Corpus::AppendUnique(text, &out);
  std::vector<std::string_view> windows;
  corpus.AppendWindows(text, &windows);
  for (const std::string_view window : windows) out += window;
  return out;
}

TEST(Prompts, IndependentPromptsHaveTheirSizeAndAreDistinct) {
  const auto source =
      PromptSource::New({.length = LengthSpec::Fixed(100), .output_tokens = LengthSpec::Fixed(7)});
  ASSERT_TRUE(source);
  std::set<std::string> starts;
  for (uint64_t i = 0; i < 200; ++i) {
    const Prompt prompt = source->At(i, false);
    EXPECT_EQ(prompt.system.bytes, 0u);
    EXPECT_EQ(prompt.output_tokens, 7u);
    const std::string text = Write(prompt.user, source->corpus());
    EXPECT_EQ(text.size(), 400u);
    EXPECT_EQ(std::ranges::count(text, ' '), 100);
    EXPECT_EQ(text, Write(source->At(i, false).user, source->corpus()));
    starts.insert(text.substr(0, 64));
    starts.insert(Write(source->At(i, true).user, source->corpus()).substr(0, 64));
  }
  EXPECT_EQ(starts.size(), 400u) << "warm-up prompts must not be those of the measured part";
}

TEST(Prompts, TextNeedsNoEscapes) {
  const Corpus corpus;
  const std::string text = Write({.seed = 99, .bytes = 200000}, corpus);
  EXPECT_TRUE(std::ranges::all_of(text, [](char c) { return c == ' ' || (c >= 'a' && c <= 'z'); }));
}

TEST(Prompts, EverySizeIsExact) {
  const Corpus corpus;
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{3}, uint64_t{31}, uint64_t{63},
                               uint64_t{64}, uint64_t{65}, uint64_t{1000}, uint64_t{Corpus::kBytes},
                               uint64_t{3 * Corpus::kBytes + 17}}) {
    for (uint64_t seed = 0; seed < 5; ++seed) {
      const std::string text = Write({.seed = seed * 0x123456789abcd, .bytes = bytes}, corpus);
      EXPECT_EQ(text.size(), bytes);
      for (size_t i = 0; i < std::min<size_t>(text.size(), 4096); ++i) {
        ASSERT_EQ(text[i] == ' ', i % 4 == 3) << "words of three letters, also across windows";
      }
    }
  }
}

TEST(Prompts, BytesAreBytes) {
  const auto source =
      PromptSource::New({.length = LengthSpec::Fixed(1021), .length_in_bytes = true});
  ASSERT_TRUE(source);
  EXPECT_EQ(source->At(3, false).user.bytes, 1021u);
}

TEST(Prompts, GroupsShareTheirSystemPromptAndCycle) {
  PromptSpec spec{.shared_prefix = true,
                  .groups = {.group_count = 4,
                             .prompts_per_group = 3,
                             .system_tokens = LengthSpec::Fixed(60),
                             .question_tokens = LengthSpec::Fixed(12)},
                  .output_tokens = LengthSpec::Fixed(5)};
  const auto source = PromptSource::New(spec);
  ASSERT_TRUE(source);
  EXPECT_EQ(source->distinct_count(), 12u);
  std::map<std::string, std::set<std::string>> questions;
  std::string order;
  for (uint64_t i = 0; i < 24; ++i) {
    const Prompt prompt = source->At(i, i % 2 == 0);
    const std::string system = Write(prompt.system, source->corpus());
    const std::string question = Write(prompt.user, source->corpus());
    EXPECT_EQ(system.size(), 240u);
    EXPECT_EQ(question.size(), 48u);
    questions[system].insert(question);
    if (i >= 12) {
      EXPECT_EQ(question, Write(source->At(i - 12, false).user, source->corpus()));
    }
    order += std::to_string(prompt.system.seed) + " ";
  }
  ASSERT_EQ(questions.size(), 4u);
  for (const auto& [system, of_group] : questions) EXPECT_EQ(of_group.size(), 3u);

  spec.seed = 2;
  std::string other_order;
  const auto other = PromptSource::New(spec);
  for (uint64_t i = 0; i < 24; ++i) {
    other_order += std::to_string(other->At(i, false).system.seed) + " ";
  }
  EXPECT_NE(order, other_order);
}

// Were the prompts not shuffled, those of one group would come one after the other.
TEST(Prompts, GroupsAreShuffled) {
  const auto source = PromptSource::New(
      {.shared_prefix = true, .groups = {.group_count = 20, .prompts_per_group = 20}});
  ASSERT_TRUE(source);
  int neighbours_of_one_group = 0;
  for (uint64_t i = 1; i < 400; ++i) {
    neighbours_of_one_group +=
        source->At(i, false).system.seed == source->At(i - 1, false).system.seed;
  }
  EXPECT_LT(neighbours_of_one_group, 60);  // 20 expected, 380 unshuffled
}

TEST(Prompts, RefusesGroupsOutOfBounds) {
  EXPECT_FALSE(PromptSource::New({.shared_prefix = true, .groups = {.group_count = 0}}));
  EXPECT_FALSE(PromptSource::New({.shared_prefix = true, .groups = {.prompts_per_group = 0}}));
  const auto many =
      PromptSource::New({.shared_prefix = true,
                         .groups = {.group_count = UINT64_MAX, .prompts_per_group = UINT64_MAX}});
  ASSERT_FALSE(many);
  EXPECT_THAT(std::string(many.error().message()), ::testing::HasSubstr("1048576"));
}

}  // namespace
}  // namespace llmd::workload
