// The simulated server over real sockets.
#include "sim/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/clock.h"
#include "sim/sim_testing.h"

namespace llmd::sim {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::HasSubstr;

std::unique_ptr<SimServers> StartServers(std::function<void(SimOptions*)> change = nullptr) {
  SimOptions options;
  options.host = "127.0.0.1";
  options.port = 0;
  options.profile = "instant";
  if (change) change(&options);
  auto servers = Start(options);
  EXPECT_TRUE(servers) << servers.error().ToString();
  return *std::move(servers);
}

TestReply Post(const SimServers& servers, std::string_view target, const json& body,
               std::string_view lines = "") {
  return Fetch(servers.ports()[0], "POST", target, body.dump(), lines);
}

json Ask(const SimServers& servers, std::string_view target, const json& body) {
  const TestReply reply = Post(servers, target, body);
  EXPECT_EQ(reply.status, 200) << reply.raw;
  return json::parse(reply.body, nullptr, false);
}

json Chat(std::string_view text, json more = json::object()) {
  more["messages"] = {{{"role", "user"}, {"content", text}}};
  return more;
}

std::vector<json> Events(const std::string& body) {
  std::vector<json> events;
  for (std::string_view line : base::Split(body, '\n')) {
    if (line.starts_with("data: {")) events.push_back(json::parse(line.substr(6)));
  }
  return events;
}

// Value of an unlabelled-but-for-the-model sample.
double Metric(const SimServers& servers, const std::string& name, size_t server = 0) {
  const TestReply reply =
      Fetch(servers.ports()[server], "GET", "/metrics?name%5B%5D=" + name);
  const size_t at = reply.body.find("\n" + name + "{");
  if (at == std::string::npos) return -1;
  const size_t value = reply.body.find("} ", at) + 2;
  return std::atof(reply.body.c_str() + value);
}

TEST(SimServerTest, Tutorial) {
  const auto servers = StartServers();
  const json reply = Ask(*servers, "/v1/chat/completions",
                         Chat("Hello there", {{"model", "instant"}, {"max_tokens", 5}}));
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(reply["usage"]["completion_tokens"], 5);
  EXPECT_EQ(reply["usage"]["prompt_tokens"], 9);
  EXPECT_EQ(Metric(*servers, "vllm:generation_tokens_total"), 5);
}

TEST(SimServerTest, StreamGivesTheTextOfTheWholeReply) {
  const auto servers = StartServers();
  const json ask = Chat("Say something", {{"max_tokens", 40}});
  const json whole = Ask(*servers, "/v1/chat/completions", ask);
  json streamed = ask;
  streamed["stream"] = true;
  const TestReply reply = Post(*servers, "/v1/chat/completions", streamed);
  std::string text;
  const auto events = Events(reply.body);
  ASSERT_EQ(events.size(), 41u);  // the role, then every token
  for (const json& event : events) {
    text += event["choices"][0]["delta"]["content"].get<std::string>();
  }
  EXPECT_EQ(json(text), whole["choices"][0]["message"]["content"]);
  EXPECT_TRUE(reply.body.ends_with("data: [DONE]\n\n"));
}

TEST(SimServerTest, SixteenTokensIfNoneAreAskedForAndFewerAtAStop) {
  const auto servers = StartServers();
  const json all = Ask(*servers, "/v1/completions", {{"prompt", "x y z"}});
  EXPECT_EQ(all["usage"]["completion_tokens"], 16);
  const std::string text = all["choices"][0]["text"];
  const std::string stop = text.substr(20, 4);
  const size_t at = text.find(stop);
  const json cut = Ask(*servers, "/v1/completions",
                       {{"prompt", "x y z"}, {"stop", {stop, "\x01"}}, {"ignore_eos", true}});
  EXPECT_EQ(cut["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(cut["choices"][0]["stop_reason"], json(stop));
  EXPECT_EQ(cut["choices"][0]["text"], json(text.substr(0, at)));
  EXPECT_LT(cut["usage"]["completion_tokens"], 16);

  const TestReply streamed =
      Post(*servers, "/v1/completions", {{"prompt", "x y z"}, {"stop", stop}, {"stream", true}});
  std::string shown;
  for (const json& event : Events(streamed.body)) {
    shown += event["choices"][0]["text"].get<std::string>();
  }
  EXPECT_EQ(shown, text.substr(0, at));
}

TEST(SimServerTest, ManyChoicesOfManyPrompts) {
  const auto servers = StartServers();
  const json ask = {{"prompt", {"a b", "c d e"}}, {"n", 3}, {"max_tokens", 4},
                    {"return_token_ids", true}};
  const json reply = Ask(*servers, "/v1/completions", ask);
  ASSERT_EQ(reply["choices"].size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(reply["choices"][i]["index"], i);
    EXPECT_EQ(reply["choices"][i]["token_ids"].size(), 4u);
    EXPECT_EQ(reply["choices"][i]["prompt_token_ids"].size(), i < 3 ? 2u : 3u);
  }
  EXPECT_NE(reply["choices"][0]["text"], reply["choices"][1]["text"]);
  EXPECT_EQ(reply["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(reply["usage"]["completion_tokens"], 24);

  json streamed = ask;
  streamed["stream"] = true;
  streamed["stream_options"] = {{"include_usage", true}};
  const auto events = Events(Post(*servers, "/v1/completions", streamed).body);
  ASSERT_EQ(events.size(), 25u);
  EXPECT_EQ(events[24]["usage"]["completion_tokens"], 24);
}

TEST(SimServerTest, SecondTurnFindsTheFirstInTheCache) {
  const auto servers = StartServers([](SimOptions* o) { o->block_tokens = 16; });
  std::string question;
  for (int i = 0; i < 100; ++i) question += "word" + std::to_string(i) + " ";
  json ask = Chat(question, {{"max_tokens", 200}});
  const json first = Ask(*servers, "/v1/chat/completions", ask);
  EXPECT_EQ(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
  ask["messages"].push_back(first["choices"][0]["message"]);
  ask["messages"].push_back({{"role", "user"}, {"content", "And then?"}});
  const json second = Ask(*servers, "/v1/chat/completions", ask);
  // Prompt and reply were 107 + 200 tokens, of which the last was never computed: 19 blocks.
  EXPECT_EQ(first["usage"]["total_tokens"], 307);
  EXPECT_EQ(second["usage"]["prompt_tokens_details"]["cached_tokens"], 304);
  EXPECT_EQ(Metric(*servers, "vllm:prefix_cache_hits_total"), 304);
}

TEST(SimServerTest, EchoAndRandom) {
  const auto echo = StartServers([](SimOptions* o) { o->mode = ReplyMode::kEcho; });
  json reply = Ask(*echo, "/v1/completions", {{"prompt", "Tell \"me\", 日本!"}, {"max_tokens", 99}});
  EXPECT_EQ(reply["choices"][0]["text"], "Tell \"me\", 日本!");
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "stop");
  reply = Ask(*echo, "/v1/chat/completions", Chat("one two three", {{"max_tokens", 2}}));
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "one two ");
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "length");
  const json quoted = {{"prompt", "a \"b\"\n"}, {"stream", true}};
  const auto events = Events(Post(*echo, "/v1/completions", quoted).body);
  std::string text;
  for (const json& event : events) text += event["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(text, "a \"b\"\n");

  const auto random = StartServers([](SimOptions* o) { o->mode = ReplyMode::kRandom; });
  std::set<int> lengths;
  for (int i = 0; i < 20; ++i) {
    reply = Ask(*random, "/v1/completions", {{"prompt", "x"}, {"max_tokens", 50}});
    lengths.insert(reply["usage"]["completion_tokens"].get<int>());
    EXPECT_LE(reply["usage"]["completion_tokens"], 50);
  }
  EXPECT_GT(lengths.size(), 5u);
  reply = Ask(*random, "/v1/completions",
              {{"prompt", "x"}, {"max_tokens", 50}, {"ignore_eos", true}});
  EXPECT_EQ(reply["usage"]["completion_tokens"], 50);
}

// The client sees tokens one by one at the pace that was asked for.
TEST(SimServerTest, StreamsInTime) {
  const auto servers = StartServers([](SimOptions* o) {
    o->time_to_first_token = milliseconds(60);
    o->inter_token_latency = milliseconds(20);
  });
  TestConnection connection(servers->ports()[0]);
  const base::TimePoint begin = runtime::Now();
  connection.Send(TestRequest("POST", "/v1/completions",
                              R"({"prompt":"x","max_tokens":6,"stream":true})"));
  std::vector<double> ms;
  std::string all;
  for (std::string piece = connection.Read(); !piece.empty(); piece = connection.Read()) {
    const double now = base::ToSeconds(runtime::Now() - begin) * 1e3;
    for (size_t at = piece.find("data: {"); at != std::string::npos;
         at = piece.find("data: {", at + 1)) {
      ms.push_back(now);
    }
    all += piece;
  }
  ASSERT_EQ(ms.size(), 6u) << all;
  // Never early; late as the machine happens to be.
  for (size_t i = 0; i < 6; ++i) EXPECT_GE(ms[i], 60.0 + 20.0 * static_cast<double>(i) - 0.5);
  EXPECT_LT(ms[0], ms[5]);
}

TEST(SimServerTest, SpeedupMakesSimulatedTimePassFaster) {
  const auto servers = StartServers([](SimOptions* o) {
    o->profile = "qwen3-32b-h100-tp2";
    o->speedup = 1000;
  });
  // 16 steps of 15 ms and 90 ms before them are 1/3 of a second: here a third of a millisecond.
  const base::TimePoint begin = runtime::Now();
  Ask(*servers, "/v1/completions", {{"prompt", "x"}});
  EXPECT_LT(base::ToSeconds(runtime::Now() - begin), 0.25);
}

TEST(SimServerTest, FullQueueGets429AndAFreedSeatServesAgain) {
  const auto servers = StartServers([](SimOptions* o) {
    o->sequences_max = 1;
    o->waiting_max = 1;
    o->time_to_first_token = std::chrono::hours(1);
  });
  auto first = std::make_unique<TestConnection>(servers->ports()[0]);
  const std::string request =
      TestRequest("POST", "/v1/completions", R"({"prompt":"x","stream":true})");
  first->Send(request);
  EXPECT_THAT(first->Read(), HasSubstr("200 OK"));
  TestConnection second(servers->ports()[0]);
  second.Send(request);
  EXPECT_THAT(second.Read(), HasSubstr("200 OK"));
  const TestReply refused = Post(*servers, "/v1/completions", {{"prompt", "x"}});
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(json::parse(refused.body)["error"]["type"], "RateLimitError");
  EXPECT_EQ(Metric(*servers, "vllm:num_requests_running"), 1);
  EXPECT_EQ(Metric(*servers, "vllm:num_requests_waiting"), 1);

  first.reset();  // the client hangs up: its request is aborted, the next one runs
  while (Metric(*servers, "vllm:num_requests_waiting") != 0) {
  }
  EXPECT_EQ(Metric(*servers, "vllm:num_requests_running"), 1);
}

// A client that does not read costs its server no more than a buffer, and nobody else anything.
TEST(SimServerTest, SlowReaderGetsEverythingInTheEnd) {
  const auto servers = StartServers();
  TestConnection slow(servers->ports()[0]);
  slow.Send(TestRequest("POST", "/v1/completions",
                        R"({"prompt":"x","max_tokens":100000,"stream":true})"));
  EXPECT_THAT(slow.Read(), HasSubstr("200 OK"));
  Ask(*servers, "/v1/completions", {{"prompt", "y"}});
  const std::string rest = slow.ReadAll();
  EXPECT_THAT(rest.substr(rest.size() - 200), HasSubstr("data: [DONE]"));
  EXPECT_THAT(rest.substr(rest.size() - 1000), HasSubstr("\"finish_reason\":\"length\""));
}

TEST(SimServerTest, BadLengths) {
  const auto servers = StartServers([](SimOptions* o) { o->model_tokens_max = 20; });
  struct Row {
    json body;
    const char* message;
  };
  for (const Row& row : {
           Row{{{"prompt", ""}}, "cannot be empty"},
           Row{{{"prompt", "x"}, {"max_tokens", 0}}, "max_tokens must be at least 1, got 0."},
           Row{{{"prompt", "x"}, {"max_tokens", 21}}, "cannot be greater than max_model_len=20"},
           Row{{{"prompt", "a b c"}, {"max_tokens", 18}}, "for a total of 21 tokens"},
           Row{{{"prompt", "a a a a a a a a a a a a a a a a a a a a"}}, "at least 20 input tokens"},
       }) {
    const TestReply reply = Post(*servers, "/v1/completions", row.body);
    EXPECT_EQ(reply.status, 400);
    EXPECT_THAT(json::parse(reply.body)["error"]["message"].get<std::string>(),
                HasSubstr(row.message));
  }
  const json fits = Ask(*servers, "/v1/completions", {{"prompt", "a a a a a a a a a a"}});
  EXPECT_EQ(fits["usage"]["total_tokens"], 20);  // what is left, less than the default
}

TEST(SimServerTest, InjectedFailures) {
  const auto servers = StartServers([](SimOptions* o) {
    o->failure_percent = 50;
    o->failure_types = {FailureType::kServerError, FailureType::kRateLimit};
  });
  std::map<int, int> statuses;
  for (int i = 0; i < 100; ++i) {
    ++statuses[Post(*servers, "/v1/completions", {{"prompt", "x"}}).status];
  }
  EXPECT_EQ(statuses.size(), 3u);
  EXPECT_GT(statuses[200], 25);
  EXPECT_GT(statuses[503], 5);
  EXPECT_GT(statuses[429], 5);
}

TEST(SimServerTest, ReadinessBodiesAndFixedMetrics) {
  const auto servers = StartServers([](SimOptions* o) {
    o->startup = std::chrono::hours(1);
    o->body_mib_max = 1;
    o->metrics_page = std::make_shared<const std::string>("some_metric 1\n");
  });
  EXPECT_EQ(Fetch(servers->ports()[0], "GET", "/health").status, 200);
  EXPECT_EQ(Fetch(servers->ports()[0], "GET", "/health/ready").status, 503);
  EXPECT_EQ(Fetch(servers->ports()[0], "GET", "/metrics").body, "some_metric 1\n");
  EXPECT_EQ(Fetch(servers->ports()[0], "HEAD", "/health").status, 405);
  const std::string large(2 << 20, ' ');
  EXPECT_EQ(Fetch(servers->ports()[0], "POST", "/v1/completions", large).status, 413);
}

TEST(SimServerTest, ManyServersInOneProcess) {
  const auto servers = StartServers([](SimOptions* o) {
    o->count = 3;
    o->workers = 2;
  });
  ASSERT_EQ(servers->ports().size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const char* ask = R"({"prompt":"x"})";
    EXPECT_EQ(Fetch(servers->ports()[i], "POST", "/v1/completions", ask).status, 200);
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(Metric(*servers, "vllm:generation_tokens_total", i), 16);

  SimOptions taken;
  taken.host = "127.0.0.1";
  taken.model = "m";
  taken.port = servers->ports()[0];
  taken.count = 1;
  servers->Stop();
  EXPECT_TRUE(Start(taken));  // the port is free again
}

TEST(SimServerTest, MetricsFilterGivesOnlyWhatIsAskedFor) {
  const auto servers = StartServers();
  Ask(*servers, "/v1/completions", {{"prompt", "x y"}});
  const TestReply reply = Fetch(
      servers->ports()[0], "GET",
      "/metrics?name[]=vllm:num_requests_waiting&name%5B%5D=vllm:request_prompt_tokens_sum");
  EXPECT_EQ(reply.body,
            "# HELP vllm:num_requests_waiting Number of requests waiting to be processed.\n"
            "# TYPE vllm:num_requests_waiting gauge\n"
            "vllm:num_requests_waiting{engine=\"0\",model_name=\"instant\"} 0.0\n"
            "# HELP vllm:request_prompt_tokens Number of prefill tokens processed.\n"
            "# TYPE vllm:request_prompt_tokens histogram\n"
            "vllm:request_prompt_tokens_sum{engine=\"0\",model_name=\"instant\"} 2.0\n");
  EXPECT_EQ(Fetch(servers->ports()[0], "GET", "/metrics?name[]=nothing").body, "");
}

}  // namespace
}  // namespace llmd::sim
