#include "workload/length.h"

#include <cmath>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace llmd::workload {
namespace {

using ::testing::HasSubstr;

TEST(LengthSpec, DrawsWhatItsTextSays) {
  const auto spec = LengthSpec::Parse("normal:512:128:64:1024");
  ASSERT_TRUE(spec);
  base::Random random(7);
  double sum = 0;
  double squares = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const auto length = static_cast<double>(spec->Draw(random));
    EXPECT_GE(length, 64);
    EXPECT_LE(length, 1024);
    sum += length;
    squares += length * length;
  }
  const double mean = sum / kDraws;
  EXPECT_NEAR(mean, 512, 5);
  EXPECT_NEAR(std::sqrt(squares / kDraws - mean * mean), 128, 4);
}

TEST(LengthSpec, FixedIsAlwaysTheSame) {
  base::Random random(1);
  const auto spec = LengthSpec::Parse("37");
  ASSERT_TRUE(spec);
  EXPECT_EQ(*spec, LengthSpec::Fixed(37));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(spec->Draw(random), 37u);
}

TEST(LengthSpec, UniformReachesBothEnds) {
  base::Random random(3);
  const auto spec = LengthSpec::Parse("uniform:5:8");
  ASSERT_TRUE(spec);
  int seen[9] = {};
  for (int i = 0; i < 1000; ++i) ++seen[spec->Draw(random)];
  EXPECT_EQ(seen[0] + seen[4], 0);
  for (int length = 5; length <= 8; ++length) EXPECT_GT(seen[length], 150) << length;
}

TEST(LengthSpec, LognormalHasTheMeanOfTheLengths) {
  base::Random random(11);
  const auto spec = LengthSpec::Parse("lognormal:1500:900");
  ASSERT_TRUE(spec);
  double sum = 0;
  constexpr int kDraws = 50000;
  for (int i = 0; i < kDraws; ++i) sum += static_cast<double>(spec->Draw(random));
  EXPECT_NEAR(sum / kDraws, 1500, 30);
}

TEST(LengthSpec, TextRoundTrips) {
  for (const char* text : {"0", "512", "uniform:1:9", "normal:10.5:2:0:20", "lognormal:9:1:1:99"}) {
    const auto spec = LengthSpec::Parse(text);
    ASSERT_TRUE(spec) << text;
    EXPECT_EQ(spec->ToString(), text);
  }
  EXPECT_EQ(LengthSpec::Parse("normal:5:1")->ToString(), "normal:5:1:0:16777216");
}

TEST(LengthSpec, RefusesWhatItCannotRead) {
  for (const char* text :
       {"", "-1", "5x", "16777217", "uniform:9", "uniform:9:1", "uniform:1:2:3", "normal:5",
        "normal:5:1:2", "normal:nan:1", "zipf:1:2", "lognormal:0:1", "uniform:-1:4", "normal::1"}) {
    const auto spec = LengthSpec::Parse(text);
    ASSERT_FALSE(spec) << text;
    EXPECT_THAT(std::string(spec.error().message()), HasSubstr("allowed are")) << text;
  }
}

}  // namespace
}  // namespace llmd::workload
