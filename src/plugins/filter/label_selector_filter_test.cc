#include "plugins/filter/label_selector_filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;
using Numbers = std::vector<plugin::EndpointNumber>;

// s0 {role: decode, zone: a}, s1 {role: prefill, zone: b}, s2 {role: decode}, s3 {}
Scene& Labelled(Scene& scene) {
  std::vector<fleet::EndpointSpec> specs(4);
  for (size_t i = 0; i < 4; ++i) {
    specs[i].name = "s" + std::to_string(i);
    specs[i].address = "10.0.0.1";
    specs[i].port = static_cast<uint16_t>(8000 + i);
  }
  specs[0].labels = {{"role", "decode"}, {"zone", "a"}};
  specs[1].labels = {{"role", "prefill"}, {"zone", "b"}};
  specs[2].labels = {{"role", "decode"}};
  scene.SetMembers(specs);
  return scene;
}

TEST(LabelSelectorFilter, KeepsWhatTheSelectorMatches) {
  struct Case {
    const char* yaml;
    Numbers kept;
  };
  const Case cases[] = {
      {"", {0, 1, 2, 3}},
      {"{matchLabels: {role: decode}}", {0, 2}},
      {"{matchLabels: {role: decode, zone: a}}", {0}},
      {"{matchLabels: {role: other}}", {}},
      {"{matchExpressions: [{key: zone, operator: In, values: [a, b]}]}", {0, 1}},
      {"{matchExpressions: [{key: zone, operator: NotIn, values: [a]}]}", {1, 2, 3}},
      {"{matchExpressions: [{key: zone, operator: Exists}]}", {0, 1}},
      {"{matchExpressions: [{key: zone, operator: DoesNotExist}]}", {2, 3}},
      {"{matchLabels: {role: decode}, matchExpressions: [{key: zone, operator: Exists}]}", {0}},
  };
  for (const Case& c : cases) {
    Scene scene(4);
    auto made = Labelled(scene).Make(LabelSelectorFilterType(), c.yaml);
    ASSERT_NE(made, nullptr) << scene.context().errors().ToString();
    EXPECT_EQ(scene.Filter(*made), c.kept) << c.yaml;
  }
}

TEST(LabelSelectorFilter, RefusesSelectorsThatKubernetesRefuses) {
  for (const char* yaml : {"{matchExpressions: [{key: a, operator: In}]}",
                           "{matchExpressions: [{key: a, operator: Exists, values: [b]}]}",
                           "{matchExpressions: [{key: a, operator: Like, values: [b]}]}",
                           "{matchExpressions: [{operator: Exists}]}", "{matchLabel: {a: b}}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(LabelSelectorFilterType(), yaml), nullptr) << yaml;
  }
}

TEST(LabelSelectorFilter, ItsOldNameWorks) {
  Scene scene(4);
  auto made = Labelled(scene).Make(ByLabelSelectorType(), "{matchLabels: {role: prefill}}");
  EXPECT_EQ(scene.Filter(*made), Numbers{1});
  EXPECT_EQ(ByLabelSelectorType().stability, plugin::Stability::kDeprecated);
}

}  // namespace
}  // namespace llmd::plugins
