#include "config/document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "config/value.h"

namespace llmd::config {
namespace {

std::string ErrorsOf(std::string_view text) {
  ErrorList errors;
  const auto document = Document::Parse(text, "f", &errors);
  EXPECT_EQ(document == nullptr, !errors.ok());
  return errors.ToString();
}

std::string Normal(std::string_view text) {
  ErrorList errors;
  const auto document = Document::Parse(text, "f", &errors);
  return document ? ToYaml(ToValue(document->root())) : errors.ToString();
}

TEST(Document, Tutorial) {
  ErrorList errors;
  const auto document =
      Document::Parse("plugins:\n- type: queue\n  weight: 2\n", "f.yaml", &errors);
  ASSERT_NE(document, nullptr);
  const Node plugin = document->root().Find("plugins").at(0);
  EXPECT_EQ(plugin.Find("type").text(), "queue");
  EXPECT_EQ(plugin.Find("weight").int_value(), 2);
  EXPECT_EQ(plugin.Find("weight").path(), "plugins[0].weight");
  EXPECT_EQ(plugin.Find("weight").position(), (Position{3, 11}));
  EXPECT_EQ(plugin.key_position(1), (Position{3, 3}));
  EXPECT_FALSE(plugin.Find("nothing"));
  EXPECT_EQ(plugin.FindOrSelf("nothing").path(), "plugins[0]");
}

TEST(Document, ErrorsHavePositions) {
  const struct {
    std::string_view text, error;
  } cases[] = {
      {"a: 1\na: 2\n", "f:2:1 a: duplicate key, first at line 1"},
      {"x:\n- b: 1\n  b: 2\n", "f:3:3 x[0].b: duplicate key, first at line 2"},
      {"a: [1\n", "f:2:1: not valid YAML: end of sequence flow not found"},
      {"a: *b\n", "f:1:4: not valid YAML: the referenced anchor is not defined"},
      {"a: &b [*b]\n",
       "f:1:8 a[0]: the alias refers to a value that contains it, write the value out"},
      {"? [a]\n: 1\n", "f:1:3: a key must be a word or a number, not a list or a map"},
      {"a: 1\n---\nb: 2\n", "f:2:1: a second document begins here, one is allowed; remove the ---"},
      {"a:\n  <<: 5\n", "f:2:7 a: the merge key << needs a map or a list of maps"},
      {"a: 1\na: 2\nb: 1\nb: 2\n",
       "f:2:1 a: duplicate key, first at line 1\nf:4:1 b: duplicate key, first at line 3"},
  };
  for (const auto& c : cases) EXPECT_EQ(ErrorsOf(c.text), c.error) << c.text;
}

TEST(Document, LimitsAreErrors) {
  const std::string deep = std::string(kDepthMax + 1, '[') + std::string(kDepthMax + 1, ']');
  EXPECT_THAT(ErrorsOf(deep), testing::HasSubstr("nested too deeply, at most 64 levels"));
  const std::string fits = std::string(kDepthMax, '[') + std::string(kDepthMax, ']');
  EXPECT_EQ(ErrorsOf(fits), "");
  EXPECT_THAT(ErrorsOf(std::string(100'000, '[')), testing::HasSubstr("f:1:"));
  const std::string big(kDocumentBytesMax + 1, '#');
  EXPECT_EQ(ErrorsOf(big), "f: is 1048577 bytes, at most 1048576 are allowed");
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string n = std::to_string(i), alias = "*a" + std::to_string(i - 1);
    bomb += "a" + n + ": &a" + n + " [";
    for (int j = 0; j < 10; ++j) bomb += (j ? ", " : "") + alias;
    bomb += "]\n";
  }
  EXPECT_THAT(ErrorsOf(bomb), testing::HasSubstr("aliases expand to too many values"));
  std::string chain = "a0: &a0 [x]\n";
  for (int i = 1; i < 70; ++i) {
    const std::string n = std::to_string(i);
    chain += "a" + n + ": &a" + n + " [*a" + std::to_string(i - 1) + "]\n";
  }
  EXPECT_THAT(ErrorsOf(chain), testing::HasSubstr("aliases nest too deeply"));
  std::string many = "[";
  for (size_t i = 0; i <= kNodesMax; ++i) many += "1,";
  EXPECT_THAT(ErrorsOf(many + "1]"), testing::HasSubstr("too many values"));
}

TEST(Document, AnchorsAndMergeKeys) {
  EXPECT_EQ(Normal("base: &b {x: 1, v: 2}\nuse:\n  <<: *b\n  v: 3\n"),
            "base:\n  x: 1\n  v: 2\nuse:\n  v: 3\n  x: 1\n");
  EXPECT_EQ(Normal("a: &a {x: 1}\nb: &b {x: 2, z: 3}\nc: {<<: [*a, *b]}\n"),
            "a:\n  x: 1\nb:\n  x: 2\n  z: 3\nc:\n  x: 1\n  z: 3\n");
  EXPECT_EQ(Normal("\"<<\": 1\n"), "\"<<\": 1\n");  // quoted, it is a key like any other
  EXPECT_EQ(Normal("a: &x {k: [1]}\nb: *x\n"), "a:\n  k:\n  - 1\nb:\n  k:\n  - 1\n");
}

TEST(Document, AliasesReportTheAnchorsPlace) {
  ErrorList errors;
  const auto document = Document::Parse("a: &x\n  k: v\nb:\n  <<: *x\nc: *x\n", "f", &errors);
  ASSERT_NE(document, nullptr) << errors.ToString();
  EXPECT_EQ(document->root().Find("c").Find("k").path(), "a.k");
  EXPECT_EQ(document->root().Find("b").Find("k").position(), (Position{2, 6}));
}

TEST(Document, ScalarsAreTypedAsGoTypesThem) {
  const struct {
    std::string_view text;
    NodeKind kind;
    double number;
  } cases[] = {
      {"12", NodeKind::kInt, 12},
      {"-0x1F", NodeKind::kInt, -31},
      {"0o17", NodeKind::kInt, 15},
      {"017", NodeKind::kInt, 15},
      {"0b101", NodeKind::kInt, 5},
      {"1_000", NodeKind::kInt, 1000},
      {"9223372036854775807", NodeKind::kInt, 9223372036854775807.0},
      {"-9223372036854775808", NodeKind::kInt, -9223372036854775808.0},
      {"9223372036854775808", NodeKind::kDouble, 9223372036854775808.0},
      {"08", NodeKind::kDouble, 8},
      {"1.5", NodeKind::kDouble, 1.5},
      {".5", NodeKind::kDouble, .5},
      {"5.", NodeKind::kDouble, 5},
      {"1e3", NodeKind::kDouble, 1000},
      {"-1.5E-2", NodeKind::kDouble, -.015},
      {"yes", NodeKind::kBool, 0},
      {"Off", NodeKind::kBool, 0},
      {"true", NodeKind::kBool, 0},
      {"tRue", NodeKind::kString, 0},
      {"null", NodeKind::kNull, 0},
      {"~", NodeKind::kNull, 0},
      {"1e", NodeKind::kString, 0},
      {"1.2.3", NodeKind::kString, 0},
      {".", NodeKind::kString, 0},
      {"-", NodeKind::kString, 0},
      {"0x", NodeKind::kString, 0},
      {"2001-12-14", NodeKind::kString, 0},
      {"200ms", NodeKind::kString, 0},
      {"1G", NodeKind::kString, 0},
  };
  for (const auto& c : cases) {
    const Scalar scalar = ResolvePlainScalar(c.text);
    EXPECT_EQ(scalar.kind, c.kind) << c.text;
    if (c.kind == NodeKind::kInt || c.kind == NodeKind::kDouble) {
      EXPECT_EQ(scalar.number, c.number) << c.text;
    }
  }
  EXPECT_EQ(Normal("a: '12'\nb: 12\nc: \"x\\n\"\nd: |\n  t\n"),
            "a: \"12\"\nb: 12\nc: \"x\\n\"\nd: \"t\\n\"\n");
}

TEST(Document, JsonIsRead) {
  EXPECT_EQ(Normal(R"({"a": [1, 2.5, true, null, "x"], "b": {}})"),
            "a:\n- 1\n- 2.5\n- true\n- null\n- x\nb: {}\n");
}

TEST(Document, EmptyIsNull) {
  for (std::string_view text : {"", "# only a comment\n", "---\n", "null\n"}) {
    ErrorList errors;
    const auto document = Document::Parse(text, "f", &errors);
    ASSERT_NE(document, nullptr) << errors.ToString();
    EXPECT_TRUE(document->root().is_null()) << text;
  }
}

TEST(Quantity, ParsesAsKubernetesDoes) {
  const struct {
    std::string_view text;
    std::optional<int64_t> value;
  } cases[] = {
      {"5000", 5000},
      {"1G", 1'000'000'000},
      {"500Mi", 500 << 20},
      {"1.5Gi", 3LL << 29},
      {"2e3", 2000},
      {"2E3", 2000},
      {"1E", 1'000'000'000'000'000'000},
      {"1500m", 2},  // rounded up
      {"1n", 1},
      {"-1500m", -2},
      {"0", 0},
      {"+3k", 3000},
      {".5k", 500},
      {"7Ei", 7LL << 60},
      {"8Ei", std::nullopt},
      {"9223372036854775807", INT64_MAX},
      {"9223372036854775808", std::nullopt},
      {"99999999999999999999", std::nullopt},
      {"", std::nullopt},
      {"G", std::nullopt},
      {"1 G", std::nullopt},
      {"1g", std::nullopt},
      {"1Kib", std::nullopt},
      {"1e", std::nullopt},
      {"1ex", std::nullopt},
      {"1.2.3", std::nullopt},
      {"1GB", std::nullopt},
  };
  for (const auto& c : cases) EXPECT_EQ(ParseQuantity(c.text), c.value) << c.text;
  EXPECT_EQ(ParseQuantity("1GB", true), 1'000'000'000);
  EXPECT_EQ(ParseQuantity("32MiB", true), 32 << 20);
  EXPECT_EQ(ParseQuantity("B", true), std::nullopt);
}

TEST(Duration, PrintsAsGoDoes) {
  const std::pair<int64_t, std::string_view> cases[] = {
      {0, "0s"},
      {1, "1ns"},
      {1'500, "1.5µs"},
      {200'000'000, "200ms"},
      {1'500'000'000, "1.5s"},
      {60'000'000'000, "1m0s"},
      {5'400'000'000'000, "1h30m0s"},
      {-2'000'000'000, "-2s"},
      {INT64_MIN, "-2562047h47m16.854775808s"},
  };
  for (const auto& [ns, text] : cases) EXPECT_EQ(FormatGoDuration(ns), text);
}

TEST(Value, LongKeysReadBack) {
  const std::string key(2000, 'k');
  const std::string yaml = ToYaml(Value::EmptyMap()
                                      .Set("a", Value::EmptyMap().Set(key, 1))
                                      .Set(key, Value::EmptyMap().Set("b", Value::EmptyList())));
  EXPECT_EQ(Normal(yaml), yaml);
}

// Any value that is written reads back as itself.
Value AnyValue(int depth) {
  const int kind = *rc::gen::inRange(0, depth > 0 ? 7 : 5);
  switch (kind) {
    case 0:
      return {};
    case 1:
      return *rc::gen::arbitrary<bool>();
    case 2:
      return *rc::gen::arbitrary<int64_t>();
    case 3:
      return *rc::gen::inRange(-1000, 1000) / 8.0;
    case 4:
      return *rc::gen::container<std::string>(rc::gen::inRange<char>(1, 127));
    case 5: {
      Value list = Value::EmptyList();
      for (int i = *rc::gen::inRange(0, 4); i > 0; --i) list.Append(AnyValue(depth - 1));
      return list;
    }
    default: {
      Value map = Value::EmptyMap();
      for (int i = *rc::gen::inRange(0, 4); i > 0; --i) {
        map.Set(*rc::gen::container<std::string>(rc::gen::inRange<char>(32, 127)),
                AnyValue(depth - 1));
      }
      return map;
    }
  }
}

TEST(Value, WhatIsWrittenReadsBack) {
  EXPECT_TRUE(rc::check("yaml and json round trip", [] {
    const Value value = AnyValue(3);
    for (const std::string& text : {ToYaml(value), ToJson(value)}) {
      ErrorList errors;
      const auto document = Document::Parse(text, "f", &errors);
      RC_ASSERT(document != nullptr);
      RC_ASSERT(ToYaml(ToValue(document->root())) == ToYaml(value));
    }
  }));
}

}  // namespace
}  // namespace llmd::config
