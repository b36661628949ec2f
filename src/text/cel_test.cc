#include "text/cel.h"

#include <cmath>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace llmd::text {
namespace {

using base::StatusCode;
using testing::HasSubstr;

constexpr std::string_view kPaths[] = {"usage.prompt_tokens", "usage.completion_tokens",
                                       "usage.total_tokens",
                                       "usage.prompt_tokens_details.cached_tokens"};
using Inputs = std::vector<std::optional<int64_t>>;
const Inputs kUsual = {10, 3, 13, std::nullopt};

base::Result<CelValue> Evaluate(std::string_view source, const Inputs& inputs = kUsual) {
  LLMD_ASSIGN_OR_RETURN(const CelExpression expression, CelExpression::Compile(source, kPaths));
  return expression.Evaluate(inputs);
}

std::string Describe(const base::Result<CelValue>& result) {
  if (!result) return result.error().ToString();
  if (const auto* integer = std::get_if<int64_t>(&*result)) return std::to_string(*integer);
  if (const auto* number = std::get_if<double>(&*result)) return std::to_string(*number);
  return std::get<bool>(*result) ? "true" : "false";
}

TEST(CelExpression, IsCompiledOnceAndEvaluatedForEachReply) {
  const auto cost = CelExpression::Compile(
      "usage.prompt_tokens + (has(usage.completion_tokens) ? 2.0 * usage.completion_tokens : 0.0)",
      kPaths);
  ASSERT_TRUE(cost) << cost.error().ToString();
  EXPECT_EQ(Describe(cost->Evaluate(Inputs{10, 3, 13, std::nullopt})), "16.000000");
  EXPECT_EQ(Describe(cost->Evaluate(Inputs{10, std::nullopt, 10, 8})), "10.000000");
}

// The semantics are tested in rust/llmd-text; here, that each kind of answer crosses the border.
TEST(CelExpression, AnswersAreTyped) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"usage.prompt_tokens", "10.000000"},
      {"int(usage.prompt_tokens)", "10"},
      {"usage.prompt_tokens > 9", "true"},
      {"has(usage.prompt_tokens_details)", "false"},
      {"-9223372036854775808", "-9223372036854775808"},
      {"9223372036854775807", "9223372036854775807"},
      {"1.0 / 0.0", "inf"},
  };
  for (const auto& [source, expected] : cases) {
    EXPECT_EQ(Describe(Evaluate(source)), expected) << source;
  }
}

TEST(CelExpression, AnEvaluationCanFail) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"usage.other", "No such key: other"},
      {"usage.prompt_tokens_details.cached_tokens", "No such key"},
      {"usage.prompt_tokens + 1", ""},
      {"9223372036854775807 + int(usage.prompt_tokens)", "Overflow"},
      {"1 / int(usage.prompt_tokens - 10.0)", "by zero"},
      {"'ten'", "neither int, double nor bool"},
  };
  for (const auto& [source, part] : cases) {
    const auto result = Evaluate(source);
    ASSERT_FALSE(result) << source << " is " << Describe(result);
    EXPECT_EQ(result.error().code(), StatusCode::kFailedPrecondition) << source;
    EXPECT_THAT(std::string(result.error().message()), HasSubstr(part)) << source;
  }
}

TEST(CelExpression, WhatIsWrongWithAnExpressionIsSaidWithItsPlace) {
  const std::pair<std::string, std::string_view> cases[] = {
      {"", "1:1: "},
      {"1 +\n other", "2:2: undeclared reference to 'other'"},
      {"1 + 'a'", "no matching overload for '_+_' applied to '(int, string)'"},
      {std::string("\xff"), "not UTF-8"},
      {std::string("1\0", 2), ""},
      {std::string(kCelSourceBytesMax + 1, '1'), "4097 bytes of at most 4096"},
      {std::string(kCelDepthMax + 1, '(') + "1" + std::string(kCelDepthMax + 1, ')'), "nested"},
      {std::string(4000, 'x'), "undeclared reference to 'xxx"},
  };
  for (const auto& [source, part] : cases) {
    const auto result = CelExpression::Compile(source, kPaths);
    ASSERT_FALSE(result) << source;
    EXPECT_EQ(result.error().code(), StatusCode::kInvalidArgument) << source;
    EXPECT_THAT(std::string(result.error().message()), HasSubstr(part)) << source;
  }
}

TEST(CelExpression, NoPathsAtAllIsFine) {
  const auto expression = CelExpression::Compile("1 + 2", {});
  ASSERT_TRUE(expression);
  EXPECT_EQ(Describe(expression->Evaluate({})), "3");
}

TEST(CelExpression, ManyThreadsEvaluateOne) {
  const auto sum = CelExpression::Compile("usage.prompt_tokens + usage.completion_tokens", kPaths);
  ASSERT_TRUE(sum);
  std::vector<std::thread> threads;
  for (int64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&sum, thread] {
      for (int64_t round = 0; round < 500; ++round) {
        const auto value = sum->Evaluate(Inputs{thread, round, std::nullopt, std::nullopt});
        ASSERT_EQ(std::get<double>(*value), static_cast<double>(thread + round));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(CelExpressionDeathTest, PathsAndInputsMustFit) {
  constexpr std::string_view kTwice[] = {"usage.a", "usage.a"};
  constexpr std::string_view kBeginning[] = {"usage", "usage.a"};
  EXPECT_DEATH((void)CelExpression::Compile("1", kTwice), "");
  EXPECT_DEATH((void)CelExpression::Compile("1", kBeginning), "");
  const auto expression = CelExpression::Compile("1", kPaths);
  ASSERT_TRUE(expression);
  EXPECT_DEATH((void)expression->Evaluate(Inputs{1}), "");
}

}  // namespace
}  // namespace llmd::text
