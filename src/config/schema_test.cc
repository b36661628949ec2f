#include "config/schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace llmd::config {
namespace {

using testing::ElementsAre;

enum class Mode { kFast, kExact };

struct Part {
  std::string name;
  double weight = 1;
  Node where;
};

struct Sample {
  int64_t max_queue = 128;
  uint16_t port = 8000;
  double ratio = 0.5;
  bool enabled = true;
  std::string title = "none";
  base::Duration window = std::chrono::milliseconds(200);
  base::Duration ttl = std::chrono::seconds(60);
  base::Duration timeout = std::chrono::milliseconds(5);
  int64_t bytes_max = 1000;
  Mode mode = Mode::kFast;
  std::vector<Part> parts;
  std::optional<Part> extra;
  std::vector<std::string> gates;
  StringMapValue labels;
  Node parameters;
};

const ObjectType<Part>& PartType() {
  static const auto type = Object<Part>("Part")
                               .Required("name", "What it is called.", &Part::name, String(1))
                               .Field("weight", "How much it counts.", &Part::weight, Double(0, 10))
                               .Where(&Part::where)
                               .Build();
  return *type;
}

TypePtr<Part> SharedPartType() {
  return {std::shared_ptr<void>(), &PartType()};  // not owned: a function-local static
}

const ObjectType<Sample>& SampleType() {
  static const auto type =
      Object<Sample>("Sample")
          .Field("maxQueue", "Requests that may wait.", &Sample::max_queue, Int<int64_t>(1, 1000))
          .Field("port", "Where it listens.", &Sample::port)
          .Field("ratio", "A share.", &Sample::ratio, Double(0, 1))
          .Field("enabled", "Whether it runs.", &Sample::enabled)
          .Field("title", "Shown to people.", &Sample::title)
          .Field("window", "Time between two looks.", &Sample::window,
                 GoDuration(std::chrono::milliseconds(1), std::chrono::hours(1)))
          .Field("contextTTL", "How long it is kept.", &Sample::ttl,
                 IntegerDuration(std::chrono::nanoseconds(1)))
          .Field("timeoutMs", "When it gives up.", &Sample::timeout,
                 IntegerDuration(std::chrono::milliseconds(1), std::chrono::milliseconds(1)))
          .Field("maxBytes", "Memory limit.", &Sample::bytes_max, Quantity(0, true))
          .Field("mode", "How to look.", &Sample::mode,
                 Enum<Mode>({{"fast", Mode::kFast}, {"exact", Mode::kExact}}))
          .Field("parts", "What it is made of.", &Sample::parts, List<Part>(SharedPartType()))
          .Field("extra", "One more part.", &Sample::extra, Optional<Part>(SharedPartType()))
          .Field("gates", "Switches.", &Sample::gates)
          .Field("labels", "Free text.", &Sample::labels)
          .Field("parameters", "Read later.", &Sample::parameters)
          .Build();
  return *type;
}

struct Outcome {
  std::shared_ptr<const Document> document;
  Sample sample;
  ErrorList errors;
};

Outcome Read(std::string_view yaml, bool ignore_case = false) {
  Outcome out;
  out.document = Document::Parse(yaml, "c.yaml", &out.errors);
  if (out.document && !out.document->root().is_null()) {
    SampleType().Read(out.document->root(), {.errors = &out.errors, .ignore_case = ignore_case},
                      &out.sample);
  }
  return out;
}

TEST(Schema, Tutorial) {
  const Outcome out = Read(R"(
maxQueue: 7
window: 1.5s
mode: exact
parts:
- name: a
- {name: b, weight: 2.5}
labels: {app: x, "llm-d.ai/role": decode}
parameters: {anything: [1, 2]}
)");
  ASSERT_TRUE(out.errors.ok()) << out.errors.ToString();
  EXPECT_EQ(out.sample.max_queue, 7);
  EXPECT_EQ(out.sample.window, std::chrono::milliseconds(1500));
  EXPECT_EQ(out.sample.mode, Mode::kExact);
  ASSERT_EQ(out.sample.parts.size(), 2u);
  EXPECT_EQ(out.sample.parts[1].weight, 2.5);
  EXPECT_EQ(out.sample.labels.at("llm-d.ai/role"), "decode");
  EXPECT_EQ(out.sample.port, 8000);  // untouched fields keep the struct's defaults
  EXPECT_EQ(out.sample.parameters.Find("anything").size(), 2u);
  // A check made later still knows where.
  ErrorList later;
  later.Add(out.sample.parts[1].where.FindOrSelf("weight"), "is too heavy, at most 2");
  EXPECT_EQ(later.ToString(), "c.yaml:7:21 parts[1].weight: is too heavy, at most 2");
}

TEST(Schema, EveryErrorWithPlaceReasonAndRemedy) {
  const struct {
    std::string_view yaml;
    std::string_view error;
  } cases[] = {
      {"maxQueue: 0", "c.yaml:1:11 maxQueue: is the number 0, must be an integer from 1 to 1000"},
      {"maxQueue: '5'",
       "c.yaml:1:11 maxQueue: is the string \"5\", must be an integer from 1 to 1000; did you mean "
       "5 "
       "without quotes?"},
      {"maxQueue: 5.5",
       "c.yaml:1:11 maxQueue: is the number 5.5, must be an integer from 1 to 1000"},
      {"maxQueue: [5]", "c.yaml:1:11 maxQueue: is a list, must be an integer from 1 to 1000"},
      {"port: 70000", "c.yaml:1:7 port: is the number 70000, must be an integer from 0 to 65535"},
      {"ratio: 1.5", "c.yaml:1:8 ratio: is the number 1.5, must be a number from 0 to 1"},
      {"ratio: .nan", "c.yaml:1:8 ratio: is the number .nan, must be a number from 0 to 1"},
      {"enabled: 'true'", "c.yaml:1:10 enabled: is the string \"true\", must be true or false"},
      {"enabled: 1", "c.yaml:1:10 enabled: is the number 1, must be true or false"},
      {"title: 5", "c.yaml:1:8 title: is the number 5, must be a string; did you mean \"5\"?"},
      {"title: yes",
       "c.yaml:1:8 title: is the boolean yes, must be a string; did you mean \"yes\"?"},
      {"title: {a: b}", "c.yaml:1:8 title: is a map, must be a string"},
      {"window: 5",
       "c.yaml:1:9 window: is the number 5, must be a duration from 1ms to 1h0m0s such as 200ms, "
       "1.5s or 2h30m; did you mean 5s?"},
      {"window: 5 s",
       "c.yaml:1:9 window: is the string \"5 s\", must be a duration from 1ms to 1h0m0s such as "
       "200ms, 1.5s or 2h30m"},
      {"window: 2h",
       "c.yaml:1:9 window: is the string \"2h\", must be a duration from 1ms to 1h0m0s"},
      {"contextTTL: 60s",
       "c.yaml:1:13 contextTTL: is the string \"60s\", must be an integer of 0 or more "
       "(nanoseconds)"},
      {"timeoutMs: 0",
       "c.yaml:1:12 timeoutMs: is the number 0, must be an integer of 1 or more (milliseconds)"},
      {"maxBytes: 1X",
       "c.yaml:1:11 maxBytes: is the string \"1X\", must be a quantity of 0 or more such as 5000, "
       "1G "
       "or 500Mi"},
      {"maxBytes: -1", "c.yaml:1:11 maxBytes: is the number -1, must be a quantity of 0 or more"},
      {"mode: fsst",
       "c.yaml:1:7 mode: is the string \"fsst\", must be one of fast, exact; did you mean fast?"},
      {"mode: 3", "c.yaml:1:7 mode: is the number 3, must be one of fast, exact"},
      {"parts: 3", "c.yaml:1:8 parts: is the number 3, must be a list"},
      {"parts: [3]", "c.yaml:1:9 parts[0]: is the number 3, must be a map"},
      {"parts: [{weight: 1}]", "c.yaml:1:9 parts[0].name: is missing: What it is called."},
      {"parts: [{name: ''}]",
       "c.yaml:1:16 parts[0].name: is the string \"\", must be a string that is not empty"},
      {"parts: [{name: a, wieght: 1}]",
       "c.yaml:1:19 parts[0].wieght: unknown key, allowed are name, weight; did you mean weight?"},
      {"extra: {weight: 1}", "c.yaml:1:8 extra.name: is missing: What it is called."},
      {"gates: [1]", "c.yaml:1:9 gates[0]: is the number 1, must be a string; did you mean \"1\"?"},
      {"labels: {a: 1}",
       "c.yaml:1:13 labels.a: is the number 1, must be a string; did you mean \"1\"?"},
      {"labels: {a/b: [x]}", "c.yaml:1:15 labels[\"a/b\"]: is a list, must be a string"},
      {"labels: x",
       "c.yaml:1:9 labels: is the string \"x\", must be a map of at most 10000 strings"},
      {"- 1", "c.yaml:1:1: is a list, must be a map"},
      {"MaxQueue: 1",
       "c.yaml:1:1 MaxQueue: unknown key, allowed are maxQueue, port, ratio, enabled, title, "
       "window, "
       "contextTTL, timeoutMs, maxBytes, mode, parts, extra, gates, labels, parameters; did you "
       "mean "
       "maxQueue?"},
  };
  for (const auto& c : cases) EXPECT_EQ(Read(c.yaml).errors.ToString(), c.error) << c.yaml;
}

TEST(Schema, ReportsAllErrorsInFileOrderAndKeepsGoodFields) {
  const Outcome out = Read("port: x\nratio: 2\nparts:\n- {nme: a}\ntitle: fine\n");
  EXPECT_THAT(
      out.errors.Lines(),
      ElementsAre("c.yaml:1:7 port: is the string \"x\", must be an integer from 0 to 65535",
                  "c.yaml:2:8 ratio: is the number 2, must be a number from 0 to 1",
                  "c.yaml:4:3 parts[0].name: is missing: What it is called.",
                  "c.yaml:4:4 parts[0].nme: unknown key, allowed are name, weight; did you "
                  "mean name?"));
  EXPECT_EQ(out.sample.title, "fine");
  EXPECT_EQ(out.sample.port, 8000);
  EXPECT_EQ(out.errors.ToStatus().code(), base::StatusCode::kInvalidArgument);
}

TEST(Schema, ErrorListIsBounded) {
  std::string yaml = "gates:\n";
  for (int i = 0; i < 60; ++i) yaml.append("- 1\n");
  const ErrorList errors = Read(yaml).errors;
  EXPECT_EQ(errors.total(), 60u);
  ASSERT_EQ(errors.Lines().size(), 51u);
  EXPECT_EQ(errors.Lines().back(), "and 10 more errors");
}

TEST(Schema, ReadsTheFormsThatGoReads) {
  // null keeps the default, as Go decodes it.
  EXPECT_EQ(Read("maxQueue: null\nparts: ~\ntitle:\n").sample.max_queue, 128);
  EXPECT_EQ(Read("maxQueue: 1e2").sample.max_queue, 100);
  EXPECT_EQ(Read("maxQueue: 5.0").sample.max_queue, 5);
  EXPECT_EQ(Read("maxQueue: 0x10").sample.max_queue, 16);
  EXPECT_EQ(Read("maxQueue: 010").sample.max_queue, 8);
  EXPECT_EQ(Read("maxQueue: 1_0").sample.max_queue, 10);
  EXPECT_EQ(Read("ratio: 1").sample.ratio, 1.0);
  EXPECT_FALSE(Read("enabled: off").sample.enabled);
  EXPECT_EQ(Read("title: \"5\"").sample.title, "5");
  EXPECT_EQ(Read("title: !!str 5").sample.title, "5");
  EXPECT_EQ(Read("contextTTL: 5000").sample.ttl, base::Duration(5000));
  EXPECT_EQ(Read("timeoutMs: 20").sample.timeout, std::chrono::milliseconds(20));
  EXPECT_EQ(Read("maxBytes: 1G").sample.bytes_max, 1'000'000'000);
  EXPECT_EQ(Read("maxBytes: 500MiB").sample.bytes_max, 500 << 20);
  EXPECT_EQ(Read("maxBytes: 77").sample.bytes_max, 77);
  EXPECT_EQ(Read("extra: {name: e}").sample.extra->name, "e");
  EXPECT_FALSE(Read("").sample.extra.has_value());
  EXPECT_TRUE(Read("").errors.ok());
}

TEST(Schema, KeysMayIgnoreCaseAsGoJsonDoes) {
  const Outcome out = Read("MAXQUEUE: 7\nParts: [{NAME: a}]\n", true);
  EXPECT_TRUE(out.errors.ok()) << out.errors.ToString();
  EXPECT_EQ(out.sample.max_queue, 7);
  EXPECT_EQ(out.sample.parts.at(0).name, "a");
  EXPECT_EQ(Read("maxQueue: 7\nmaxqueue: 8\n", true).errors.ToString(),
            "c.yaml:2:1 maxqueue: duplicate key (case does not matter here), first at line 1");
}

TEST(Schema, WritesTheEffectiveConfiguration) {
  const Outcome out = Read("parts: [{name: 'yes', weight: 2}]\nlabels: {k: v}\n");
  const std::string yaml = ToYaml(SampleType().Write(out.sample));
  EXPECT_EQ(yaml, R"(maxQueue: 128
port: 8000
ratio: 0.5
enabled: true
title: none
window: 200ms
contextTTL: 60000000000
timeoutMs: 5
maxBytes: 1000
mode: fast
parts:
- name: "yes"
  weight: 2
gates: []
labels:
  k: v
)");
  // What is printed reads back as the same configuration.
  EXPECT_EQ(ToYaml(SampleType().Write(Read(yaml).sample)), yaml);
}

TEST(Schema, DescribesItself) {
  EXPECT_EQ(ToJson(PartType().SchemaDocument()), R"({
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Part",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "name": {
      "type": "string",
      "minLength": 1,
      "description": "What it is called."
    },
    "weight": {
      "type": "number",
      "minimum": 0,
      "maximum": 10,
      "description": "How much it counts.",
      "default": 1
    }
  },
  "required": [
    "name"
  ]
}
)");
  const Value schema = SampleType().Describe();
  const Value* mode = schema.Find("properties")->Find("mode");
  EXPECT_EQ(ToJson(*mode->Find("enum")), "[\n  \"fast\",\n  \"exact\"\n]\n");
  EXPECT_EQ(std::get<std::string>(mode->Find("default")->data()), "fast");
}

}  // namespace
}  // namespace llmd::config
