#include <gtest/gtest.h>

#include <string>

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

TEST(HeaderEdits, SetOrReplaceAndAreCopied) {
  base::Arena arena;
  HeaderEdits edits;
  EXPECT_TRUE(edits.headers().empty());
  {
    std::string name = "X-Session-Token", value = "one";
    EXPECT_TRUE(edits.Set(arena, name, value));
    name = value = "gone";
  }
  EXPECT_TRUE(edits.Set(arena, "b", ""));
  EXPECT_TRUE(edits.Set(arena, "x-session-token", "two\twords"));
  ASSERT_EQ(edits.size(), 2u);
  EXPECT_EQ(edits.headers()[0].name, "X-Session-Token");
  EXPECT_EQ(edits.headers()[0].value, "two\twords");
  edits.Truncate(5);
  EXPECT_EQ(edits.size(), 2u);
  edits.Truncate(1);
  EXPECT_EQ(edits.size(), 1u);
}

TEST(HeaderEdits, RefuseWhatCannotStandInAHead) {
  base::Arena arena;
  HeaderEdits edits;
  EXPECT_FALSE(edits.Set(arena, "", "x"));
  EXPECT_FALSE(edits.Set(arena, "a", "x\r\nb: y"));
  EXPECT_FALSE(edits.Set(arena, "a\n", "x"));
  EXPECT_FALSE(edits.Set(arena, "a", std::string_view("\0", 1)));
  EXPECT_EQ(edits.size(), 0u);
  for (size_t i = 0; i < HeaderEdits::kMax; ++i) {
    EXPECT_TRUE(edits.Set(arena, "h" + std::to_string(i), "v"));
  }
  EXPECT_FALSE(edits.Set(arena, "one-more", "v"));
  EXPECT_TRUE(edits.Set(arena, "H3", "w")) << "one that is there may still change";
  EXPECT_EQ(edits.headers()[3].value, "w");
}

TEST(MetadataList, TheLastValueCountsAndItIsBounded) {
  MetadataList list;
  for (int64_t i = 0; i < static_cast<int64_t>(kMetadataNumbersMax) - 1; ++i) {
    EXPECT_TRUE(list.Set({.name_space = "a", .name = std::string_view("0123456789abcdef").substr(
                              static_cast<size_t>(i), 1), .value = i}));
  }
  EXPECT_TRUE(list.Set({.name_space = "b", .name = "0", .value = 7}));
  EXPECT_TRUE(list.Set({.name_space = "a", .name = "0", .value = 8}));
  EXPECT_FALSE(list.Set({.name_space = "c", .name = "0", .value = 9}));
  ASSERT_EQ(list.items().size(), kMetadataNumbersMax);
  EXPECT_EQ(list.items()[0].value, 8);
  EXPECT_EQ(list.items().back().value, 7);
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
