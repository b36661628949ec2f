#include "main/plugins.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd {
namespace {

TEST(Catalogue, EveryTypeThatIsBuiltCanBeMade) {
  const plugin::Catalogue catalogue = MakeCatalogue();
  for (const plugin::PluginType& type : catalogue.types()) {
    if (!type.factory) continue;
    EXPECT_FALSE(type.help.empty()) << type.type;
    plugins::testing::Scene scene(1);
    const char* parameters = type.type == "file-discovery" ? "{path: endpoints.yaml}" : "";
    EXPECT_NE(scene.Make(type, parameters), nullptr) << scene.context().errors().ToString();
    EXPECT_EQ(scene.Make(type, "{no-such-key: 1}"), nullptr) << type.type;
    config::ErrorList errors;
    const auto& schema = type.parameters_schema;
    EXPECT_TRUE(schema.empty() || config::Document::Parse(schema, "schema", &errors)) << schema;
  }
}

TEST(Catalogue, DefaultProducersAreNamed) {
  const plugin::Catalogue catalogue = MakeCatalogue();
  const auto producer = [&](std::string_view key) { return catalogue.DefaultProducer(key)->type; };
  EXPECT_EQ(producer(plugin::PrefixCacheMatchInfo::kKey), "approx-prefix-cache-producer");
  EXPECT_EQ(producer(plugin::TokenizedPrompt::kKey), "token-producer");
  EXPECT_EQ(producer(plugin::InFlightLoad::kKey), "inflight-load-producer");
}

TEST(Catalogue, NamesOfLaterReleasesAreKnownAndNotBuilt) {
  const plugin::Catalogue catalogue = MakeCatalogue();
  const plugin::PluginType* later = catalogue.Find("disagg-profile-handler");
  ASSERT_NE(later, nullptr);
  EXPECT_FALSE(later->factory);
  EXPECT_EQ(catalogue.Find("disagg-profile-handlr"), nullptr);
}

}  // namespace
}  // namespace llmd
