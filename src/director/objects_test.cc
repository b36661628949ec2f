#include "director/objects.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/strings.h"

namespace llmd::director {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Objective(std::string_view name, std::string_view spec,
                      std::string_view version = "llm-d.ai/v1alpha2",
                      std::string_view pool = "pool") {
  return base::Concat("---\napiVersion: ", version, "\nkind: InferenceObjective\nmetadata: {name: ",
                      name, "}\nspec: {poolRef: {name: ", pool, "}", spec, "}\n");
}
std::string Rewrite(std::string_view name, std::string_view rules, std::string_view created = "",
                    std::string_view version = "llm-d.ai/v1alpha2") {
  return base::Concat("---\napiVersion: ", version,
                      "\nkind: InferenceModelRewrite\nmetadata:\n  name: ", name,
                      created.empty() ? "" : "\n  creationTimestamp: ", created,
                      "\nspec:\n  poolRef: {name: pool}\n  rules: ", rules, "\n");
}

std::shared_ptr<const Objects> Read(std::string_view text) {
  const auto objects = ReadObjects(text, "o.yaml", "pool");
  EXPECT_TRUE(objects.has_value()) << objects.error().message();
  return objects ? *objects : nullptr;
}
std::string Drawn(const Objects& objects, std::string_view model) {
  const RewriteRule* rule = objects.RuleFor(model);
  base::Random random(1);
  return rule ? rule->Draw(random) : "";
}

// The tour: manifests as Kubernetes has them.
TEST(Objects, AreReadFromManifests) {
  const auto objects = Read(R"(# what the site wants
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata:
  name: batch
  namespace: prod
  labels: {team: a}
  uid: 0b6d
  managedFields: [{manager: kubectl}]
spec:
  priority: -10
  poolRef: {group: inference.networking.k8s.io, kind: InferencePool, name: pool}
status:
  conditions: [{type: Ready}]
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {name: canary, creationTimestamp: 2026-01-31T12:00:00Z}
spec:
  poolRef: {name: pool}
  rules:
  - matches: [{model: {type: Exact, value: llama}}, {model: {value: llama-latest}}]
    targets:
    - {weight: 9, modelRewrite: llama-v1}
    - {weight: 1, modelRewrite: llama-v2}
)");
  ASSERT_TRUE(objects);
  EXPECT_EQ(objects->PriorityOf("batch"), -10);
  EXPECT_EQ(objects->PriorityOf("chat"), std::nullopt);
  EXPECT_FALSE(objects->has_generic_rule());
  EXPECT_EQ(objects->RuleFor("mistral"), nullptr);
  const RewriteRule* rule = objects->RuleFor("llama");
  ASSERT_TRUE(rule);
  EXPECT_EQ(rule, objects->RuleFor("llama-latest"));
  EXPECT_EQ(rule->rewrite, "canary");
  base::Random random(1);
  std::map<std::string, int> drawn;
  for (int i = 0; i < 10'000; ++i) ++drawn[rule->Draw(random)];
  EXPECT_NEAR(drawn["llama-v1"], 9000, 150);
  EXPECT_EQ(drawn.size(), 2u);
  EXPECT_THAT(objects->model_names(),
              ElementsAre("llama", "llama-latest", "llama-v1", "llama-v2"));
  EXPECT_THAT(objects->warnings(), IsEmpty());
}

TEST(Objects, NoTextHasNone) {
  for (std::string_view text : {"", "\n", "---\n", "# nothing\n---\n---\n"}) {
    const auto objects = Read(text);
    EXPECT_EQ(objects->objective_count() + objects->rule_count(), 0u);
  }
}

TEST(Objects, AnObjectiveWithoutAPriorityHasNone) {
  EXPECT_EQ(Read(Objective("a", ""))->PriorityOf("a"), 0);
  EXPECT_EQ(Read(Objective("a", ", priority: 2147483647"))->PriorityOf("a"), 2147483647);
}

TEST(Objects, ExactRulesComeFirstThenTheOldestThenTheFirst) {
  const auto rule = [](std::string_view model, std::string_view target) {
    return base::Concat("{", model.empty() ? "" : base::Concat("matches: [{model: {value: ", model,
                                                                "}}], "),
                        "targets: [{modelRewrite: ", target, "}]}");
  };
  const std::string young = Rewrite("young", base::Concat("[", rule("m", "young"), "]"),
                                    "2026-02-01T00:00:00Z");
  const std::string old = Rewrite(
      "old", base::Concat("[", rule("", "old-any"), ", ", rule("m", "old"), ", ",
                          rule("m", "old-second"), ", ", rule("", "old-any-second"), "]"),
      "2026-01-31T23:59:59+00:00");
  // An hour earlier than it looks.
  const std::string east = Rewrite("east", base::Concat("[", rule("m", "east"), "]"),
                                   "2026-02-01T00:30:00.5+01:00");
  const std::string undated = Rewrite("undated", base::Concat("[", rule("m", "undated"), "]"));
  EXPECT_EQ(Drawn(*Read(young + old), "m"), "old");
  EXPECT_EQ(Drawn(*Read(young + old), "n"), "old-any");
  EXPECT_TRUE(Read(young + old)->has_generic_rule());
  EXPECT_EQ(Drawn(*Read(young + old + east), "m"), "east");
  EXPECT_EQ(Drawn(*Read(young + old + undated), "m"), "undated") << "as Go's zero time";
  const std::string same = Rewrite("same", base::Concat("[", rule("m", "same"), "]"),
                                   "2026-02-01T00:00:00Z");
  EXPECT_EQ(Drawn(*Read(young + same), "m"), "young") << "the file's order";
  EXPECT_EQ(Drawn(*Read(same + young), "m"), "same");
}

TEST(Objects, WeightsAreAllOrNone) {
  const auto even = Read(Rewrite("r", "[{targets: [{modelRewrite: a}, {modelRewrite: b}]}]"));
  base::Random random(1);
  std::map<std::string, int> drawn;
  for (int i = 0; i < 1000; ++i) ++drawn[even->RuleFor("x")->Draw(random)];
  EXPECT_NEAR(drawn["a"], 500, 60);
  const auto mixed = Read(Rewrite(
      "r", "[{targets: [{modelRewrite: a}, {modelRewrite: b, weight: 3}, {modelRewrite: c}]}]"));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(mixed->RuleFor("x")->Draw(random), "b");
  EXPECT_THAT(mixed->warnings(),
              ElementsAre("o.yaml:8:22 \"a\" is never chosen: other targets have weights",
                          "o.yaml:8:71 \"c\" is never chosen: other targets have weights"));
}

TEST(Objects, OthersArePassedOverWithAWarning) {
  const std::string text =
      "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n" +
      Objective("foreign", ", priority: 1", "llm-d.ai/v1alpha2", "other") +
      Objective("group", ", priority: 1", "llm-d.ai/v1alpha2", "pool, group: x.io") +
      Objective("mine", ", priority: 1") +
      "---\napiVersion: llm-d.ai/v1alpha2\nkind: InferenceObjective\n"
      "metadata: {name: gone, deletionTimestamp: 2026-01-01T00:00:00Z}\n"
      "spec: {poolRef: {name: pool}}\n";
  const auto objects = Read(text);
  EXPECT_EQ(objects->objective_count(), 1u);
  EXPECT_THAT(
      objects->warnings(),
      ElementsAre(HasSubstr("o.yaml:1:1 a Service of v1 is ignored"),
                  HasSubstr("\"foreign\" is ignored: it is for InferencePool \"other\""),
                  HasSubstr("\"group\" is ignored: it is for InferencePool \"pool\" of x.io"),
                  HasSubstr("\"gone\" is ignored: it is being deleted")));
  const auto any_pool = ReadObjects(text, "o.yaml", "");
  EXPECT_EQ((*any_pool)->objective_count(), 3u);
}

TEST(Objects, TheOlderGroupServesWhereTheNewerOneIsNot) {
  constexpr std::string_view kOld = "inference.networking.x-k8s.io/v1alpha2";
  const std::string old = Objective("a", ", priority: 1", kOld) + Objective("b", "", kOld);
  const auto alone = Read(old);
  EXPECT_EQ(alone->PriorityOf("a"), 1);
  EXPECT_THAT(alone->warnings(), ElementsAre(HasSubstr("is deprecated: use llm-d.ai/v1alpha2")));
  const auto both = Read(old + Objective("a", ", priority: 2"));
  EXPECT_EQ(both->PriorityOf("a"), 2);
  EXPECT_EQ(both->PriorityOf("b"), std::nullopt);
  EXPECT_THAT(both->warnings(), ElementsAre(HasSubstr("2 objects InferenceObjective of ")));
  // Per kind, as upstream.
  const auto kinds = Read(old + Rewrite("r", "[{targets: [{modelRewrite: a}]}]"));
  EXPECT_EQ(kinds->PriorityOf("a"), 1);
}

TEST(Objects, ListsAsKubectlPrintsThemAreRead) {
  const auto objects = Read(R"({"apiVersion": "v1", "kind": "List", "items": [
    {"apiVersion": "llm-d.ai/v1alpha2", "kind": "InferenceObjective",
     "metadata": {"name": "a", "creationTimestamp": null},
     "spec": {"priority": 7, "poolRef": {"name": "pool"}}}]})");
  EXPECT_EQ(objects->PriorityOf("a"), 7);
}

TEST(Objects, SayEverythingThatIsWrongAndWhere) {
  struct Case {
    std::string text, error;
  };
  const std::string rule = "[{targets: [{modelRewrite: a}]}]";
  for (const Case& c : {
           Case{"- a", "o.yaml:1:1: is no manifest"},
           Case{"kind: InferenceObjective", "o.yaml:1:1: apiVersion is missing"},
           Case{"apiVersion: v1", "kind is missing"},
           Case{Objective("a", "", "llm-d.ai/v1"),
                "o.yaml:2:13 apiVersion: unknown InferenceObjective apiVersion \"llm-d.ai/v1\", "
                "allowed are llm-d.ai/v1alpha2, inference.networking.x-k8s.io/v1alpha2"},
           Case{Objective("a", ", prio: 1"), "o.yaml:5:31 spec.prio: unknown key"},
           Case{Objective("a", ", priority: high"), "spec.priority: "},
           Case{Objective("a", ", priority: 2147483648"), "spec.priority: "},
           Case{"apiVersion: llm-d.ai/v1alpha2\nkind: InferenceObjective\nmetadata: {name: a}\n"
                "spec: {priority: 1}\n",
                "spec.poolRef: is missing"},
           Case{"apiVersion: llm-d.ai/v1alpha2\nkind: InferenceObjective\nmetadata: {}\n"
                "spec: {poolRef: {name: pool}}\n",
                "metadata.name: is missing"},
           Case{Objective("a", "") + Objective("a", ""),
                "o.yaml:9:18 metadata.name: duplicate InferenceObjective \"a\", first at line 4"},
           Case{Rewrite("r", "[{}]"), "spec.rules[0].targets: is missing"},
           Case{Rewrite("r", "[{targets: []}]"), "spec.rules[0].targets: has no targets"},
           Case{Rewrite("r", "[{targets: [{modelRewrite: a, weight: 0}]}]"), ".weight: "},
           Case{Rewrite("r", "[{targets: [{weight: 1}]}]"), ".modelRewrite: is missing"},
           Case{Rewrite("r", "[{matches: [{}], targets: [{modelRewrite: a}]}]"),
                "matches[0].model: is missing"},
           Case{Rewrite("r", "[{matches: [{model: {value: a, type: Prefix}}], targets: "
                             "[{modelRewrite: a}]}]"),
                "unknown match type \"Prefix\", allowed is Exact"},
           Case{Rewrite("r", rule, "yesterday"),
                "creationTimestamp: \"yesterday\" is no RFC 3339 time"},
           Case{Rewrite("r", rule, "2026-02-30T00:00:00Z"), "is no RFC 3339 time"},
           Case{Rewrite("r", rule, "2026-02-03T00:00:00"), "is no RFC 3339 time"},
           Case{Rewrite("r", rule, "2026-02-03T00:00:00+1:00"), "is no RFC 3339 time"},
           Case{"a: [", "not valid YAML"},
       }) {
    const auto objects = ReadObjects(c.text, "o.yaml", "pool");
    ASSERT_FALSE(objects.has_value()) << c.text;
    EXPECT_THAT(std::string(objects.error().message()), HasSubstr(c.error)) << c.text;
  }
  const auto all = ReadObjects(Objective("a", ", x: 1") + Rewrite("r", "[]") + "---\n[]\n" +
                                   Objective("b", ", y: 1"),
                               "o.yaml", "pool");
  EXPECT_EQ(base::Split(all.error().message(), '\n').size(), 3u) << all.error().message();
}

TEST(Objects, HaveALimit) {
  std::string many;
  for (size_t i = 0; i <= kObjectsMax; ++i) many += Objective("o" + std::to_string(i), "");
  const auto objects = ReadObjects(many, "o.yaml", "pool");
  ASSERT_FALSE(objects.has_value());
  EXPECT_THAT(std::string(objects.error().message()), HasSubstr("too many objects, at most 10000"));
  EXPECT_FALSE(ReadObjects(std::string(kObjectsBytesMax + 1, ' '), "o.yaml", "").has_value());
}

}  // namespace
}  // namespace llmd::director
