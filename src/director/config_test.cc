#include "director/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/strings.h"
#include "config/document.h"
#include "director/director_testing.h"
#include "director/picker_document.h"

namespace llmd::director {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TestCatalogue;
using testing::TestKnobs;

constexpr std::string_view kHead = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

struct Loader {
  fleet::Fleet fleet{1};
  LoadOptions options{.endpoints_given = true};
  std::shared_ptr<const Generation> generation;

  base::Status Load(std::string_view yaml) {
    auto compiled = Compile(yaml, "c.yaml", TestCatalogue(), fleet, options, generation.get());
    if (!compiled) return compiled.error();
    generation = *compiled;
    return base::OkStatus();
  }
  // Of a document that needs no more than `rest`.
  base::Status LoadRest(std::string_view rest) { return Load(base::Concat(kHead, rest)); }
  std::vector<std::string> Plugins() const {
    std::vector<std::string> names;
    for (const LoadedPlugin& p : generation->plugins()) {
      names.push_back((p.injected ? "+" : "") + p.object->name());
    }
    return names;
  }
  const plugin::Plugin* Object(std::string_view name) const {
    for (const LoadedPlugin& p : generation->plugins()) {
      if (p.object->name() == name) return p.object.get();
    }
    return nullptr;
  }
};

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::filesystem::path TestData() {
  return std::filesystem::path(LLMD_SOURCE_DIR) / "src/director/testdata";
}

// The tour: no config at all is upstream's default profile, with everything it needs put in.
TEST(Config, NoDocumentIsUpstreamsDefault) {
  Loader l;
  ASSERT_TRUE(l.Load("").ok());
  EXPECT_THAT(l.Plugins(),
              ElementsAre("queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer",
                          "metrics-data-source", "core-metrics-extractor",
                          "+single-profile-handler", "+max-score-picker", "+openai-parser",
                          "+passthrough-parser", "+utilization-detector",
                          "+approx-prefix-cache-producer", "+token-producer"));
  ASSERT_EQ(l.generation->profiles().size(), 1u);
  const scheduling::Profile& profile = l.generation->profiles()[0];
  EXPECT_EQ(profile.name, "default");
  ASSERT_EQ(profile.scorers.size(), 3u);
  EXPECT_EQ(profile.scorers[0].weight, 2);
  EXPECT_EQ(profile.scorers[1].weight, 2);
  EXPECT_EQ(profile.scorers[2].weight, 3);
  EXPECT_TRUE(profile.picker);
  ASSERT_EQ(l.generation->producers().size(), 2u);
  EXPECT_EQ(l.generation->plugins()[l.generation->producers()[0].plugin].object->name(),
            "token-producer") << "before the producer that reads its tokens";
  ASSERT_EQ(l.generation->scrapes().size(), 1u);
  EXPECT_EQ(l.generation->scrapes()[0].extractors.size(), 1u);
  EXPECT_EQ(l.generation->ApiFor("/v1/chat/completions"), protocol::Api::kChatCompletions);
  EXPECT_EQ(l.generation->ApiFor("/v1/completions/"), protocol::Api::kCompletions);
  EXPECT_EQ(l.generation->ApiFor("/v1/rerank"), protocol::Api::kOpaque);
  EXPECT_NE(l.generation->prefix_slot().index, plugin::kNoSlot);
  EXPECT_EQ(l.generation->number(), 1u);
}

TEST(Config, EffectiveDocumentsAreAsRecordedAndLoadAgain) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TestData())) {
    const std::string name = entry.path().filename();
    if (!name.ends_with(".yaml") || name.ends_with(".effective.yaml")) continue;
    ++files;
    Loader l;
    ASSERT_TRUE(l.Load(ReadFile(entry.path())).ok())
        << name << l.Load(ReadFile(entry.path())).message();
    const std::filesystem::path golden =
        TestData() / (entry.path().stem().string() + ".effective.yaml");
    if (std::getenv("LLMD_UPDATE_GOLDEN")) std::ofstream(golden) << l.generation->effective_yaml();
    EXPECT_EQ(l.generation->effective_yaml(), ReadFile(golden)) << name;
    Loader again;
    ASSERT_TRUE(again.Load(l.generation->effective_yaml()).ok()) << name;
    EXPECT_EQ(again.generation->effective_yaml(), l.generation->effective_yaml()) << name;
  }
  EXPECT_GE(files, 4u);
}

struct ErrorCase {
  std::string_view name;
  std::string_view rest;  // after kHead
  std::string_view error;  // without "c.yaml:"
};
constexpr ErrorCase kErrors[] = {
    {"unknown field", "plugin: []", "3:1 plugin: "},
    {"unknown field deep", "schedulingProfiles: [{name: a, plugins: [{pluginRef: x, wait: 1}]}]",
     "schedulingProfiles[0].plugins[0].wait: unknown key"},
    {"unknown gate", "featureGates: [flowControls]",
     "3:16 featureGates[0]: unknown feature gate \"flowControls\", allowed are flowControl, "
     "haPopulateNonLeaderDatastore; did you mean flowControl?"},
    {"gate value", "featureGates: [flowControl=maybe]",
     "featureGates[0]: \"maybe\" is no value of the feature gate flowControl, allowed are true, "
     "false"},
    {"flow control", "featureGates: [flowControl]",
     "featureGates[0]: feature gate \"flowControl\" is part of llm-d but not built into this "
     "release yet"},
    {"plugin without type", "plugins: [{name: a}]", "plugins[0].type: is missing"},
    {"duplicate name", "plugins: [{type: queue-scorer}, {type: refuser, name: queue-scorer}]",
     "3:55 plugins[1].name: duplicate plugin name \"queue-scorer\""},
    {"unknown type", "plugins: [{type: queue-scorrer}]",
     "3:18 plugins[0].type: unknown plugin type \"queue-scorrer\"; did you mean queue-scorer?"},
    {"not built", "plugins: [{type: latency-scorer}]",
     "plugins[0].type: plugin type \"latency-scorer\" is part of llm-d but not built into this "
     "release yet"},
    {"alpha", "plugins: [{type: experimental-scorer}]",
     "plugins[0].type: plugin type \"experimental-scorer\" is experimental, allowed with "
     "--allow-experimental-plugins"},
    {"factory", "plugins: [{type: broken, name: b}]",
     "plugins[0]: plugin \"b\" could not be made"},
    {"unknown parameter", "plugins: [{type: queue-scorer, parameters: {qeue: 1}}]",
     "plugins[0].parameters.qeue: "},
    {"parameters no map", "plugins: [{type: queue-scorer, parameters: [1]}]",
     "plugins[0].parameters: is a list, must be a map"},
    {"profile without name", "schedulingProfiles: [{plugins: []}]",
     "schedulingProfiles[0].name: is missing"},
    {"duplicate profile",
     "plugins: [{type: disagg-profile-handler}]\nschedulingProfiles: [{name: a}, {name: a}]",
     "schedulingProfiles[1].name: duplicate profile name \"a\""},
    {"missing reference", "schedulingProfiles: [{name: a, plugins: [{weight: 1}]}]",
     "schedulingProfiles[0].plugins[0].pluginRef: is missing"},
    {"undefined reference",
     "plugins: [{type: queue-scorer}]\nschedulingProfiles: [{name: a, plugins: [{pluginRef: "
     "queue-scorr}]}]",
     "schedulingProfiles[0].plugins[0].pluginRef: profile \"a\" refers to undefined plugin "
     "\"queue-scorr\"; did you mean queue-scorer?"},
    {"wrong kind",
     "plugins: [{type: refuser}]\nschedulingProfiles: [{name: a, plugins: [{pluginRef: refuser}]}]",
     "schedulingProfiles[0].plugins[0].pluginRef: plugin \"refuser\" of type \"refuser\" is not a "
     "filter, a scorer or a picker"},
    {"two pickers", "plugins: [{type: max-score-picker}, {type: random-picker}]",
     "plugins[1]: profile \"default\" has two pickers, one is allowed"},
    {"two handlers", "plugins: [{type: single-profile-handler}, {type: disagg-profile-handler}]",
     "plugins[1]: two profile handlers, \"single-profile-handler\" and \"disagg-profile-handler\", "
     "one is allowed"},
    {"no handler", "schedulingProfiles: [{name: a}, {name: b}]",
     "several scheduling profiles and no profile handler among the plugins"},
    {"single handler, two profiles",
     "plugins: [{type: single-profile-handler}]\nschedulingProfiles: [{name: a}, {name: b}]",
     "plugins[0]: single-profile-handler runs one profile"},
    {"undefined detector", "flowControl: {saturationDetector: {pluginRef: x}}",
     "flowControl.saturationDetector.pluginRef: saturationDetector refers to undefined plugin "
     "\"x\""},
    {"wrong detector", "plugins: [{type: refuser}]\nsaturationDetector: {pluginRef: refuser}",
     "saturationDetector.pluginRef: plugin \"refuser\" of type \"refuser\" is not a saturation "
     "detector"},
    {"undefined parser", "requestHandler: {parsers: [{pluginRef: x}]}",
     "requestHandler.parsers[0].pluginRef: requestHandler refers to undefined plugin \"x\""},
    {"wrong parser", "plugins: [{type: refuser}]\nparser: {pluginRef: refuser}",
     "parser.pluginRef: plugin \"refuser\" of type \"refuser\" is not a parser"},
    {"parser that comes later", "requestHandler: {parsers: [{pluginRef: anthropic-parser}]}",
     "requestHandler.parsers[0].pluginRef: plugin type \"anthropic-parser\" is part of llm-d but "
     "not "
     "built into this release yet"},
    {"duplicate band", "flowControl: {priorityBands: [{priority: 1}, {priority: 1}]}",
     "flowControl.priorityBands[1].priority: duplicate priority band 1"},
    {"band without priority", "flowControl: {priorityBands: [{maxBytes: 1G}]}",
     "flowControl.priorityBands[0]: a priority band needs a priority"},
    {"negative quantity", "flowControl: {maxBytes: -1}", "flowControl.maxBytes: "},
    {"negative count", "flowControl: {maxRequests: -1}", "flowControl.maxRequests: "},
    {"negative quantity of a band",
     "flowControl: {priorityBands: [{priority: 0, maxRequests: -1}]}",
     "flowControl.priorityBands[0].maxRequests: "},
    {"negative ttl without endpoints", "flowControl: {noEndpointRequestTTL: -1s}",
     "flowControl.noEndpointRequestTTL: "},
    {"empty reference", "schedulingProfiles: [{name: a, plugins: [{pluginRef: \"\"}]}]",
     "schedulingProfiles[0].plugins[0].pluginRef: "},
    {"two handlers of a type",
     "plugins: [{type: single-profile-handler}, {type: single-profile-handler, name: b}]",
     "plugins[1]: two profile handlers, \"single-profile-handler\" and \"b\", one is allowed"},
    {"negative ttl", "flowControl: {defaultRequestTTL: -1s}", "flowControl.defaultRequestTTL: "},
    {"undefined source", "dataLayer: {sources: [{pluginRef: x}]}",
     "dataLayer.sources[0].pluginRef: dataLayer.sources refers to undefined plugin \"x\""},
    {"wrong source", "plugins: [{type: refuser}]\ndataLayer: {sources: [{pluginRef: refuser}]}",
     "dataLayer.sources[0].pluginRef: plugin \"refuser\" of type \"refuser\" is not a data source"},
    {"undefined extractor",
     "plugins: [{type: metrics-data-source}]\ndataLayer: {sources: [{pluginRef: "
     "metrics-data-source, extractors: [{pluginRef: x}]}]}",
     "extractors[0].pluginRef: extractors refers to undefined plugin \"x\""},
    {"wrong extractor",
     "plugins: [{type: metrics-data-source}, {type: refuser}]\ndataLayer: {sources: [{pluginRef: "
     "metrics-data-source, extractors: [{pluginRef: refuser}]}]}",
     "extractors[0].pluginRef: plugin \"refuser\" of type \"refuser\" is not an extractor"},
    {"duplicate extractor type",
     "plugins: [{type: metrics-data-source}, {type: core-metrics-extractor}, {type: "
     "core-metrics-extractor, name: b}]\ndataLayer: {sources: [{pluginRef: metrics-data-source, "
     "extractors: [{pluginRef: core-metrics-extractor}, {pluginRef: b}]}]}",
     "extractors[1].pluginRef: two extractors of type \"core-metrics-extractor\" in one source, "
     "one is allowed"},
    {"no sources", "dataLayer: {injectDefaults: false}",
     "dataLayer: no data sources, and injectDefaults is false"},
    {"undefined discovery", "dataLayer: {discovery: {pluginRef: x}}",
     "dataLayer.discovery.pluginRef: dataLayer.discovery refers to undefined plugin \"x\""},
    {"wrong discovery", "plugins: [{type: refuser}]\ndataLayer: {discovery: {pluginRef: refuser}}",
     "dataLayer.discovery.pluginRef: plugin \"refuser\" of type \"refuser\" is not an endpoint "
     "discovery"},
    {"peers", "dataLayer: {peerDiscovery: {pluginRef: x}}",
     "dataLayer.peerDiscovery: discovery of peers is part of llm-d but not built into this release "
     "yet"},
    {"replicas", "dataLayer: {crossReplicaSyncerPluginRef: x}",
     "dataLayer.crossReplicaSyncerPluginRef: state shared between replicas is part of llm-d but "
     "not "
     "built into this release yet"},
    {"circular producers",
     "plugins: [{type: circular-producer, name: a, parameters: {reads: b}}, {type: "
     "circular-producer, name: b, parameters: {reads: a}}]",
     "data producers read each other's attributes in a circle: a, b"},
    {"producer of something else",
     "plugins: [{type: prefix-cache-scorer, parameters: {producer: token-producer}}, {type: "
     "token-producer}]",
     "plugins[0].parameters: plugin \"prefix-cache-scorer\" reads PrefixCacheMatchInfo of "
     "\"token-producer\", which does not produce it"},
    {"no such producer", "plugins: [{type: prefix-cache-scorer, parameters: {producer: other}}]",
     "plugin \"prefix-cache-scorer\" reads PrefixCacheMatchInfo of \"other\", which is not among "
     "the "
     "plugins"},
    {"circular references",
     "plugins: [{type: referrer, name: a, parameters: {other: b}}, {type: referrer, name: b, "
     "parameters: {other: a}}]",
     "plugins refer to each other in a circle at \"a\""},
    {"undefined in parameters", "plugins: [{type: referrer, parameters: {other: b}}]",
     "plugins[0].parameters: parameters refers to undefined plugin \"b\""},
    {"wrong kind in parameters",
     "plugins: [{type: referrer, parameters: {other: refuser}}, {type: refuser}]",
     "plugins[0].parameters: plugin \"refuser\" is a refuser, which cannot do what is asked of it "
     "here"},
};

TEST(Config, EveryErrorNamesItsPlaceAndWhatIsAllowed) {
  for (const ErrorCase& c : kErrors) {
    Loader l;
    const base::Status status = l.LoadRest(c.rest);
    EXPECT_EQ(status.code(), base::StatusCode::kInvalidArgument) << c.name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(c.error))) << c.name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("c.yaml:")) << c.name;
    EXPECT_THAT(std::string(status.message()), ::testing::Not(HasSubstr("\n")))
        << c.name << ": one mistake, one error";
  }
}

TEST(Config, VersionAndKindAreChecked) {
  Loader l;
  EXPECT_THAT(std::string(l.Load("apiVersion: v1\nkind: EndpointPickerConfig\n").message()),
              HasSubstr("unknown apiVersion \"v1\", allowed is llm-d.ai/v1alpha1"));
  EXPECT_THAT(
      std::string(l.Load("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfg\n").message()),
      HasSubstr("unknown kind \"EndpointPickerConfg\", allowed is EndpointPickerConfig; did you "
                "mean EndpointPickerConfig?"));
  // As upstream: what is absent is taken for what it must be.
  EXPECT_TRUE(l.Load("plugins: []\n").ok());
  EXPECT_FALSE(l.Load("a: [").ok());
}

TEST(Config, AllErrorsAtOnce) {
  Loader l;
  const base::Status status = l.LoadRest(
      "plugins: [{type: latency-scorer}, {type: nothing-like-it}]\n"
      "schedulingProfiles: [{name: a, plugins: [{pluginRef: latency-scorer}, {pluginRef: z}]}]\n"
      "flowControl: {saturationDetector: {pluginRef: yy}}\n");
  EXPECT_EQ(base::Split(status.message(), '\n').size(), 4u) << status.message();
  // A part that cannot be read does not hide the plugins' errors.
  const base::Status partly = l.LoadRest(
      "featureGates: [x]\nplugins: [{type: latency-scorer}]\nschedulingProfiles: [{name: 3}]\n");
  EXPECT_EQ(base::Split(partly.message(), '\n').size(), 3u) << partly.message();
}

TEST(Config, DeprecatedPlacesAreHonouredWithAWarning) {
  Loader l;
  ASSERT_TRUE(l.Load("apiVersion: inference.networking.x-k8s.io/v1alpha1\n"
                     "kind: EndpointPickerConfig\n"
                     "plugins: [{type: utilization-detector, name: d}, {type: old-scorer}]\n"
                     "saturationDetector: {pluginRef: d}\n"
                     "parser: {pluginRef: openai-parser}\n"
                     "flowControl: {maxRequests: 5k}\n").ok());
  EXPECT_EQ(dynamic_cast<const plugin::Plugin*>(&l.generation->saturation())->name(), "d");
  EXPECT_EQ(l.generation->warnings().size(), 5u);
  EXPECT_THAT(l.generation->warnings(),
              ::testing::Contains("plugin type \"old-scorer\" is deprecated: Old name of "
                                  "queue-scorer."));
  EXPECT_THAT(l.generation->effective_yaml(), ::testing::Not(HasSubstr("\nparser")));
}

TEST(Config, GatesMayBeSpeltOut) {
  Loader l;
  EXPECT_TRUE(l.LoadRest("featureGates: [flowControl=false, haPopulateNonLeaderDatastore, "
                         "\"haPopulateNonLeaderDatastore= T\"]").ok());
}

TEST(Config, HooksAreFoundInTheDocumentsOrder) {
  Loader l;
  ASSERT_TRUE(l.LoadRest("plugins: [{type: agent-identity, name: second}, {type: reply-watcher}, "
                         "{type: agent-identity, name: first}, {type: header-setter}]").ok());
  ASSERT_EQ(l.generation->header_processors().size(), 2u);
  EXPECT_EQ(l.generation->header_processors()[0].plugin, 0u);
  EXPECT_EQ(l.generation->header_processors()[1].plugin, 2u);
  ASSERT_EQ(l.generation->response_processors().size(), 1u);
  EXPECT_EQ(l.generation->response_processors()[0].plugin, 1u);
  EXPECT_EQ(l.generation->pre_requests().size(), 1u);
  EXPECT_NE(l.generation->agent_identity_slot().index, plugin::kNoSlot);
  ASSERT_TRUE(l.LoadRest("plugins: [{type: reply-watcher}]").ok());
  EXPECT_EQ(l.generation->agent_identity_slot().index, plugin::kNoSlot);
}

TEST(Config, ExperimentalPluginsNeedTheFlag) {
  Loader l;
  l.options.allow_experimental_plugins = true;
  EXPECT_TRUE(l.LoadRest("plugins: [{type: experimental-scorer}]").ok());
}

TEST(Config, EndpointsComeFromFlagsOrFromADiscovery) {
  Loader l;
  l.options.endpoints_given = false;
  EXPECT_THAT(std::string(l.Load("").message()), HasSubstr("no source of endpoints"));
  const std::string_view file =
      "plugins: [{type: file-discovery, parameters: {path: e.yaml}}]\n"
      "dataLayer: {discovery: {pluginRef: file-discovery}}";
  ASSERT_TRUE(l.LoadRest(file).ok());
  ASSERT_TRUE(l.generation->discovery());
  EXPECT_EQ(l.generation->discovery()->file().path, "e.yaml");
  l.options.endpoints_given = true;
  ASSERT_TRUE(l.LoadRest(file).ok());
  EXPECT_EQ(l.generation->discovery(), nullptr);
  EXPECT_THAT(l.generation->warnings(), ElementsAre(HasSubstr("--endpoints")));
}

// Claims one whole path, over HTTP/2 only.
struct GrpcParser : plugin::Plugin, plugin::Parser {
  std::span<const Claim> claims() const override {
    static constexpr Claim kClaims[] = {{"generate", protocol::Api::kSglangGenerate, true}};
    return kClaims;
  }
  std::span<const plugin::AppProtocol> protocols() const override {
    static constexpr plugin::AppProtocol kProtocols[] = {plugin::AppProtocol::kH2c};
    return kProtocols;
  }
};

std::shared_ptr<const Generation> WithParsers(std::string_view names) {
  plugin::Catalogue catalogue = TestCatalogue();
  catalogue.Add({.type = "grpc-parser", .factory = [](plugin::PluginContext&) {
                   return std::make_unique<GrpcParser>();
                 }});
  fleet::Fleet fleet(1);
  std::string yaml = base::Concat(kHead, "requestHandler:\n  parsers:\n");
  for (const std::string_view name : base::Split(names, ' ')) {
    yaml += base::Concat("  - pluginRef: ", name, "\n");
  }
  const auto compiled =
      Compile(yaml, "c.yaml", catalogue, fleet, {.endpoints_given = true}, nullptr);
  EXPECT_TRUE(compiled.has_value()) << compiled.error().message();
  return compiled.value_or(nullptr);
}

TEST(Config, AParserThatTakesEveryPathIsTheLast) {
  const auto generation = WithParsers("grpc-parser passthrough-parser openai-parser");
  ASSERT_TRUE(generation);
  EXPECT_TRUE(generation->has_fallback_parser());
  EXPECT_THAT(generation->warnings(), ElementsAre(HasSubstr("\"openai-parser\" is not used")));
  EXPECT_EQ(generation->ApiFor("/v1/completions"), protocol::Api::kOpaque);
  EXPECT_EQ(generation->ApiFor("/generate"), protocol::Api::kSglangGenerate);
  EXPECT_EQ(generation->ApiFor("/generate/"), protocol::Api::kSglangGenerate);
  EXPECT_EQ(generation->ApiFor("/v1/generate"), protocol::Api::kOpaque);
  EXPECT_FALSE(WithParsers("openai-parser")->has_fallback_parser());
}

TEST(Config, APoolsProtocolMustSuitEveryParser) {
  const auto any = WithParsers("openai-parser passthrough-parser");
  EXPECT_TRUE(any->ParsersSupport(""));
  EXPECT_TRUE(any->ParsersSupport("http"));
  const auto grpc = WithParsers("openai-parser grpc-parser");
  EXPECT_TRUE(grpc->ParsersSupport(""));
  EXPECT_TRUE(grpc->ParsersSupport("kubernetes.io/h2c"));
  EXPECT_FALSE(grpc->ParsersSupport("http"));
}

TEST(Config, ProfilesWithoutAPickerShareTheConfiguredOne) {
  Loader l;
  ASSERT_TRUE(l.LoadRest("plugins: [{type: disagg-profile-handler}, {type: random-picker}]\n"
                         "schedulingProfiles: [{name: a}, {name: b}]").ok());
  EXPECT_EQ(l.generation->profiles()[0].picker, l.generation->profiles()[1].picker);
  EXPECT_EQ(l.Object("max-score-picker"), nullptr);
}

TEST(Config, ANamedProducerServesByDefaultWhenItIsTheOnlyOneOfItsType) {
  Loader l;
  ASSERT_TRUE(l.LoadRest("plugins: [{type: prefix-cache-scorer}, {type: "
                         "approx-prefix-cache-producer, name: mine}]").ok());
  EXPECT_EQ(l.Object("approx-prefix-cache-producer"), nullptr);
  EXPECT_EQ(l.generation->producers().size(), 2u);
}

// ---- reload
// ---------------------------------------------------------------------------------------

TEST(Reload, KeepsPluginsThatDidNotChange) {
  Loader l;
  const std::string_view first =
      "plugins: [{type: queue-scorer}, {type: inflight-load-producer}, {type: "
      "prefix-cache-scorer}]";
  ASSERT_TRUE(l.LoadRest(first).ok());
  const auto before = l.generation;
  const int constructed = TestKnobs().constructed;
  ASSERT_TRUE(l.LoadRest(first).ok());
  EXPECT_EQ(TestKnobs().constructed, constructed) << "everything was taken over";
  EXPECT_EQ(l.generation->number(), 2u);
  for (size_t i = 0; i < before->plugins().size(); ++i) {
    EXPECT_EQ(l.generation->plugins()[i].object, before->plugins()[i].object);
  }
  EXPECT_EQ(l.generation->slot_count(), before->slot_count());
}

TEST(Reload, MakesAnewWhatChangedAndWhatPointsToIt) {
  Loader l;
  const auto text = [](std::string_view scorer, std::string_view path) {
    return base::Concat("plugins: [{type: referrer, parameters: {other: s}}, {type: ", scorer,
                        ", name: s}, {type: file-discovery, parameters: {path: ", path, "}}]");
  };
  ASSERT_TRUE(l.LoadRest(text("queue-scorer", "a")).ok());
  const auto* referrer = l.Object("referrer");
  const auto* discovery = l.Object("file-discovery");
  ASSERT_TRUE(l.LoadRest(text("queue-scorer", "b")).ok());
  EXPECT_EQ(l.Object("referrer"), referrer);
  EXPECT_NE(l.Object("file-discovery"), discovery);
  const auto held = l.generation;  // keeps the addresses from being used again
  ASSERT_TRUE(l.LoadRest(text("kv-cache-utilization-scorer", "b")).ok());
  EXPECT_NE(l.Object("referrer"), referrer) << "it pointed to the old scorer";
}

TEST(Reload, AConsumerWhoseProducerChangedNameIsMadeAnew) {
  Loader l;
  ASSERT_TRUE(l.LoadRest("plugins: [{type: prefix-cache-scorer}, {type: refuser}]").ok());
  const auto held = l.generation;
  const auto* scorer = l.Object("prefix-cache-scorer");
  ASSERT_TRUE(l.LoadRest("plugins: [{type: prefix-cache-scorer}, {type: refuser}, {type: "
                         "approx-prefix-cache-producer, name: mine}]").ok());
  EXPECT_NE(l.Object("prefix-cache-scorer"), scorer);
  EXPECT_EQ(l.Object("refuser"), held->plugins()[1].object.get());
}

TEST(Reload, ABadDocumentChangesNothing) {
  Loader l;
  ASSERT_TRUE(l.LoadRest("plugins: [{type: inflight-load-producer}]").ok());
  for (int i = 0; i < 30; ++i) {  // more often than there are counters
    EXPECT_FALSE(
        l.LoadRest("plugins: [{type: inflight-load-producer, name: other}, {type: x}]").ok());
  }
  EXPECT_EQ(l.generation->number(), 1u);
  EXPECT_TRUE(l.LoadRest("plugins: [{type: inflight-load-producer, name: other}]").ok());
}

TEST(Reload, CountersGoBackWithThePlugin) {
  Loader l;
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(l.LoadRest(base::Concat("plugins: [{type: inflight-load-producer, name: n",
                                        std::to_string(i), "}]")).ok()) << i;
  }
  std::string many = "plugins: [";
  for (int i = 0; i < 9; ++i) {
    many += base::Concat("{type: inflight-load-producer, name: n", std::to_string(i), "},");
  }
  EXPECT_THAT(std::string(l.LoadRest(many + "]").message()),
              HasSubstr("all 16 in-flight counters are in use"));
}

TEST(Reload, SlotsStayBounded) {
  Loader l;
  for (size_t i = 0; i < 2 * kSlotsMax; ++i) {
    ASSERT_TRUE(l.LoadRest(base::Concat("plugins: [{type: approx-prefix-cache-producer, name: n",
                                        std::to_string(i), "}, {type: prefix-cache-scorer}]"))
                    .ok());
    ASSERT_LE(l.generation->slot_count(), kSlotsMax + 8);
  }
}

// ---- schema and the originals' samples
// --------------------------------------------------------------

TEST(Schema, IsADocumentWithEveryBuiltType) {
  const std::string schema = ConfigSchema(TestCatalogue());
  config::ErrorList errors;
  const auto document = config::Document::Parse(schema, "schema.json", &errors);
  ASSERT_TRUE(document) << errors.ToString();
  const config::Node plugin = document->root().Find("properties").Find("plugins").Find("items");
  const config::Node types = plugin.Find("properties").Find("type").Find("enum");
  size_t built = 0;
  for (const auto& t : TestCatalogue().types()) built += static_cast<bool>(t.factory);
  EXPECT_EQ(types.size(), built);
  EXPECT_EQ(plugin.Find("allOf").size(), built);
  EXPECT_TRUE(document->root().Find("properties").Find("schedulingProfiles"));
}

// The sample configs that the original ships: each is read, and what it waits for is named.
TEST(Samples, AreReadOrSayWhatTheyWaitFor) {
  const char* directory = std::getenv("LLMD_REFERENCE_DIR");
  if (!directory) GTEST_SKIP() << "LLMD_REFERENCE_DIR names no checkout of the original";
  size_t files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(directory) / "deploy/config")) {
    if (entry.path().extension() != ".yaml") continue;
    ++files;
    fleet::Fleet fleet(1);
    const auto result =
        Compile(ReadFile(entry.path()), entry.path().filename().string(), TestCatalogue(), fleet,
                {.allow_experimental_plugins = true, .endpoints_given = true}, nullptr);
    if (result) continue;
    for (std::string_view line : base::Split(result.error().message(), '\n')) {
      const bool comes_later = line.find(kNotBuiltYet) != std::string_view::npos;
      // The test catalogue has few types, and its plugins take few parameters.
      const bool of_a_plugin = line.find("unknown plugin type") != std::string_view::npos ||
                               line.find(".parameters") != std::string_view::npos;
      EXPECT_TRUE(comes_later || of_a_plugin) << line;
    }
  }
  EXPECT_GE(files, 15u);
}

}  // namespace
}  // namespace llmd::director
