// The simulated server's replies against exchanges recorded from vLLM 0.32: same status, headers,
// fields, order of fields, types and nulls; only what a model would say differs, and ids and times.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "sim/server.h"
#include "sim/sim_testing.h"

namespace llmd::sim {
namespace {

using Json = nlohmann::ordered_json;

std::string ReadFileText(const std::string& name) {
  std::ifstream file(std::string(LLMD_SOURCE_DIR) + "/conformance/recorded/vllm-0.32/" + name);
  EXPECT_TRUE(file.good()) << name;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

struct Recorded {
  std::string method, target, body, lines;
  TestReply reply;
};

// "### http://host:port/path -H Name: value -H ... -d body", then the reply.
Recorded Load(const std::string& name) {
  const std::string text = ReadFileText(name + ".txt");
  const size_t line_end = text.find('\n');
  std::string line = text.substr(0, line_end);
  Recorded recorded;
  const size_t path = line.find('/', line.find("//") + 2);
  const size_t space = line.find(' ', path);
  recorded.target = line.substr(path, space == std::string::npos ? space : space - path);
  if (const size_t data = line.find(" -d "); data != std::string::npos) {
    recorded.body = line.substr(data + 4);
    line.resize(data);
  }
  recorded.method = recorded.body.empty() ? "GET" : "POST";
  for (size_t at = line.find(" -H "); at != std::string::npos;) {
    const size_t next = line.find(" -H ", at + 1);
    recorded.lines += line.substr(at + 4, next == std::string::npos ? next : next - at - 4);
    recorded.lines += "\r\n";
    at = next;
  }
  std::string reply = text.substr(line_end + 1);
  while (reply.ends_with('\n')) reply.pop_back();
  if (reply.ends_with('\r')) reply += '\n';  // no body
  // The captures show the body without its chunk framing.
  const size_t head_end = reply.find("\r\n\r\n") + 4;
  recorded.reply = ParseReply(reply.substr(0, head_end));
  recorded.reply.body = reply.substr(head_end);
  return recorded;
}

// Replaces what may differ by the name of its type.
void Normalise(Json* value, const std::string& key = "") {
  static const std::set<std::string> kFree = {
      "id",           "request_id",         "created",    "content", "text",
      "token_ids",    "prompt_token_ids",   "root",       "tokens",  "prompt_tokens",
      "total_tokens", "system_fingerprint", "token_strs", "count"};
  if (kFree.contains(key) && !value->is_null() && !value->empty() && *value != "") {
    *value = std::string("<") + value->type_name() + ">";
    return;
  }
  if (value->is_object()) {
    for (auto& [name, member] : value->items()) Normalise(&member, name);
  } else if (value->is_array()) {
    for (auto& item : *value) Normalise(&item);
  }
}

std::string Shape(const std::string& text) {
  Json json = Json::parse(text, nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << text;
  Normalise(&json);
  return json.dump();
}

class GoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    SimOptions options;
    options.host = "127.0.0.1";
    options.port = 0;
    options.model = "MODEL_DIR";
    options.served_model_names = {"tiny"};
    options.model_tokens_max = 2048;
    options.block_tokens = 32;
    auto started = Start(options);
    ASSERT_TRUE(started) << started.error().ToString();
    servers_ = *std::move(started);
  }

  TestReply Send(const Recorded& recorded) {
    return Fetch(servers_->ports()[0], recorded.method, recorded.target, recorded.body,
                 recorded.lines);
  }

  static void ExpectSameHead(const TestReply& ours, const TestReply& theirs) {
    EXPECT_EQ(ours.status, theirs.status);
    std::set<std::string> our_names, their_names;
    for (const auto& [name, value] : ours.headers) {
      if (name != "connection") our_names.insert(name);
    }
    for (const auto& [name, value] : theirs.headers) their_names.insert(name);
    EXPECT_EQ(our_names, their_names);
    for (const char* name : {"server", "content-type", "vary", "allow"}) {
      if (theirs.headers.contains(name)) {
        EXPECT_EQ(ours.headers.at(name), theirs.headers.at(name));
      }
    }
    EXPECT_EQ(ours.headers.at("x-request-id").size(), theirs.headers.at("x-request-id").size());
  }

  std::unique_ptr<SimServers> servers_;
};

TEST_F(GoldenTest, Bodies) {
  for (const char* name : {"chat", "completion", "completion_tokids", "models", "tokenize",
                           "tokenize_chat", "version", "load", "chat_render",
                           "completions_render", "completions_render2"}) {
    SCOPED_TRACE(name);
    const Recorded recorded = Load(name);
    const TestReply ours = Send(recorded);
    ExpectSameHead(ours, recorded.reply);
    EXPECT_EQ(Shape(ours.body), Shape(recorded.reply.body));
    // No spaces, no escapes beyond what JSON needs: what a compact dump gives.
    EXPECT_EQ(ours.body, Json::parse(ours.body).dump());
  }
}

TEST_F(GoldenTest, ErrorsByteForByte) {
  for (const char* name : {"err_404", "err_405", "err_json", "err_maxtok", "err_missing",
                           "err_model", "err_type", "health"}) {
    SCOPED_TRACE(name);
    const Recorded recorded = Load(name);
    const TestReply ours = Send(recorded);
    ExpectSameHead(ours, recorded.reply);
    EXPECT_EQ(ours.body, recorded.reply.body);
  }
}

TEST_F(GoldenTest, PromptBeyondTheContext) {
  for (const char* name : {"err_ctx", "err_render_ctx"}) {
    SCOPED_TRACE(name);
    Recorded recorded = Load(name);
    std::string words;
    for (int i = 0; i < 3000; ++i) words += "word ";
    recorded.body = base::Concat(R"({"model":"tiny","prompt":")", words, "\"}");
    recorded.method = "POST";
    const TestReply ours = Send(recorded);
    ExpectSameHead(ours, recorded.reply);
    EXPECT_EQ(ours.body, recorded.reply.body);
  }
}

TEST_F(GoldenTest, Streams) {
  for (const char* name : {"chat_stream", "chat_stream_contusage", "completion_stream"}) {
    SCOPED_TRACE(name);
    const Recorded recorded = Load(name);
    const TestReply ours = Send(recorded);
    ExpectSameHead(ours, recorded.reply);
    const auto our_lines = base::Split(ours.body, '\n');
    const std::string theirs = recorded.reply.body + "\n\n";
    const auto their_lines = base::Split(theirs, '\n');
    ASSERT_EQ(our_lines.size(), their_lines.size());
    for (size_t i = 0; i < our_lines.size(); ++i) {
      const std::string ours_line(our_lines[i]), theirs_line(their_lines[i]);
      if (!theirs_line.starts_with("data: {")) {
        EXPECT_EQ(ours_line, theirs_line);
        continue;
      }
      ASSERT_TRUE(ours_line.starts_with("data: ")) << ours_line;
      // A token may be an empty text there; here it never is.
      EXPECT_EQ(Shape(ours_line.substr(6)),
                Shape(theirs_line.find("\"text\":\"\"") != std::string::npos
                          ? std::string(theirs_line).replace(
                                theirs_line.find("\"text\":\"\""), 9, "\"text\":\"x\"").substr(6)
                          : theirs_line.substr(6)));
    }
  }
}

TEST_F(GoldenTest, RequestIdOfTheClientIsKept) {
  const Recorded recorded = Load("chat");
  const TestReply ours = Send(recorded);
  EXPECT_EQ(ours.headers.at("x-request-id"), "req-abc-1");
  EXPECT_EQ(Json::parse(ours.body)["id"], "chatcmpl-req-abc-1");
}

// Every line of our page, without its number, is a line of vLLM's page, in the same order; and the
// families that we leave out are these.
TEST_F(GoldenTest, MetricsPage) {
  const TestReply ours = Fetch(servers_->ports()[0], "GET", "/metrics");
  EXPECT_EQ(ours.headers.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  auto without_number = [](std::string_view line) {
    return std::string(line.starts_with("#") ? line : line.substr(0, line.rfind(' ')));
  };
  std::vector<std::string> our_lines, their_lines;
  const std::string their_page = ReadFileText("metrics.txt");
  for (std::string_view line : base::Split(ours.body, '\n')) {
    if (!line.contains("cache_config_info")) our_lines.push_back(without_number(line));
  }
  for (std::string_view line : base::Split(their_page, '\n')) {
    const bool ours_too = line.contains("vllm:") && !line.contains("estimated_") &&
                          !line.contains("cache_config_info");
    if (ours_too || line.empty()) their_lines.push_back(without_number(line));
  }
  for (size_t i = 0; i < std::min(our_lines.size(), their_lines.size()); ++i) {
    ASSERT_EQ(our_lines[i], their_lines[i]);
  }
  EXPECT_EQ(our_lines.size(), their_lines.size());
  // Of the cache's configuration, what routers read.
  for (const char* label : {"block_size=\"32\"", "num_gpu_blocks=\"1024\"", "engine=\"0\"",
                            "enable_prefix_caching=\"True\""}) {
    EXPECT_THAT(ours.body, testing::HasSubstr(label));
  }
}

}  // namespace
}  // namespace llmd::sim
