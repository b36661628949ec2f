#include "bench/model_list.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace llmd::bench {
namespace {

TEST(FirstModelIn, TakesTheFirstId) {
  EXPECT_EQ(FirstModelIn(R"({"object":"list","data":[{"id":"a/b"},{"id":"c"}]})").value(), "a/b");
  EXPECT_EQ(FirstModelIn(R"({"data":[{"object":"model"},{"id":"c"}]})").value(), "c");
}

TEST(FirstModelIn, SaysWhatIsMissing) {
  for (const char* body : {"", "not json", "[]", "{}", R"({"data":{}})", R"({"data":"x"})"}) {
    EXPECT_FALSE(FirstModelIn(body)) << body;
  }
  const auto empty = FirstModelIn(R"({"data":[]})");
  ASSERT_FALSE(empty);
  EXPECT_THAT(std::string(empty.error().message()), ::testing::HasSubstr("--model"));
}

}  // namespace
}  // namespace llmd::bench
