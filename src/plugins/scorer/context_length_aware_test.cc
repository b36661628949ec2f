#include "plugins/scorer/context_length_aware.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using testing::Scene;

constexpr std::string_view kLabel = "llm-d.ai/context-length-range";

// Endpoints with these ranges; "" has no label.
std::unique_ptr<Scene> SceneWith(const std::vector<std::string>& ranges) {
  auto scene = std::make_unique<Scene>(0);
  std::vector<fleet::EndpointSpec> specs;
  for (const std::string& range : ranges) {
    fleet::EndpointSpec spec{.name = "s" + std::to_string(specs.size()),
                             .address = "10.0.0.1",
                             .port = static_cast<uint16_t>(8000 + specs.size()),
                             .labels = {}};
    if (!range.empty()) spec.labels = {{std::string(kLabel), range}};
    specs.push_back(std::move(spec));
  }
  scene->SetMembers(std::move(specs));
  return scene;
}

double ScoreOf(const std::string& range, uint64_t tokens) {
  auto scene = SceneWith({range});
  auto scorer = scene->Make(ContextLengthAwareType());
  const plugin::TokenizedPrompt prompt{.token_count = tokens, .media_tokens = {}};
  scene->NewRequest().attributes.Set(scene->context().SlotOf<plugin::TokenizedPrompt>(), &prompt);
  return scene->Score(*scorer)[0];
}

TEST(ContextLengthAware, ScoresByTheFormula) {
  const struct {
    const char* range;
    uint64_t tokens;
    double score;
  } cases[] = {
      {"", 100, 0.5},
      {"not a range", 100, 0},
      {"9-1", 5, 0},
      {"1-2-3", 2, 0},
      {"100-100", 100, 1},
      {"0-10000", 0, 0.3 + 0.7 * (0.7 / 2 + 0.3)},
      {"0-10000", 10000, 0.3 + 0.7 * (0.7 / 2)},
      {" 0 - 2048 ", 1024, 0.3 + 0.7 * (0.7 / 1.2048 + 0.15)},
      {"0-1000", 2000, 0.15},
      {"1000-2000", 500, 0.3 / 1.5},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(ScoreOf(c.range, c.tokens), DoubleNear(c.score, 1e-12)) << c.range << c.tokens;
  }
}

TEST(ContextLengthAware, FiltersOnlyWhenAsked) {
  for (const bool filters : {false, true}) {
    auto scene = SceneWith({"0-1000", "1000-2000", "", "junk"});
    auto filter = scene->Make(ContextLengthAwareType(),
                              filters ? "{enableFiltering: true}" : "{enableFiltering: false}");
    const plugin::TokenizedPrompt prompt{.token_count = 1500, .media_tokens = {}};
    scene->NewRequest().attributes.Set(scene->context().SlotOf<plugin::TokenizedPrompt>(),
                                       &prompt);
    if (filters) {
      EXPECT_THAT(scene->Filter(*filter), ElementsAre(1, 2));
    } else {
      EXPECT_THAT(scene->Filter(*filter), ElementsAre(0, 1, 2, 3));
    }
  }
}

TEST(ContextLengthAware, WithoutATokenCountThePromptIsEmpty) {
  auto scene = SceneWith({"0-10", "5-10"});
  auto scorer = scene->Make(ContextLengthAwareType());
  scene->NewRequest();
  const auto scores = scene->Score(*scorer);
  EXPECT_GT(scores[0], scores[1]);
}

TEST(ContextLengthAware, RefusesAnEmptyLabel) {
  Scene scene(1);
  EXPECT_EQ(scene.Make(ContextLengthAwareType(), "{label: ''}"), nullptr);
}

}  // namespace
}  // namespace llmd::plugins
