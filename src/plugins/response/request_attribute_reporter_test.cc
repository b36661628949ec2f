#include "plugins/response/request_attribute_reporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

// "namespace/name=value" or "" when nothing is reported, for 10 prompt tokens (4 cached) and 32 of
// the answer.
std::string Reported(std::string_view attribute, bool has_cached = true) {
  Scene scene(1);
  auto made = scene.Make(RequestAttributeReporterType(),
                         "{attributes: [" + std::string(attribute) + "]}");
  EXPECT_NE(made, nullptr) << scene.context().errors().ToString();
  if (!made) return "";
  protocol::Usage usage;
  usage.present = true;
  usage.prompt_tokens = 10;
  usage.completion_tokens = 32;
  usage.total_tokens = 42;
  usage.has_cached = has_cached;
  usage.cached_tokens = 4;
  plugin::MetadataList metadata;
  dynamic_cast<plugin::ResponseProcessor&>(*made).OnResponseEnd(scene.NewRequest(),
                                                                {.usage = usage}, &metadata);
  if (metadata.items().empty()) return "";
  const plugin::MetadataNumber& m = metadata.items()[0];
  return std::string(m.name_space) + "/" + std::string(m.name) + "=" + std::to_string(m.value);
}

TEST(RequestAttributeReporter, ReportsWhatTheExpressionGives) {
  EXPECT_EQ(Reported("{key: {name: cost}, expression: usage.total_tokens}"), "envoy.lb/cost=42");
  EXPECT_EQ(Reported("{key: {namespace: mine, name: cost}, "
                     "expression: 'usage.prompt_tokens + usage.completion_tokens * 3.0'}"),
            "mine/cost=106");
  EXPECT_EQ(Reported("{key: {name: c}, expression: "
                     "'int(usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens)'}"),
            "envoy.lb/c=6");
  EXPECT_EQ(Reported("{key: {name: c}, expression: 'usage.prompt_tokens / 4.0'}"), "envoy.lb/c=2")
      << "cut to a whole number";
}

TEST(RequestAttributeReporter, ReportsNothingWithoutANumberOrACause) {
  for (const char* attribute :
       {"{key: {name: c}, expression: usage.total_tokens, condition: 'usage.total_tokens > 100.0'}",
        "{key: {name: c}, expression: usage.total_tokens, condition: '1 + 1'}",
        "{key: {name: c}, expression: 'usage.total_tokens - 42.0'}",
        "{key: {name: c}, expression: 'usage.total_tokens > 1.0'}"}) {
    EXPECT_EQ(Reported(attribute), "") << attribute;
  }
  EXPECT_EQ(Reported("{key: {name: c}, expression: usage.prompt_tokens_details.cached_tokens}",
                     false),
            "")
      << "the reply did not tell it";
  EXPECT_EQ(Reported("{key: {name: c}, expression: usage.total_tokens, "
                     "condition: 'has(usage.prompt_tokens_details)'}"),
            "envoy.lb/c=42");
}

TEST(RequestAttributeReporter, RefusesWhatCannotBeMeant) {
  for (const char* yaml :
       {"{}", "{attributes: []}",
        "{attributes: [{key: {name: a}, expression: usage.total_tokens}, "
        "{key: {name: b}, expression: usage.total_tokens}]}",
        "{attributes: [{key: {name: ''}, expression: usage.total_tokens}]}",
        "{attributes: [{key: {name: a}, expression: ''}]}",
        "{attributes: [{key: {name: a}, expression: 'usage.'}]}",
        "{attributes: [{key: {name: a}, expression: nobody}]}",
        "{attributes: [{key: {name: a}, expression: usage.total_tokens, condition: '('}]}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(RequestAttributeReporterType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
