#include "main/plugins.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "main/plugin_pages.h"
#include "plugins/testing.h"
#include "runtime/files.h"

namespace llmd {
namespace {

// What a type cannot do without.
std::string_view RequiredParameters(std::string_view type) {
  static constexpr std::pair<std::string_view, std::string_view> kRequired[] = {
      {"file-discovery", "{path: endpoints.yaml}"},
      {"by-label", "{label: tier, allowsNoLabel: true}"},
      {"session-id-producer", "{headerName: x-session}"},
      {"header-label-affinity-scorer", "{headerName: x-zone, labelKey: zone}"},
      {"utilization-filter", "{conditions: [{metric: waiting-queue, maxValue: 5}]}"},
      {"endpoint-attribute-filter",
       "{attribute: a, algorithm: {type: threshold, threshold: {operator: Equal, value: 1}}}"},
      {"endpoint-attribute-scorer",
       "{attributeKey: a, algorithm: {type: linear_lower_is_better}}"},
      {"request-attribute-reporter",
       "{attributes: [{key: {name: tokens}, expression: usage.prompt_tokens}]}"},
  };
  for (const auto& [name, parameters] : kRequired) {
    if (name == type) return parameters;
  }
  return "";
}

TEST(Catalogue, EveryTypeThatIsBuiltCanBeMade) {
  const plugin::Catalogue catalogue = MakeCatalogue();
  for (const plugin::PluginType& type : catalogue.types()) {
    if (!type.factory) continue;
    EXPECT_FALSE(type.help.empty()) << type.type;
    plugins::testing::Scene scene(1);
    EXPECT_NE(scene.Make(type, RequiredParameters(type.type)), nullptr)
        << scene.context().errors().ToString();
    EXPECT_EQ(scene.Make(type, "{no-such-key: 1}"), nullptr) << type.type;
    config::ErrorList errors;
    const auto& schema = type.parameters_schema;
    EXPECT_TRUE(schema.empty() || config::Document::Parse(schema, "schema", &errors)) << schema;
  }
}

TEST(Catalogue, ThePageOfPluginsIsUpToDate) {
  const std::string path = LLMD_SOURCE_DIR "/docs/plugins.md";
  const auto page = runtime::ReadFile(path);
  const std::string made = PluginPage(MakeCatalogue());
  if (page && *page == made) return;
  const std::string fresh = ::testing::TempDir() + "llmd-plugins.md";
  ASSERT_TRUE(runtime::WriteFileAtomically(fresh, made).ok());
  FAIL() << "docs/plugins.md is not what the catalogue says; take over the new one with\n  cp "
         << fresh << " " << path;
}

TEST(Catalogue, DefaultProducersAreNamed) {
  const plugin::Catalogue catalogue = MakeCatalogue();
  const auto producer = [&](std::string_view key) { return catalogue.DefaultProducer(key)->type; };
  EXPECT_EQ(producer(plugin::PrefixCacheMatchInfo::kKey), "approx-prefix-cache-producer");
  EXPECT_EQ(producer(plugin::TokenizedPrompt::kKey), "token-producer");
  EXPECT_EQ(producer(plugin::InFlightLoad::kKey), "inflight-load-producer");
  EXPECT_EQ(producer(plugin::SessionId::kKey), "session-id-producer");
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
