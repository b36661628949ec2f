#include "plugins/parser/passthrough_parser.h"

#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

TEST(PassthroughParser, ClaimsNothingSoThatItIsTheFallback) {
  testing::Scene scene(1);
  auto made = scene.Make(PassthroughParserType());
  EXPECT_TRUE(dynamic_cast<plugin::Parser&>(*made).claims().empty());
}

}  // namespace
}  // namespace llmd::plugins
