#include <gtest/gtest.h>

#include "base/check.h"
#include "plugin/catalogue.h"
#include "plugin/keys.h"
#include "plugin/request_context.h"

namespace llmd::plugin {
namespace {

// The tour: one line per plugin type; names that come later are known, too.
TEST(Catalogue, KnowsWhatIsBuiltAndWhatIsNot) {
  Catalogue catalogue;
  catalogue.Add({.type = "token-producer",
                 .factory = [](PluginContext&) { return std::make_unique<Plugin>(); },
                 .default_producer_of = std::string(TokenizedPrompt::kKey)});
  catalogue.AddNotBuilt("latency-scorer");
  EXPECT_TRUE(catalogue.Find("token-producer")->factory);
  EXPECT_FALSE(catalogue.Find("latency-scorer")->factory);
  EXPECT_EQ(catalogue.Find("lateness-scorer"), nullptr);
  EXPECT_EQ(catalogue.DefaultProducer(TokenizedPrompt::kKey)->type, "token-producer");
  EXPECT_EQ(catalogue.DefaultProducer(InFlightLoad::kKey), nullptr);
  EXPECT_EQ(catalogue.DefaultProducer(""), nullptr);
  EXPECT_EQ(catalogue.types().size(), 2u);
}

TEST(CatalogueDeathTest, ATypeIsAddedOnce) {
  Catalogue catalogue;
  catalogue.AddNotBuilt("x");
  EXPECT_DEATH(catalogue.AddNotBuilt("x"), "x");
}

TEST(RequestContext, FindsTheFirstHeaderWhateverItsCase) {
  const Header headers[] = {{"X-Request-Id", "1"}, {"x-request-id", "2"}, {"Empty", ""}};
  const RequestContext request{.headers = headers};
  EXPECT_EQ(request.FindHeader("x-request-ID"), "1");
  EXPECT_EQ(request.FindHeader("empty"), "");
  EXPECT_EQ(request.FindHeader("x-request"), std::nullopt);
}

TEST(Attributes, AMissingSlotReadsAsNull) {
  const void* cells[2] = {};
  Attributes attributes{std::span<const void*>(cells)};
  const TokenizedPrompt prompt{.token_count = 7};
  attributes.Set(Slot<TokenizedPrompt>{1}, &prompt);
  EXPECT_EQ(attributes.Get(Slot<TokenizedPrompt>{1})->token_count, 7u);
  EXPECT_EQ(attributes.Get(Slot<TokenizedPrompt>{0}), nullptr);
  EXPECT_EQ(attributes.Get(Slot<TokenizedPrompt>{}), nullptr);
  uint64_t before = 0, after = 0;
  for (auto* site = base::FirstBugSite(); site; site = site->next) before += site->count;
  attributes.Set(Slot<TokenizedPrompt>{2}, &prompt);  // ignored, counted
  for (auto* site = base::FirstBugSite(); site; site = site->next) after += site->count;
  EXPECT_EQ(after, before + 1);
}

TEST(Candidates, KeepIfKeepsTheOrder) {
  EndpointNumber numbers[] = {1, 2, 3, 4, 5};
  Candidates candidates{numbers};
  candidates.KeepIf([](EndpointNumber n) { return n % 2 == 1; });
  ASSERT_EQ(candidates.numbers.size(), 3u);
  EXPECT_EQ(candidates.numbers[2], 5u);
}

TEST(BookingList, IsBounded) {
  BookingList list;
  for (size_t i = 0; i < kBookingsMax; ++i) {
    EXPECT_TRUE(list.Add({.counter = 1, .endpoint = 2, .amount = 3}));
  }
  EXPECT_FALSE(list.Add({.counter = 1, .endpoint = 2, .amount = 3}));
  EXPECT_EQ(list.items().size(), kBookingsMax);
  list.Clear();
  EXPECT_TRUE(list.items().empty());
}

}  // namespace
}  // namespace llmd::plugin
