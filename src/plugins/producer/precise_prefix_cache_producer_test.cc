#include "plugins/producer/precise_prefix_cache_producer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "plugins/producer/approx_prefix_cache_producer.h"
#include "plugins/producer/token_producer.h"
#include "plugins/scorer/no_hit_lru_scorer.h"
#include "plugins/scorer/prefix_cache_scorer.h"
#include "plugins/testing.h"
#include "prefix/kv_events.h"

namespace llmd::plugins {
namespace {

using plugin::MatchSource;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::At;
using testing::Scene;

constexpr std::string_view kName = "precise-prefix-cache-producer";

std::vector<uint32_t> Ids(size_t count, uint32_t first = 1) {
  std::vector<uint32_t> ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

// Three engines "10.0.0.1:8000" to 8002, requests whose prompts are token ids, and events.
class Precise {
 public:
  explicit Precise(std::string_view yaml = "") : scene(3) {
    tokens = scene.Make(TokenProducerType());
    approximate = scene.Make(ApproxPrefixCacheProducerType());
    producer = scene.Make(PrecisePrefixCacheProducerType(), yaml);
    EXPECT_NE(producer, nullptr) << scene.context().errors().ToString();
    if (!producer) return;
    consumer = &dynamic_cast<plugin::EventConsumer&>(*producer);
    publishers = consumer->OnMembers(*scene.fleet().members(), At());
  }

  // The engine publishes blocks of 16 of `ids`, whose hashes are their numbers from `first_hash`.
  void Publish(size_t engine, const std::vector<uint32_t>& ids, uint64_t first_hash = 100,
               std::string_view medium = "GPU") {
    std::vector<prefix::KvWireHash> hashes;
    for (size_t i = 0; i < ids.size() / 16; ++i) hashes.push_back({.value = first_hash + i});
    prefix::KvEventWriter writer(prefix::KvEventForm::kMap);
    writer.Stored({.hashes = hashes,
                   .tokens = std::span(ids).first(hashes.size() * 16),
                   .block_size = 16,
                   .medium = medium});
    Send(engine, writer.Finish(1.0, std::nullopt));
  }
  void Clear(size_t engine) {
    prefix::KvEventWriter writer(prefix::KvEventForm::kMap);
    writer.Cleared();
    Send(engine, writer.Finish(1.0, std::nullopt));
  }
  void Send(size_t engine, const std::string& payload) {
    std::string sequence;
    prefix::AppendKvSequence(sequences[engine]++, &sequence);
    const std::string topic = base::Concat("kv@10.0.0.1:", std::to_string(8000 + engine), "@m");
    const auto id = publishers.empty() ? std::nullopt
                                       : std::optional<uint32_t>(publishers[engine].id);
    consumer->OnEvent(id, {topic, sequence, payload}, At());
    Tick();
  }
  // Refreshes confidences and the report.
  void Tick() {
    now += KvIngest::kReportInterval;
    while (consumer->OnTick(At(now))) {
    }
  }

  const plugin::PrefixCacheMatchInfo& Ask(const std::vector<uint32_t>& ids) {
    scene.NewRequest().target_model = "m";
    text.clear();
    for (const uint32_t id : ids) text += std::to_string(id) + ",";
    pieces = {{.bytes = text,
               .token_count = static_cast<uint32_t>(ids.size()),
               .kind = protocol::PieceKind::kTokenIds}};
    scene.body().pieces = pieces;
    scene.body().prompt_count = 1;
    scene.body().token_count = ids.size();
    return Match();
  }
  const plugin::PrefixCacheMatchInfo& AskText(std::string_view prompt) {
    scene.NewRequest().target_model = "m";
    scene.SetPrompt(prompt);
    return Match();
  }
  const plugin::PrefixCacheMatchInfo& Match() {
    for (auto* p : {&tokens, &approximate, &producer}) EXPECT_TRUE(scene.Produce(**p).ok());
    const auto* match = scene.request().attributes.Get(
        scene.context().SlotOf<plugin::PrefixCacheMatchInfo>(kName));
    EXPECT_NE(match, nullptr);
    return *match;
  }
  // The request goes to `engine`, which finds that many of its prompt's tokens.
  void Serve(size_t engine, int64_t prompt_tokens, int64_t cached_tokens) {
    plugin::BookingList bookings;
    const auto n = static_cast<plugin::EndpointNumber>(engine);
    EXPECT_TRUE(scene.Route(*producer, n, &bookings).ok());
    EXPECT_TRUE(scene.Route(*approximate, n, &bookings).ok());
    const protocol::Usage usage{.present = true,
                                .has_cached = true,
                                .prompt_tokens = prompt_tokens,
                                .cached_tokens = cached_tokens};
    dynamic_cast<plugin::ResponseProcessor&>(*producer)
        .OnResponseEnd(scene.request(), {.status = 200, .body_shown = true, .usage = usage},
                       nullptr);
  }

  Scene scene;
  std::unique_ptr<plugin::Plugin> tokens, approximate, producer;
  plugin::EventConsumer* consumer = nullptr;
  std::vector<plugin::EventPublisher> publishers;
  uint64_t sequences[3] = {};
  base::Duration now{};
  std::string text;
  std::vector<protocol::Piece> pieces;
};

TEST(PrecisePrefixCacheProducer, MatchesWhatTheEnginesSayTheyHold) {
  Precise x;
  for (size_t i = 0; i < 3; ++i) x.Clear(i);  // from here on all is known of them
  x.Publish(1, Ids(64));
  x.Publish(2, Ids(32));
  const auto& match = x.Ask(Ids(70));
  EXPECT_EQ(match.total_blocks, 4u);
  EXPECT_EQ(match.block_tokens, 16u);
  EXPECT_EQ(match.source, MatchSource::kPrecise);
  EXPECT_THAT(match.matched_blocks, ElementsAre(0, 4, 2));
  EXPECT_THAT(match.weighted_blocks, ElementsAre(0, 4, 2));
  EXPECT_THAT(x.Ask(Ids(70, 2)).matched_blocks, ElementsAre(0, 0, 0));

  x.Clear(1);
  EXPECT_THAT(x.Ask(Ids(70)).matched_blocks, ElementsAre(0, 0, 2));
}

TEST(PrecisePrefixCacheProducer, TiersCountByTheirWeight) {
  Precise x("{indexerConfig: {kvCacheBackendConfigs: [{name: gpu, weight: 1}, {name: CPU, weight: "
            "0.5}]}}");
  for (size_t i = 0; i < 3; ++i) x.Clear(i);
  x.Publish(0, Ids(64), 100, "CPU");
  x.Publish(1, Ids(64), 100, "GPU");
  const auto& match = x.Ask(Ids(64));
  EXPECT_THAT(match.matched_blocks, ElementsAre(4, 4, 0));
  EXPECT_THAT(match.weighted_blocks, ElementsAre(2, 4, 0));
  auto scorer = x.scene.Make(PrefixCacheScorerType(),
                             base::Concat("{prefixMatchInfoProducerName: ", kName, "}"));
  EXPECT_THAT(x.scene.Score(*scorer), ElementsAre(0.5, 1, 0));
}

TEST(PrecisePrefixCacheProducer, ASingleTierCanBeAskedFor) {
  Precise x;
  x.Ask(Ids(64));
  x.Serve(2, 64, 0);  // nothing is heard of it, but that was sent there
  for (size_t i = 0; i < 2; ++i) x.Clear(i);
  x.Publish(0, Ids(64), 100, "GPU");
  x.Publish(0, Ids(32), 100, "CPU");
  x.Publish(1, Ids(48), 100, "CPU");
  const auto& match = x.Ask(Ids(64));
  EXPECT_THAT(match.matched_blocks, ElementsAre(4, 3, 4));
  ASSERT_NE(match.tiers, nullptr);
  EXPECT_THAT(match.tiers->BlocksIn(x.scene.request(), "cpu"), ElementsAre(2, 3, 4));
  EXPECT_THAT(match.tiers->BlocksIn(x.scene.request(), "gpu"), ElementsAre(4, 0, 4));
  EXPECT_EQ(x.AskText("no ids").tiers, nullptr);
}

TEST(PrecisePrefixCacheProducer, FallsBackWhereNothingWasHeard) {
  Precise x;
  x.Ask(Ids(160));
  x.Serve(0, 160, 0);  // what was sent where is known to the approximate producer
  x.Clear(1);
  x.Publish(1, Ids(32));
  const auto& match = x.Ask(Ids(160));
  EXPECT_EQ(match.source, MatchSource::kMixed);
  EXPECT_EQ(match.total_blocks, 10u);
  EXPECT_EQ(match.matched_blocks[0], 10u) << "by what was sent there";
  EXPECT_EQ(match.matched_blocks[1], 2u) << "by what it says";
  EXPECT_EQ(match.matched_blocks[2], 0u);
}

TEST(PrecisePrefixCacheProducer, WithoutIdsItIsTheApproximateMatch) {
  Precise x;
  for (size_t i = 0; i < 3; ++i) x.Clear(i);
  const std::string prompt(1024, 'a');
  EXPECT_EQ(x.AskText(prompt).source, MatchSource::kApproximate);
  x.Serve(2, 256, 0);
  const auto& match = x.AskText(prompt);
  EXPECT_EQ(match.total_blocks, 4u);
  EXPECT_THAT(match.matched_blocks, ElementsAre(0, 0, 4));
}

TEST(PrecisePrefixCacheProducer, PersistentErrorTakesTheTrustAwayAndIsExplained) {
  Precise x;
  for (size_t i = 0; i < 3; ++i) x.Clear(i);
  x.Publish(1, Ids(160));
  for (int i = 0; i < 100; ++i) {
    x.Ask(Ids(170));
    x.Serve(1, 170, 0);  // it never finds what it says
  }
  EXPECT_EQ(x.Ask(Ids(170)).source, MatchSource::kPrecise) << "until it is counted";
  x.Tick();
  EXPECT_EQ(x.Ask(Ids(170)).source, MatchSource::kMixed);
  EXPECT_THAT(x.producer->DumpState(), HasSubstr("it finds less than its events say"));
  for (int i = 0; i < 1000; ++i) {
    x.Ask(Ids(170));
    x.Serve(1, 170, 160);
    if (i % 100 == 99) x.Tick();
  }
  EXPECT_EQ(x.Ask(Ids(170)).source, MatchSource::kPrecise);
  EXPECT_THAT(x.producer->DumpState(), Not(HasSubstr("explanation")));
}

TEST(PrecisePrefixCacheProducer, SpeculationCountsWhatWasJustSent) {
  Precise x("{speculativeIndexing: true, speculativeTTL: 1s}");
  for (size_t i = 0; i < 3; ++i) x.Clear(i);
  x.Ask(Ids(128));
  x.Serve(2, 128, 0);
  EXPECT_THAT(x.Ask(Ids(128)).matched_blocks, ElementsAre(0, 0, 8));
  x.scene.NewRequest();
  const base::TimePoint later = At(std::chrono::seconds(2));
  x.Ask(Ids(128));
  x.scene.request().now = later;
  EXPECT_THAT(x.Match().matched_blocks, ElementsAre(0, 0, 0));
}

TEST(PrecisePrefixCacheProducer, EnginesMayConnectAndNameThemselves) {
  Precise x("{kvEventsConfig: {zmqEndpoint: 'tcp://*:5557'}}");
  EXPECT_THAT(x.publishers, IsEmpty());
  EXPECT_EQ(x.consumer->subscription().bind, "tcp://*:5557");
  for (size_t i = 0; i < 3; ++i) x.Clear(i);
  x.Publish(0, Ids(16));
  EXPECT_THAT(x.Ask(Ids(16)).matched_blocks, ElementsAre(1, 0, 0));
  // Who leaves the fleet is forgotten, and does not come back with a number of its own.
  x.scene.SetMembers({{.name = "s1", .address = "10.0.0.1", .port = 8001}});
  x.consumer->OnMembers(*x.scene.fleet().members(), At());
  EXPECT_THAT(x.consumer->DumpPublishers(), Not(HasSubstr("10.0.0.1:8000")));
}

TEST(PrecisePrefixCacheProducer, SaysWhomToConnectTo) {
  Precise x("{kvEventsConfig: {topicFilter: '', podDiscoveryConfig: {socketPort: 6000, "
            "replaySocketPort: 7000}}}");
  ASSERT_EQ(x.publishers.size(), 3u);
  EXPECT_EQ(x.publishers[0].events, "tcp://10.0.0.1:6000");
  EXPECT_EQ(x.publishers[2].events, "tcp://10.0.0.1:6002") << "its place at that address";
  EXPECT_EQ(x.publishers[2].replay, "tcp://10.0.0.1:7002");
  EXPECT_THAT(x.consumer->subscription().topics, IsEmpty());
  // Who stays keeps its place, and who comes takes the one that is free.
  x.scene.SetMembers({{.name = "s1", .address = "10.0.0.1", .port = 8001},
                      {.name = "s2", .address = "10.0.0.1", .port = 8002},
                      {.name = "s9", .address = "10.0.0.1", .port = 9000}});
  std::map<std::string, std::string> events;
  for (const auto& p : x.consumer->OnMembers(*x.scene.fleet().members(), At())) {
    events[p.label] = p.events;
  }
  EXPECT_EQ(events["10.0.0.1:8001"], "tcp://10.0.0.1:6001");
  EXPECT_EQ(events["10.0.0.1:8002"], "tcp://10.0.0.1:6002");
  EXPECT_EQ(events["10.0.0.1:9000"], "tcp://10.0.0.1:6000");
  x.scene.SetMembers({{.name = "a",
                       .address = "fd00::1",
                       .port = 1,
                       .labels = {{std::string(kKvEventsPortLabel), "9"},
                                  {std::string(kKvReplayPortLabel), "none"}}}});
  const auto publishers = x.consumer->OnMembers(*x.scene.fleet().members(), At());
  ASSERT_EQ(publishers.size(), 1u);
  EXPECT_EQ(publishers[0].events, "tcp://[fd00::1]:9");
  EXPECT_EQ(publishers[0].replay, "");
}

TEST(PrecisePrefixCacheProducer, ReadsUpstreamsParametersAndRefusesWhatItCannotDo) {
  for (const char* yaml :
       {"{tokenProcessorConfig: {blockSize: 64, hashSeed: '42', hashAlgorithm: xxh64}}",
        "{indexerConfig: {kvBlockIndexConfig: {enableMetrics: true, metricsLoggingInterval: "
        "60000000000, inMemoryConfig: {size: 1000, podCacheSize: 10}}}}",
        "{indexerConfig: {kvBlockIndexConfig: {costAwareMemoryConfig: {size: 32MiB}}}}",
        "{indexerConfig: {kvBlockIndexConfig: {redisConfig: {address: 'u:p@r:6380'}}}}",
        "{indexerConfig: {kvBlockIndexConfig: {redisConfig: {}}}}",
        "{indexerConfig: {kvBlockIndexConfig: {valkeyConfig: {address: 'valkeys://r/1', "
        "enableRDMA: true}}}}",
        "{kvEventsConfig: {concurrency: 4, engineType: sglang, discoverPods: false, "
        "podDiscoveryConfig: {podLabelSelector: a=b, podNamespace: ns}}}"}) {
    Precise x(yaml);
  }
  for (const char* yaml :
       {"{tokenProcessorConfig: {hashAlgorithm: xxhash}}",
        "{tokenProcessorConfig: {blockSizeTokens: 0}}",
        "{indexerConfig: {tokenizersPoolConfig: {}}}",
        "{indexerConfig: {kvBlockIndexConfig: {redisConfig: {address: 'http://r'}}}}",
        "{indexerConfig: {kvBlockIndexConfig: {redisConfig: {address: 'redis://r/x'}}}}",
        "{indexerConfig: {kvBlockIndexConfig: {redisConfig: {addr: r}}}}",
        "{indexerConfig: {kvBlockIndexConfig: {redisConfig: {timeout: 0s}}}}",
        "{tokenProcessorConfig: {hashAlgorithm: own}, indexerConfig: {kvBlockIndexConfig: "
        "{redisConfig: {address: r}}}}",
        "{indexerConfig: {kvCacheBackendConfigs: [{name: gpu, weight: 2}]}}",
        "{kvEventsConfig: {engineType: trt}}", "{speculativeTTL: soon}", "{other: 1}"}) {
    Scene scene(1);
    const auto tokens = scene.Make(TokenProducerType());
    const auto approximate = scene.Make(ApproxPrefixCacheProducerType());
    EXPECT_EQ(scene.Make(PrecisePrefixCacheProducerType(), yaml), nullptr) << yaml;
  }
}

TEST(PrecisePrefixCacheProducer, TheKindOfIndexChoosesTheKeys) {
  const auto algorithm = [](std::string_view yaml) {
    Precise x(yaml);
    return std::string(dynamic_cast<plugin::PrefixQuery&>(*x.producer).key_algorithm());
  };
  EXPECT_EQ(algorithm(""), "own");
  EXPECT_EQ(algorithm("{indexerConfig: {kvBlockIndexConfig: {redisConfig: {}}}}"), "cbor-fnv");
  EXPECT_EQ(algorithm("{tokenProcessorConfig: {hashAlgorithm: xxh64}, indexerConfig: "
                      "{kvBlockIndexConfig: {redisConfig: {}}}}"),
            "xxh64");
  EXPECT_EQ(algorithm("{indexerConfig: {kvBlockIndexConfig: {redisConfig: {}, "
                      "costAwareMemoryConfig: {}}}}"),
            "own")
      << "the first one counts, as upstream";
}

// A picker that shares its index; the test is the server.
class Shared : public Precise {
 public:
  Shared() : Precise("{indexerConfig: {kvBlockIndexConfig: {redisConfig: {timeout: 30ms}}}}") {}

  SharedLookup& asked() { return dynamic_cast<SharedLookup&>(*scene.request().asked); }
  // The first `blocks[i]` blocks are held by endpoint i; the producer is woken.
  base::Status Answer(const std::vector<uint32_t>& blocks) {
    wire::RespProgram& program = asked().program();
    std::string commands;
    while (const size_t count = program.NextRound(&commands)) {
      for (size_t block = 0; block < count; ++block) {
        std::vector<std::string> fields;
        for (size_t i = 0; i < blocks.size(); ++i) {
          if (block >= blocks[i]) continue;
          const std::string pod = base::Concat("10.0.0.1:", std::to_string(8000 + i));
          fields.push_back(prefix::KvRedisField({.pod = pod, .tier = i == 2 ? "cpu" : "gpu"}));
        }
        std::vector<wire::RespValue> items;
        for (const std::string& field : fields) {
          items.push_back({.type = wire::RespValue::Type::kText, .text = field});
        }
        program.OnReply(block, {.type = wire::RespValue::Type::kArray, .items = items});
      }
    }
    asked().End(base::OkStatus());
    return Wake();
  }
  base::Status Wake() {
    scene.request().wait_until = {};
    return scene.Produce(*producer);
  }
  const plugin::PrefixCacheMatchInfo& Found() {
    return *scene.request().attributes.Get(
        scene.context().SlotOf<plugin::PrefixCacheMatchInfo>(kName));
  }
};

TEST(PrecisePrefixCacheProducer, TheSharedIndexSaysWhatEnginesHoldThatItDoesNotHear) {
  Shared x;
  for (size_t i = 0; i < 2; ++i) x.Clear(i);
  x.Publish(0, Ids(32));
  x.Publish(1, Ids(64));
  EXPECT_THAT(x.Ask(Ids(64)).matched_blocks, ElementsAre(2, 4, 0)) << "what counts meanwhile";
  ASSERT_NE(x.scene.request().asked, nullptr);
  EXPECT_GT(x.scene.request().wait_until, x.scene.request().now + x.asked().timeout);
  EXPECT_TRUE(x.Wake().ok());
  EXPECT_NE(x.scene.request().asked, nullptr) << "woken by something else: it waits on";

  EXPECT_TRUE(x.Answer({3, 1, 4}).ok());
  EXPECT_EQ(x.scene.request().asked, nullptr);
  EXPECT_EQ(x.scene.request().wait_until, base::TimePoint());
  EXPECT_EQ(x.Found().source, MatchSource::kShared);
  EXPECT_THAT(x.Found().matched_blocks, ElementsAre(2, 4, 4)) << "it knows of 0 and 1 itself";
  EXPECT_FLOAT_EQ(x.Found().weighted_blocks[2], 4 * 0.8f);

  x.Clear(2);
  EXPECT_THAT(x.Ask(Ids(64)).matched_blocks, ElementsAre(2, 4, 0));
  EXPECT_EQ(x.scene.request().asked, nullptr) << "it hears all: nobody is asked";
}

TEST(PrecisePrefixCacheProducer, WithoutAnAnswerOfUseTheSharedIndexChangesNothing) {
  Shared x;
  x.Ask(Ids(64));
  x.Serve(2, 64, 0);
  for (size_t i = 0; i < 2; ++i) x.Clear(i);
  x.Publish(0, Ids(32));
  x.Ask(Ids(64));
  EXPECT_TRUE(x.Answer({0, 0, 0}).ok());
  EXPECT_EQ(x.Found().source, MatchSource::kMixed) << "nobody may be writing there";
  EXPECT_THAT(x.Found().matched_blocks, ElementsAre(2, 0, 4));

  x.Ask(Ids(64));
  x.asked().End(base::DeadlineExceeded("slow"));
  EXPECT_FALSE(x.Wake().ok()) << "the director counts it";
  EXPECT_EQ(x.scene.request().asked, nullptr);
  EXPECT_THAT(x.Found().matched_blocks, ElementsAre(2, 0, 4));

  EXPECT_THAT(x.Ask(Ids(8)).matched_blocks, ElementsAre(0, 0, 0));
  EXPECT_EQ(x.scene.request().asked, nullptr) << "there is nothing to ask for";
}

// What is written, in the order of the commands' names and keys.
TEST(PrecisePrefixCacheProducer, WritesWhatItHearsAndTellsItAgainToAServerThatForgot) {
  Shared x;
  auto& store = dynamic_cast<plugin::EventStore&>(*x.producer);
  EXPECT_EQ(store.store_address(), "redis://127.0.0.1:6379");
  const auto write = [&](std::string_view run_id) {
    std::string all;
    while (wire::RespProgram* program = store.NextStore()) {
      for (std::string round;;) {
        round.clear();
        const size_t count = program->NextRound(&round);
        if (count == 0) break;
        for (size_t i = 0; i < count; ++i) {
          const bool info = i == 0 && round.starts_with("*2\r\n$4\r\nINFO");
          program->OnReply(i, {.type = wire::RespValue::Type::kText, .text = info ? run_id : ""});
        }
        all += round;
      }
      store.OnStoreEnd(base::OkStatus());
    }
    size_t stores = 0;
    for (size_t at = all.find("HSET"); at != all.npos; at = all.find("HSET", at + 1)) ++stores;
    return stores;
  };
  store.OnStoreConnected();
  EXPECT_EQ(write("run_id:a"), 0u);
  x.Publish(0, Ids(64));
  x.Publish(1, Ids(32), 500);
  EXPECT_EQ(write(""), 6u);
  store.OnStoreConnected();
  EXPECT_EQ(write("run_id:a"), 0u) << "only the connection broke";
  store.OnStoreConnected();
  EXPECT_EQ(write("run_id:b"), 6u);
  EXPECT_EQ(write(""), 0u);
}

TEST(NoHitLruScorer, ColdRequestsGoRound) {
  Precise x;
  for (size_t i = 0; i < 3; ++i) x.Clear(i);
  auto scorer = x.scene.Make(
      NoHitLruScorerType(), base::Concat("{lruSize: 2, prefixMatchInfoProducerName: ", kName, "}"));
  plugin::BookingList bookings;
  x.Ask(Ids(32, 1000));
  EXPECT_THAT(x.scene.Score(*scorer), ElementsAre(1, 0.5, 0));
  EXPECT_TRUE(x.scene.Route(*scorer, 0, &bookings).ok());
  x.Ask(Ids(32, 2000));
  EXPECT_THAT(x.scene.Score(*scorer), ElementsAre(0, 1, 0.5));
  EXPECT_TRUE(x.scene.Route(*scorer, 2, &bookings).ok());
  x.Ask(Ids(32, 3000));
  EXPECT_THAT(x.scene.Score(*scorer), ElementsAre(0.5, 1, 0));
  EXPECT_THAT(scorer->DumpState(), HasSubstr("[\"default/s0\",\"default/s2\"]"));
  x.Publish(1, Ids(32));
  x.Ask(Ids(32));
  EXPECT_THAT(x.scene.Score(*scorer), ElementsAre(0.5, 0.5, 0.5)) << "somebody has it";
}

}  // namespace
}  // namespace llmd::plugins
