// Simulated servers and a subscriber: what it hears is what the engines hold.
#include "sim/kv_events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/random.h"
#include "runtime/clock.h"
#include "sim/server.h"
#include "sim/sim_testing.h"

namespace llmd::sim {
namespace {

using engine::CacheTier;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// Everything one publisher said.
struct Heard {
  std::vector<uint64_t> sequences;
  std::vector<std::string> payloads;
  std::vector<std::string> events;  // "stored GPU 3", "removed CPU 1", "cleared"
  std::vector<uint32_t> tokens;     // of all stored blocks
  std::set<uint32_t> ranks;
  std::map<std::string, std::multiset<prefix::EngineKey>> held;  // by medium
  std::string text;                                              // of the last extra
  bool whole = false;  // heard from the beginning: nothing is removed that was not stored

  void Apply(uint64_t sequence, std::string_view payload) {
    sequences.push_back(sequence);
    payloads.emplace_back(payload);
    prefix::KvEventReader reader(prefix::KvDialect::kVllm);
    ASSERT_TRUE(reader.Begin(payload));
    ranks.insert(reader.rank().value_or(99));
    prefix::KvEventType type;
    while ((type = reader.Next()) != prefix::KvEventType::kEnd) Apply(type, reader.event());
    EXPECT_EQ(reader.malformed(), 0u);
  }

 private:
  void Apply(prefix::KvEventType type, const prefix::KvEvent& event) {
    const std::string medium(event.medium);
    const std::string what = " " + medium + " " + std::to_string(event.hashes.size());
    auto& here = held[medium];
    if (type == prefix::KvEventType::kCleared) {
      events.push_back("cleared");
      held["GPU"].clear();
    } else if (type == prefix::KvEventType::kStored) {
      events.push_back("stored" + what);
      here.insert(event.hashes.begin(), event.hashes.end());
      tokens.insert(tokens.end(), event.tokens.begin(), event.tokens.end());
      if (!event.extras.empty()) text = event.extras[0].text;
    } else {
      events.push_back("removed" + what);
      for (const auto key : event.hashes) {
        const auto found = here.find(key);
        if (found != here.end()) {
          here.erase(found);
        } else {
          EXPECT_FALSE(whole);
        }
      }
    }
  }
};

// A subscriber on a loop of its own, turned by the test.
class Listener final : public net::ZmqSink, public net::ZmqReplaySink {
 public:
  explicit Listener(const net::ZmqSocketOptions& options) {
    auto made = net::ZmqSubscriber::Create(context_, options, {}, *this);
    EXPECT_TRUE(made) << made.error().ToString();
    subscriber_ = *std::move(made);
  }
  static net::ZmqSocketOptions To(std::string_view address) {
    net::ZmqSocketOptions options;
    options.connect = {std::string(address)};
    options.reconnect_min = std::chrono::milliseconds(5);
    options.reconnect_max = std::chrono::milliseconds(20);
    return options;
  }

  bool Until(const std::function<bool()>& done) {
    const base::TimePoint limit = runtime::Now() + std::chrono::seconds(10);
    while (!done()) {
      if (runtime::Now() > limit) return false;
      loop_.Turn(std::chrono::milliseconds(2));
    }
    return true;
  }
  bool UntilConnected(int times = 1) {
    return Until([&] { return connected_ >= times; });
  }
  // Until the last message of that topic is `sequence`.
  bool UntilHeard(const std::string& topic, uint64_t sequence) {
    return Until([&] {
      const auto& sequences = heard[topic].sequences;
      return !sequences.empty() && sequences.back() == sequence;
    });
  }
  void Replay(std::string_view address, uint64_t from) {
    auto client = *net::ZmqReplayClient::Create(context_, {.address = std::string(address)}, *this);
    replay_ended_ = false;
    replayed.whole = from == 0;
    client->Start(from);
    EXPECT_TRUE(Until([&] { return replay_ended_; }));
  }

  std::map<std::string, Heard> heard;  // by topic
  Heard replayed;
  const std::string& bound() const { return subscriber_->bound()[0]; }

 private:
  void OnZmqMessage(std::span<const std::string_view> frames) override {
    ASSERT_EQ(frames.size(), 3u);
    heard[std::string(frames[0])].Apply(prefix::ParseKvSequence(frames[1])->number, frames[2]);
  }
  void OnZmqConnected(bool) override { ++connected_; }
  void OnReplayMessage(std::string_view, uint64_t sequence, std::string_view payload) override {
    replayed.Apply(sequence, payload);
  }
  void OnReplayEnd(net::ZmqReplayEnd end, uint64_t) override {
    EXPECT_EQ(end, net::ZmqReplayEnd::kComplete);
    replay_ended_ = true;
  }

  runtime::EventLoop loop_;
  net::ZmqContext context_{loop_};
  int connected_ = 0;
  bool replay_ended_ = false;
  std::unique_ptr<net::ZmqSubscriber> subscriber_;
};

// What a server holds, asked on its own thread.
struct Held {
  std::multiset<uint64_t> gpu, cpu;
  uint64_t messages = 0;
  engine::EngineStats stats;
};
Held Ask(SimServer& server) {
  std::promise<Held> promise;
  server.loop().Post([&] {
    Held held;
    for (const uint64_t h : server.engine().CachedHashes(CacheTier::kGpu)) held.gpu.insert(h);
    for (const uint64_t h : server.engine().CachedHashes(CacheTier::kCpu)) held.cpu.insert(h);
    held.messages = server.kv_events()->next_sequence();
    held.stats = server.engine().stats();
    promise.set_value(std::move(held));
  });
  return promise.get_future().get();
}

std::unique_ptr<SimServers> StartServers(const std::function<void(SimOptions*)>& change) {
  SimOptions options;
  options.host = "127.0.0.1";
  options.port = 0;
  options.model = "m";
  options.hash_seed = "0";
  options.model_tokens_max = 400;
  options.kv_blocks = 60;
  options.block_tokens = 8;
  options.kv_events.enabled = true;
  options.kv_events.endpoint = "tcp://127.0.0.1:0";
  options.kv_events.mode = ZmqMode::kBind;
  options.kv_events.replay_endpoint = "tcp://127.0.0.1:0";
  change(&options);
  auto servers = Start(options);
  if (!servers) {
    ADD_FAILURE() << servers.error().ToString();
    std::abort();
  }
  return *std::move(servers);
}

json Complete(const SimServers& servers, const json& body, size_t server = 0) {
  const TestReply reply =
      Fetch(servers.ports()[server], "POST", "/v1/completions", body.dump());
  EXPECT_EQ(reply.status, 200) << reply.raw;
  return json::parse(reply.body, nullptr, false);
}

std::vector<uint32_t> Ids(uint32_t n, uint32_t first) {
  std::vector<uint32_t> ids(n);
  for (uint32_t i = 0; i < n; ++i) ids[i] = first + i;
  return ids;
}

// Many requests with common prefixes, several at a time, more than memory holds.
void Load(const SimServers& servers, uint64_t seed, int rounds) {
  base::Random random(seed);
  for (int round = 0; round < rounds; ++round) {
    std::vector<std::unique_ptr<TestConnection>> connections;
    for (uint64_t i = 1 + random.Below(4); i > 0; --i) {
      std::vector<uint32_t> prompt =
          Ids(random.Below(200), static_cast<uint32_t>(1000 * random.Below(8)));
      prompt.push_back(static_cast<uint32_t>(random.Below(100)));
      json body = {{"prompt", prompt}, {"max_tokens", 1 + random.Below(60)}};
      if (random.Below(10) == 0) body["cache_salt"] = "tenant";
      connections.push_back(std::make_unique<TestConnection>(servers.ports()[0]));
      connections.back()->Send(TestRequest("POST", "/v1/completions", body.dump()));
    }
    for (auto& connection : connections) {
      EXPECT_EQ(ParseReply(connection->ReadAll()).status, 200);
    }
    if (random.Below(40) == 0) {
      Fetch(servers.ports()[0], "POST", "/reset_prefix_cache?reset_external=true");
    }
  }
}

TEST(KvEventsTest, Tutorial) {
  const auto servers = StartServers([](SimOptions*) {});
  Listener listener(Listener::To(servers->server(0).kv_events()->bound()));
  ASSERT_TRUE(listener.UntilConnected());
  const std::string topic = servers->server(0).kv_events()->topic();
  EXPECT_EQ(topic, "kv@127.0.0.1:" + std::to_string(servers->ports()[0]) + "@m");

  // A subscription takes a moment to reach the publisher; replay finds what came before it.
  Complete(*servers, {{"prompt", Ids(20, 1)}, {"max_tokens", 1}});
  const json again = Complete(*servers, {{"prompt", Ids(30, 1)}, {"max_tokens", 1}});
  EXPECT_EQ(again["usage"]["prompt_tokens_details"]["cached_tokens"], 16);
  listener.Replay(servers->server(0).kv_events()->replay_bound(), 0);
  EXPECT_THAT(listener.replayed.sequences, ElementsAre(0, 1));
  EXPECT_THAT(listener.replayed.events, ElementsAre("stored GPU 2", "stored GPU 1"));
  EXPECT_EQ(listener.replayed.tokens, Ids(24, 1));
}

TEST(KvEventsTest, ASubscriberKnowsExactlyWhatIsHeld) {
  struct Case {
    const char* name;
    bool maps, bytes, profile;
    uint32_t offload, batch;
    engine::WireHashKind hash;
  };
  for (const Case& c :
       {Case{"maps", true, false, false, 0, 0, engine::WireHashKind::kSha256Cbor},
        Case{"bytes", true, true, false, 90, 0, engine::WireHashKind::kSha256Cbor},
        Case{"arrays", false, false, true, 200, 3, engine::WireHashKind::kXxhashCbor},
        Case{"arrays, bytes", false, true, true, 500, 0, engine::WireHashKind::kXxhashCbor}}) {
    SCOPED_TRACE(c.name);
    const auto servers = StartServers([&](SimOptions* o) {
      if (c.profile) {
        o->profile = "qwen3-32b-h100-tp2";
        o->speedup = 1000;
      }
      o->offload_blocks = c.offload;
      o->hash = c.hash;
      o->kv_events.maps = c.maps;
      o->kv_events.byte_hashes = c.bytes;
      o->kv_events.batch_events_max = c.batch;
    });
    SimServer& server = servers->server(0);
    Listener listener(Listener::To(server.kv_events()->bound()));
    ASSERT_TRUE(listener.UntilConnected());
    // From here on messages are heard live; what was before comes by replay.
    Heard& live = listener.heard[server.kv_events()->topic()];
    for (uint64_t i = 0; live.sequences.empty(); ++i) {
      Complete(*servers, {{"prompt", Ids(16, static_cast<uint32_t>(10'000 + 100 * i))},
                          {"max_tokens", 1}});
      listener.Until([&, tries = 0]() mutable { return ++tries > 3 || !live.sequences.empty(); });
    }
    Load(*servers, 7, 150);
    const Held held = Ask(server);
    ASSERT_TRUE(listener.UntilHeard(server.kv_events()->topic(), held.messages - 1));
    for (size_t i = 1; i < live.sequences.size(); ++i) {
      ASSERT_EQ(live.sequences[i], live.sequences[i - 1] + 1);
    }
    listener.Replay(server.kv_events()->replay_bound(), 0);
    const Heard& all = listener.replayed;
    ASSERT_EQ(all.sequences.size(), held.messages);
    EXPECT_TRUE(std::equal(live.payloads.rbegin(), live.payloads.rend(), all.payloads.rbegin()));
    EXPECT_EQ(all.held.at("GPU"), held.gpu);
    EXPECT_FALSE(held.gpu.empty());
    if (c.offload > 0) {
      EXPECT_EQ(all.held.at("CPU"), held.cpu);
      EXPECT_FALSE(held.cpu.empty());
    }
    EXPECT_GT(held.stats.kv_evictions, 100u);
    EXPECT_GT(held.stats.prefix_hit_tokens, 1000u);
    EXPECT_EQ(c.offload > 0, held.stats.offload_hit_tokens > 0);
    EXPECT_THAT(all.events, testing::Contains("cleared"));
    EXPECT_EQ(all.text, "tenant");
  }
}

// A gap: the subscriber was away. What is still kept is replayed from where it was.
TEST(KvEventsTest, ReplayAfterAGap) {
  const auto servers = StartServers([](SimOptions* o) { o->kv_events.replay_steps_max = 5; });
  SimServer& server = servers->server(0);
  for (uint32_t i = 0; i < 8; ++i) {
    Complete(*servers, {{"prompt", Ids(9, 100 * i)}, {"max_tokens", 1}});
  }
  Listener listener(Listener::To(server.kv_events()->bound()));
  listener.Replay(server.kv_events()->replay_bound(), 6);
  EXPECT_THAT(listener.replayed.sequences, ElementsAre(6, 7));
  listener.replayed = {};
  listener.Replay(server.kv_events()->replay_bound(), 0);
  EXPECT_THAT(listener.replayed.sequences, ElementsAre(3, 4, 5, 6, 7));
  listener.replayed = {};
  listener.Replay(server.kv_events()->replay_bound(), 8);
  EXPECT_TRUE(listener.replayed.sequences.empty());
}

TEST(KvEventsTest, ARestartedServerBeginsAnewAndIsFoundAgain) {
  std::string endpoint, replay;
  uint16_t port = 0;
  std::unique_ptr<Listener> listener;
  for (int life = 0; life < 2; ++life) {
    std::unique_ptr<SimServers> servers;
    const auto start = [&] {
      SimOptions options;
      options.host = "127.0.0.1";
      options.port = port;
      options.model = "m";
      options.kv_events = {.enabled = true,
                           .endpoint = endpoint.empty() ? "tcp://127.0.0.1:0" : endpoint,
                           .mode = ZmqMode::kBind};
      auto started = Start(options);
      if (started) servers = *std::move(started);
      return servers != nullptr;
    };
    const base::TimePoint limit = runtime::Now() + std::chrono::seconds(10);
    while (!start()) ASSERT_LT(runtime::Now(), limit);  // until the old life's sockets are gone
    port = servers->ports()[0];
    endpoint = servers->server(0).kv_events()->bound();
    if (!listener) listener = std::make_unique<Listener>(Listener::To(endpoint));
    ASSERT_TRUE(listener->UntilConnected(life + 1));
    const std::string topic = servers->server(0).kv_events()->topic();
    Heard& heard = listener->heard[topic];
    const size_t before = heard.sequences.size();
    for (uint32_t i = 0; heard.sequences.size() == before; ++i) {
      Complete(*servers, {{"prompt", Ids(40, 1000 * i)}, {"max_tokens", 1}});
      listener->Until([&, tries = 0]() mutable {
        return ++tries > 3 || heard.sequences.size() > before;
      });
    }
    // The second life's sequence begins far below where the first one's ended.
    if (life == 1) EXPECT_LT(heard.sequences[before], heard.sequences[before - 1]);
    for (uint32_t i = 0; i < 100; ++i) {
      Complete(*servers, {{"prompt", Ids(40, 500'000 + 1000 * i)}, {"max_tokens", 1}});
    }
    const uint64_t messages = Ask(servers->server(0)).messages;
    ASSERT_TRUE(listener->UntilHeard(topic, messages - 1));
    EXPECT_EQ(heard.sequences.size() - before, messages - heard.sequences[before]);
  }
}

TEST(KvEventsTest, ManyServersAndRanksConnectToOnePicker) {
  net::ZmqSocketOptions bound;
  bound.bind = {"tcp://127.0.0.1:0"};
  Listener listener(bound);
  const auto servers = StartServers([&](SimOptions* o) {
    o->count = 3;
    o->kv_events.endpoint = listener.bound();
    o->kv_events.mode = ZmqMode::kAuto;
    o->kv_events.replay_endpoint = "";
    o->kv_events.topic = "";
    o->kv_events.pod_ip = "10.0.0.7";
  });
  ASSERT_TRUE(listener.UntilConnected(3));
  for (size_t i = 0; i < 3; ++i) {
    const std::string topic =
        "kv@10.0.0.7:" + std::to_string(servers->ports()[i]) + "@m";
    for (uint32_t n = 0; listener.heard[topic].sequences.empty(); ++n) {
      Complete(*servers, {{"prompt", Ids(8, 100 * n)}, {"max_tokens", 1}}, i);
      listener.Until([&, tries = 0]() mutable {
        return ++tries > 3 || !listener.heard[topic].sequences.empty();
      });
    }
    EXPECT_THAT(listener.heard[topic].ranks, ElementsAre(0));
  }

  const auto ranks = StartServers([](SimOptions* o) { o->kv_events.ranks = 2; });
  ASSERT_EQ(ranks->ports().size(), 2u);
  for (uint32_t rank = 0; rank < 2; ++rank) {
    SimServer& server = ranks->server(rank);
    Complete(*ranks, {{"prompt", Ids(8, 1)}, {"max_tokens", 1}}, rank);
    listener.replayed = {};
    listener.Replay(server.kv_events()->replay_bound(), 0);
    EXPECT_THAT(listener.replayed.ranks, ElementsAre(rank));
    const json sources = json::parse(Fetch(ranks->ports()[rank], "GET", "/kv_event_sources").body);
    EXPECT_EQ(sources[std::to_string(rank)]["topic"], server.kv_events()->topic());
  }
}

// The bytes are those of vLLM 0.32, from behind the time stamp on.
TEST(KvEventsTest, FramesOfVllm) {
  const std::string folder = std::string(LLMD_SOURCE_DIR) + "/conformance/recorded/vllm-0.32/";
  std::ifstream requests(folder + "kv_requests.jsonl"), events(folder + "kv_replay.jsonl");
  const auto servers = StartServers([](SimOptions* o) {
    o->model = "tiny";
    o->block_tokens = 32;
    o->model_tokens_max = 1900;
  });
  std::vector<std::string> expected;
  for (int i = 0; i < 2; ++i) {  // the later ones hold what the model said
    std::string line;
    ASSERT_TRUE(std::getline(requests, line));
    Complete(*servers, json::parse(line)["request"]);
    ASSERT_TRUE(std::getline(events, line));
    const std::string hex = json::parse(line)["frames_hex"][3];
    std::string& bytes = expected.emplace_back();
    for (size_t at = 0; at < hex.size(); at += 2) {
      bytes += static_cast<char>(std::stoi(hex.substr(at, 2), nullptr, 16));
    }
  }
  Listener listener(Listener::To(servers->server(0).kv_events()->bound()));
  listener.Replay(servers->server(0).kv_events()->replay_bound(), 0);
  ASSERT_EQ(listener.replayed.payloads.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(listener.replayed.payloads[i].substr(10), expected[i].substr(10));
  }
}

TEST(KvEventsTest, SourcesOfVllm) {
  std::ifstream file(std::string(LLMD_SOURCE_DIR) +
                     "/conformance/recorded/vllm-0.32/kv_event_sources.txt");
  std::string line, last;
  while (std::getline(file, line)) last = line;
  const auto servers = StartServers([](SimOptions*) {});
  const std::string ours = Fetch(servers->ports()[0], "GET", "/kv_event_sources").body;
  const auto names = [](const std::string& text) {
    std::vector<std::string> out;
    for (const auto& [name, value] : nlohmann::ordered_json::parse(text)["0"].items()) {
      out.push_back(name + " " + value.type_name());
    }
    return out;
  };
  EXPECT_EQ(names(ours), names(last));
}

TEST(KvEventsTest, TokensAreThoseOfTokenizeAndRender) {
  const auto servers = StartServers([](SimOptions* o) {
    o->block_tokens = 4;
    o->kv_blocks = 200;
  });
  const json chat = {{"messages", {{{"role", "user"}, {"content", "Hello, world! Ümläut"}}}},
                     {"max_tokens", 1}};
  const auto post = [&](const char* path) {
    return json::parse(Fetch(servers->ports()[0], "POST", path, chat.dump()).body);
  };
  const auto ids = post("/v1/chat/completions/render")["token_ids"].get<std::vector<uint32_t>>();
  EXPECT_EQ(post("/tokenize")["tokens"].get<std::vector<uint32_t>>(), ids);
  post("/v1/chat/completions");
  Listener listener(Listener::To(servers->server(0).kv_events()->bound()));
  listener.Replay(servers->server(0).kv_events()->replay_bound(), 0);
  const auto& told = listener.replayed.tokens;
  EXPECT_EQ(told.size(), ids.size() / 4 * 4);
  EXPECT_TRUE(std::equal(told.begin(), told.end(), ids.begin()));
}

TEST(KvEventsTest, CurveBothWays) {
  const net::ZmqKeyPair picker = net::ZmqKeyPair::Generate(), engine = net::ZmqKeyPair::Generate();
  net::ZmqSocketOptions bound;
  bound.bind = {"tcp://127.0.0.1:0"};
  bound.security = {.server_secret_key = picker.secret_key, .client_keys = {engine.public_key}};
  Listener listener(bound);
  const auto servers = StartServers([&](SimOptions* o) {
    o->kv_events.endpoint = listener.bound();
    o->kv_events.mode = ZmqMode::kConnect;
    o->kv_events.security = {.server_public_key = picker.public_key, .client = engine};
  });
  EXPECT_TRUE(listener.UntilConnected());

  const auto serving = StartServers([&](SimOptions* o) {
    o->kv_events.security = {.server_secret_key = engine.secret_key};
  });
  auto options = Listener::To(serving->server(0).kv_events()->bound());
  options.security = {.server_public_key = engine.public_key};
  Listener client(options);
  EXPECT_TRUE(client.UntilConnected());
}

TEST(KvEventsTest, EndpointsOfServersAndRanks) {
  EXPECT_EQ(*OffsetEndpoint("tcp://*:5557", 0), "tcp://*:5557");
  EXPECT_EQ(*OffsetEndpoint("tcp://*:5557", 3), "tcp://*:5560");
  EXPECT_EQ(*OffsetEndpoint("tcp://[::1]:5557", 1), "tcp://[::1]:5558");
  EXPECT_EQ(*OffsetEndpoint("tcp://127.0.0.1:0", 3), "tcp://127.0.0.1:0");
  EXPECT_EQ(*OffsetEndpoint("tcp://127.0.0.1:*", 3), "tcp://127.0.0.1:*");
  EXPECT_EQ(*OffsetEndpoint("ipc:///tmp/kv", 2), "ipc:///tmp/kv_dp2");
  EXPECT_EQ(*OffsetEndpoint("", 2), "");
  EXPECT_FALSE(OffsetEndpoint("tcp://*:65530", 9));
  for (const auto& [endpoint, binds] :
       {std::pair{"tcp://*:5557", true}, std::pair{"tcp://[::]:5557", true},
        std::pair{"ipc:///tmp/x", true}, std::pair{"tcp://127.0.0.1:5557", false},
        std::pair{"tcp://picker:5557", false}}) {
    EXPECT_EQ(BindsByItsLook(endpoint), binds) << endpoint;
  }
}

TEST(KvEventsTest, MistakesAreTold) {
  const auto error = [](const std::function<void(SimOptions*)>& change) {
    SimOptions options;
    options.host = "127.0.0.1";
    options.port = 0;
    options.model = "m";
    options.kv_events.enabled = true;
    change(&options);
    auto servers = Start(options);
    EXPECT_FALSE(servers);
    return servers ? std::string() : servers.error().ToString();
  };
  EXPECT_THAT(error([](SimOptions* o) { o->kv_events.endpoint = "nonsense"; }),
              HasSubstr("nonsense"));
  EXPECT_THAT(error([](SimOptions* o) { o->kv_events.endpoint = ""; }),
              HasSubstr("--zmq-endpoint"));
  EXPECT_THAT(error([](SimOptions* o) {
                o->count = 2;
                o->kv_events.ranks = 2;
              }),
              HasSubstr("--data-parallel-size"));
}

}  // namespace
}  // namespace llmd::sim
