#include "protocol/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/random.h"
#include "protocol/request_testing.h"

namespace llmd::protocol {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(RequestParser, ReadsAChatRequestWhileItArrives) {
  const std::string_view chunks[] = {R"({"model":"ti)",
                                     R"(ny","messages":[{"role":"user","content":"He)",
                                     R"(llo"}],"max_tokens":6,"stream":true})"};
  base::Arena arena;
  Request request;
  RequestParser parser(Api::kChatCompletions, arena, &request);
  for (const std::string_view chunk : chunks) EXPECT_TRUE(parser.Feed(chunk));
  ASSERT_TRUE(parser.Finish().ok());
  EXPECT_EQ(request.model, "tiny");
  EXPECT_EQ(request.model_begin, 9u);
  EXPECT_EQ(request.model_end, 15u);
  EXPECT_TRUE(request.stream);
  EXPECT_EQ(request.max_output_tokens, 6);
  EXPECT_EQ(request.message_count, 1u);
  ASSERT_EQ(request.pieces.size(), 3u);
  EXPECT_EQ(request.pieces[0].kind, PieceKind::kRole);
  EXPECT_EQ(request.pieces[1].bytes, "He");
  EXPECT_EQ(request.pieces[1].bytes.data(), chunks[1].data() + chunks[1].size() - 2);
  EXPECT_EQ(request.pieces[2].bytes, "llo");
  EXPECT_TRUE(request.pieces[2].continued);
  EXPECT_THAT(PieceLines(request), ElementsAre("role|0|user", "text|0|Hello"));
}

// Every case is also fed at every cut.
std::string Describe(Api api, std::string_view body, RequestOptions options = {}) {
  const std::string whole = DescribeRequest(api, body, {}, options);
  for (size_t cut = 0; cut <= body.size(); ++cut) {
    EXPECT_EQ(DescribeRequest(api, body, {cut}, options), whole) << "cut at " << cut;
  }
  std::vector<size_t> bytes;
  for (size_t at = 1; at < body.size(); ++at) bytes.push_back(at);
  EXPECT_EQ(DescribeRequest(api, body, bytes, options), whole) << "byte by byte";
  return whole;
}

TEST(RequestParser, WhatIsReadPerApi) {
  const struct {
    Api api;
    std::string_view body;
    std::string_view want;
  } cases[] = {
      {Api::kChatCompletions,
       R"({"messages":[{"role":"system","content":[{"type":"text","text":"a\nb"},)"
       R"({"type":"image_url","image_url":{"url":"http://x/1.png","detail":"low"}},"c"]},)"
       R"({"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}],"tools":[{"x":[1]}],)"
       R"("model":"m\u00e9","n":2,"max_tokens":5,"max_completion_tokens":7,"cache_salt":"s",)"
       R"("stream":true,"stream_options":{"include_usage":true,"other":1},"temperature":0.1})",
       "model=mé@241-250 stream usage salt=s max=7 n=2 prompts=1 messages=2 media=1 ids=0 text=57 "
       "body=397\n"
       "role|0|system\ntext|0|a\\nb\nimage|0|http://x/1.png\ntext|0|c\nrole|0|assistant\n"
       "tool_calls|0|[{\"id\":\"1\"}]\ntools|0|[{\"x\":[1]}]\n"},
      {Api::kCompletions, R"({"model":"m","prompt":"Hi","max_tokens":4})",
       "model=m@9-12 salt= max=4 n=1 prompts=1 messages=0 media=0 ids=0 text=2 "
       "body=42\ntext|0|Hi\n"},
      {Api::kCompletions, R"({"model":"m","prompt":["a","","b"],"max_tokens":-1})",
       "model=m@9-12 salt= max=none n=1 prompts=3 messages=0 media=0 ids=0 text=2 body=51\n"
       "text|0|a\ntext|2|b\n"},
      {Api::kCompletions, R"({"model":"m","prompt":[1, 22,333]})",
       "model=m@9-12 salt= max=none n=1 prompts=1 messages=0 media=0 ids=3 text=9 body=34\n"
       "ids|0|1, 22,333\n"},
      {Api::kCompletions, R"({"model":"m","prompt":[[1,2],[3]]})",
       "model=m@9-12 salt= max=none n=1 prompts=2 messages=0 media=0 ids=3 text=4 body=34\n"
       "ids|0|1,2\nids|1|3\n"},
      {Api::kEmbeddings, R"({"model":"m","input":["a","b"],"stream":"not read"})",
       "model=m@9-12 salt= max=none n=1 prompts=2 messages=0 media=0 ids=0 text=2 body=51\n"
       "text|0|a\ntext|1|b\n"},
      {Api::kResponses,
       R"({"model":"m","instructions":"be brief","input":"Hi","max_output_tokens":9,"n":null})",
       "model=m@9-12 salt= max=9 n=1 prompts=1 messages=0 media=0 ids=0 text=10 body=83\n"
       "system|0|be brief\ntext|0|Hi\n"},
      {Api::kResponses,
       R"({"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"t"},)"
       R"({"type":"input_image","image_url":"http://i"},{"type":"input_file","file_id":"f1"}]},)"
       R"({"type":"function_call","call_id":"c","arguments":"{}"},)"
       R"({"type":"function_call_output","call_id":"c","output":"42"}]})",
       "model=m@9-12 salt= max=none n=1 prompts=1 messages=3 media=2 ids=0 text=23 body=283\n"
       "role|0|user\ntext|0|t\nimage|0|http://i\nfile|0|f1\ntool_calls|0|\"{}\"\n"
       "tool_calls|0|\"42\"\n"},
      {Api::kConversations,
       R"({"model":"m","items":[{"type":"message","role":"user","content":"x"}]})",
       "model=m@9-12 salt= max=none n=1 prompts=1 messages=1 media=0 ids=0 text=5 body=70\n"
       "role|0|user\ntext|0|x\n"},
      {Api::kImagesGenerations, R"({"model":"m","prompt":"a cat","n":3})",
       "model=m@9-12 salt= max=none n=3 prompts=1 messages=0 media=0 ids=0 text=5 body=36\n"
       "text|0|a cat\n"},
      {Api::kOpaque, "anything",
       "model=@0-0 salt= max=none n=1 prompts=0 messages=0 media=0 ids=0 text=0 body=8\n"},
  };
  for (const auto& c : cases) EXPECT_EQ(Describe(c.api, c.body), c.want) << c.body;
}

TEST(RequestParser, AudioVideoAndFilesAreMedia) {
  const std::string got = Describe(
      Api::kChatCompletions,
      R"({"model":"m","messages":[{"content":[{"input_audio":{"data":"QUJD","format":"wav"}},)"
      R"({"video_url":{"url":"v"}},{"file":{"file_id":"f","file_data":null}},{"audio_url":"a"},)"
      R"({"image_url":null,"uuid":"u"}]}]})");
  EXPECT_THAT(got, HasSubstr("media=4 "));
  EXPECT_THAT(got, HasSubstr("\naudio|0|QUJD\nvideo|0|v\nfile|0|f\naudio|0|a\n"));
}

TEST(RequestParser, ErrorsOfBodiesAndChats) {
  constexpr std::string_view kChat =
      "INVALID_ARGUMENT: invalid chat completions request: must have valid messages field";
  const struct {
    Api api;
    std::string_view body;
    std::string want;
  } cases[] = {
      {Api::kChatCompletions, "",
       "INVALID_ARGUMENT: error unmarshaling request bodyMap: truncated JSON "
       "(at byte 0)"},
      {Api::kChatCompletions, R"({"model":"tiny",)",
       "INVALID_ARGUMENT: error unmarshaling request bodyMap: truncated JSON (at byte 16)"},
      {Api::kChatCompletions, R"(["model"])",
       "INVALID_ARGUMENT: error unmarshaling request bodyMap: not a JSON object (at byte 0)"},
      {Api::kChatCompletions, R"({"messages":[{"role":"user","content":"x"}]})",
       "INVALID_ARGUMENT: model not found in request body"},
      {Api::kChatCompletions, R"({"model":null,"messages":[{"role":"user","content":"x"}]})",
       "INVALID_ARGUMENT: model not found in request body"},
      {Api::kChatCompletions, R"({"model":"","messages":[{"role":"user","content":"x"}]})",
       "INVALID_ARGUMENT: model not found in request body"},
      {Api::kChatCompletions, R"({"model":5,"messages":[{}]})",
       "INVALID_ARGUMENT: model must be a string (at byte 9)"},
      {Api::kChatCompletions, R"({"model":"a\q","messages":[{}]})",
       "INVALID_ARGUMENT: model is too long or malformed (at byte 9)"},
      {Api::kChatCompletions, R"({"model":"a","model":"b","messages":[{}]})",
       "INVALID_ARGUMENT: a field is given twice (at byte 13)"},
      {Api::kChatCompletions, R"({"model":"m"})", std::string(kChat)},
      {Api::kChatCompletions, R"({"model":"m","messages":[]})", std::string(kChat)},
      {Api::kChatCompletions, R"({"model":"m","messages":null})", std::string(kChat)},
      {Api::kChatCompletions, R"({"model":"m","messages":"x"})",
       base::Concat(kChat, ": must be an array of objects (at byte 24)")},
      {Api::kChatCompletions, R"({"model":"m","messages":[1]})",
       base::Concat(kChat, ": must be an array of objects (at byte 25)")},
      {Api::kChatCompletions, R"({"model":"m","messages":[{"content":7}]})",
       base::Concat(kChat, ": content must be a string or an array of parts (at byte 36)")},
      {Api::kChatCompletions, R"({"model":"m","messages":[{"role":["a"]}]})",
       base::Concat(kChat, ": role must be a string (at byte 33)")},
      {Api::kChatCompletions, R"({"model":"m","messages":[{"content":[{"text":1}]}]})",
       base::Concat(kChat, ": text must be a string (at byte 45)")},
      {Api::kChatCompletions, R"({"model":"m","messages":[{}],"stream":{}})",
       "INVALID_ARGUMENT: stream must be a boolean (at byte 38)"},
      {Api::kChatCompletions, R"({"model":"m","messages":[{}],"stream":tru})",
       "INVALID_ARGUMENT: error unmarshaling request bodyMap: malformed JSON literal (at byte 41)"},
      {Api::kChatCompletions, R"({"model":"m","messages":[{}],"stream_options":[]})",
       "INVALID_ARGUMENT: stream_options must be an object (at byte 46)"},
      {Api::kChatCompletions, R"({"model":"m","messages":[{}],"max_tokens":[5]})",
       "INVALID_ARGUMENT: the maximum number of tokens must be a whole number (at byte 42)"},
      {Api::kChatCompletions, R"({"model":"m","messages":[{}],"n":{}})",
       "INVALID_ARGUMENT: n must be a whole number (at byte 33)"},
  };
  for (const auto& c : cases) EXPECT_EQ(Describe(c.api, c.body), c.want) << c.body;
}

// Engines read "true" and "5" where a boolean and a number should stand; what they make of them is
// theirs.
TEST(RequestParser, AScalarOfAnotherTypeTellsNothingOfLoadAndReply) {
  const std::string expected =
      "model=m@9-12 salt= max=none n=1 prompts=1 messages=1 media=0 ids=0 text=0 body=";
  for (const char* field :
       {R"("stream":"true")", R"("stream":1)", R"("max_tokens":"5")", R"("max_tokens":1.5)",
        R"("max_tokens":true)", R"("max_completion_tokens":"5")", R"("n":"2")", R"("n":false)",
        R"("stream_options":"all")", R"("stream_options":{"include_usage":"yes"})"}) {
    const std::string body = base::Concat(R"({"model":"m","messages":[{}],)", field, "}");
    EXPECT_EQ(Describe(Api::kChatCompletions, body),
              base::Concat(expected, std::to_string(body.size()), "\n"))
        << field;
  }
  EXPECT_THAT(Describe(Api::kVllmGenerate,
                       R"({"model":"m","token_ids":[1],"sampling_params":{"max_tokens":"3"}})"),
              HasSubstr("max=none"));
}

TEST(RequestParser, ErrorsOfPromptsAndInputs) {
  constexpr std::string_view kPrompt =
      "INVALID_ARGUMENT: invalid completions request: must have prompt field";
  const struct {
    Api api;
    std::string_view body;
    std::string want;
  } cases[] = {
      {Api::kCompletions, R"({"model":"m"})", std::string(kPrompt)},
      {Api::kCompletions, R"({"model":"m","prompt":""})", std::string(kPrompt)},
      {Api::kCompletions, R"({"model":"m","prompt":[]})", std::string(kPrompt)},
      {Api::kCompletions, R"({"model":"m","prompt":{"a":1}})",
       base::Concat(kPrompt, ": must be a string, token ids, or an array of either (at byte 22)")},
      {Api::kCompletions, R"({"model":"m","prompt":["a",1]})",
       base::Concat(kPrompt, ": must be a string, token ids, or an array of either (at byte 27)")},
      {Api::kEmbeddings, R"({"model":"m"})",
       "INVALID_ARGUMENT: invalid embeddings request: must have input field"},
      {Api::kResponses, R"({"model":"m","input":null})",
       "INVALID_ARGUMENT: invalid responses request: must have input field"},
      {Api::kConversations, R"({"model":"m","items":[]})",
       "INVALID_ARGUMENT: invalid conversations request: must have items field"},
      {Api::kImagesGenerations, R"({"model":"m","prompt":""})",
       "INVALID_ARGUMENT: invalid images generations request: must have prompt field"},
  };
  for (const auto& c : cases) EXPECT_EQ(Describe(c.api, c.body), c.want) << c.body;
}

TEST(RequestParser, BadTokenIdsAreRefused) {
  for (const std::string_view ids : {"[1,-2]", "[1,2.5]", "[1,\"a\"]", "[1,,2]", "[1,2", "[-1]"}) {
    const std::string body = base::Concat(R"({"model":"m","prompt":)", ids, "}");
    EXPECT_THAT(DescribeRequest(Api::kCompletions, body, {}),
                StartsWith("INVALID_ARGUMENT: error unmarshaling"))
        << body;
  }
}

TEST(RequestParser, ALongModelIsRefusedWhateverTheCut) {
  const auto body = [](size_t bytes) {
    return R"({"messages":[{}],"model":")" + std::string(bytes, 'm') + "\"}";
  };
  for (const size_t cut : {0u, 30u, 500u}) {
    EXPECT_THAT(DescribeRequest(Api::kChatCompletions, body(RequestParser::kModelBytesMax), {cut}),
                StartsWith("model=mmm"));
    EXPECT_THAT(
        DescribeRequest(Api::kChatCompletions, body(RequestParser::kModelBytesMax + 1), {cut}),
        HasSubstr("model is too long"));
  }
}

TEST(RequestParser, PiecesBeyondTheLimitAreCountedAndTheRequestStands) {
  std::string body = R"({"model":"m","messages":[)";
  for (int i = 0; i < 5000; ++i) body += R"({"role":"user","content":"x"},)";
  body += "{}]}";
  base::Arena arena;
  Request request;
  RequestParser parser(Api::kChatCompletions, arena, &request);
  EXPECT_TRUE(parser.Feed(body));
  ASSERT_TRUE(parser.Finish().ok());
  EXPECT_EQ(request.pieces.size(), RequestParser::kPiecesMax);
  EXPECT_EQ(request.pieces_dropped, 10000 - RequestParser::kPiecesMax);
  EXPECT_EQ(request.message_count, 5001u);
  EXPECT_EQ(request.text_bytes, 5u * 5000);
}

TEST(RequestParser, PartsSideBySideInMemoryAreOnePiece) {
  const std::string_view body = R"({"model":"m","prompt":"Hello"})";
  base::Arena arena;
  Request request;
  RequestParser parser(Api::kCompletions, arena, &request);
  parser.Feed(body.substr(0, 25));
  parser.Feed(body.substr(25));
  ASSERT_TRUE(parser.Finish().ok());
  ASSERT_EQ(request.pieces.size(), 1u);
  EXPECT_EQ(request.pieces[0].bytes, "Hello");
}

TEST(ModelEdit, ReplacesOrInsertsTheModel) {
  const auto rewritten = [](std::string_view body) {
    base::Arena arena;
    Request request;
    RequestParser parser(Api::kCompletions, arena, &request, {.model_required = false});
    parser.Feed(body);
    EXPECT_TRUE(parser.Finish().ok());
    const wire::Edit edit = ModelEdit(request, "a\"b", arena);
    return base::Concat(body.substr(0, edit.begin), edit.bytes.view(), body.substr(edit.end));
  };
  EXPECT_EQ(rewritten(R"({"prompt":"x", "model" : "old" })"),
            R"({"prompt":"x", "model" : "a\"b" })");
  EXPECT_EQ(rewritten(R"( {"prompt":"x"})"), R"( {"model":"a\"b","prompt":"x"})");
  EXPECT_EQ(rewritten(R"({"prompt":"x","model":""})"), R"({"prompt":"x","model":"a\"b"})");
}

TEST(ModelEdit, ANullModelIsReplacedNotDoubled) {
  base::Arena arena;
  Request request;
  RequestParser parser(Api::kCompletions, arena, &request, {.model_required = false});
  const std::string_view body = R"({"prompt":"x","model":null})";
  parser.Feed(body);
  ASSERT_TRUE(parser.Finish().ok());
  EXPECT_FALSE(request.has_model());
  const wire::Edit edit = ModelEdit(request, "m", arena);
  EXPECT_EQ(base::Concat(body.substr(0, edit.begin), edit.bytes.view(), body.substr(edit.end)),
            R"({"prompt":"x","model":"m"})");
}

TEST(InfoOf, EveryApiHasItsRow) {
  std::map<std::string_view, Api> names;
  for (int i = 0; i < kApiCount; ++i) {
    const ApiInfo& info = InfoOf(static_cast<Api>(i));
    EXPECT_EQ(static_cast<int>(info.api), i);
    EXPECT_TRUE(names.emplace(info.name, info.api).second) << info.name;
    EXPECT_EQ(info.family == ApiFamily::kNone, info.api == Api::kOpaque);
  }
  EXPECT_EQ(InfoOf(Api::kResponses).path_suffix, "responses");
  EXPECT_TRUE(InfoOf(Api::kSglangGenerate).exact_path);
  EXPECT_FALSE(InfoOf(Api::kVertexRawPredict).takes_model);
}

// Random chat bodies against nlohmann ------------------------------------------------------------

using Json = nlohmann::ordered_json;

std::string RandomText(base::Random& random) {
  static constexpr std::string_view kBits[] = {"a", "hello ", "\n", "\"", "\\",
                                               "é", "😀",     "{}", "\t", "]"};
  std::string text;
  for (uint64_t i = random.Below(random.Below(5) ? 5 : 60); i > 0; --i) {
    text += kBits[random.Below(std::size(kBits))];
  }
  return text;
}

Json RandomContent(base::Random& random) {
  if (random.Below(8) == 0) return nullptr;
  if (random.Below(2)) return RandomText(random);
  Json parts = Json::array();
  for (uint64_t i = random.Below(4); i > 0; --i) {
    switch (random.Below(4)) {
      case 0:
        parts.push_back({{"type", "image_url"}, {"image_url", {{"url", RandomText(random)}}}});
        break;
      case 1: parts.push_back(RandomText(random)); break;
      default: parts.push_back({{"type", "text"}, {"text", RandomText(random)}}); break;
    }
  }
  return parts;
}

Json RandomChat(base::Random& random) {
  Json messages = Json::array();
  for (uint64_t i = 1 + random.Below(4); i > 0; --i) {
    Json message = {{"role", random.Below(2) ? "user" : "assistant"}};
    if (random.Below(5)) message["content"] = RandomContent(random);
    if (random.Below(4) == 0) message["tool_calls"] = Json::array({{{"id", RandomText(random)}}});
    if (random.Below(4) == 0) message["name"] = RandomText(random);
    messages.push_back(message);
  }
  std::vector<std::pair<std::string, Json>> fields = {{"model", "m" + RandomText(random)},
                                                      {"messages", messages}};
  if (random.Below(2)) fields.push_back({"stream", random.Below(2) == 0});
  if (random.Below(2)) fields.push_back({"max_tokens", random.Below(1000)});
  if (random.Below(3) == 0) fields.push_back({"tools", Json::array({{{"f", RandomText(random)}}})});
  if (random.Below(3) == 0) fields.push_back({"metadata", {{"model", "no"}, {"a", {1, 2, {3}}}}});
  if (random.Below(3) == 0) fields.push_back({"cache_salt", RandomText(random)});
  for (size_t i = fields.size(); i > 1; --i) std::swap(fields[i - 1], fields[random.Below(i)]);
  Json body = Json::object();
  for (const auto& [key, value] : fields) body[key] = value;
  return body;
}

void AddLine(std::vector<std::string>* lines, std::string_view kind, const std::string& text) {
  if (!text.empty()) lines->push_back(base::Concat(kind, "|0|", text));
}

// The pieces of `body`, strings decoded and raw values dumped, found by walking the parsed
// document.
std::vector<std::string> TwinPieces(const Json& body) {
  std::vector<std::string> lines;
  for (const auto& [key, value] : body.items()) {
    if (key == "tools") AddLine(&lines, "tools", value.dump());
    if (key != "messages") continue;
    for (const Json& message : value) {
      for (const auto& [name, field] : message.items()) {
        if (name == "role") AddLine(&lines, "role", field);
        if (name == "tool_calls") AddLine(&lines, "tool_calls", field.dump());
        if (name != "content") continue;
        if (field.is_string()) AddLine(&lines, "text", field);
        if (!field.is_array()) continue;
        for (const Json& part : field) {
          if (part.is_string()) {
            AddLine(&lines, "text", part);
          } else if (part.contains("text")) {
            AddLine(&lines, "text", part["text"]);
          } else {
            AddLine(&lines, "image", part["image_url"]["url"]);
          }
        }
      }
    }
  }
  return lines;
}

std::vector<std::string> DecodedPieces(const Request& request, base::Arena& arena) {
  std::vector<std::string> lines = PieceLines(request);
  for (std::string& line : lines) {
    const size_t at = line.find("|0|") + 3;
    const std::string kind = line.substr(0, at);
    const std::string raw = line.substr(at);
    const bool json = kind.starts_with("tool");
    line = kind + (json ? Json::parse(raw).dump() : std::string(*wire::JsonUnescape(raw, arena)));
  }
  return lines;
}

TEST(RequestRandom, ChatAgreesWithAWalkOverTheParsedDocument) {
  base::Random random(11);
  for (int round = 0; round < 5000; ++round) {
    const Json body = RandomChat(random);
    const std::string text = body.dump(random.Below(2) ? -1 : 2, ' ', random.Below(2));
    base::Arena arena;
    Request request;
    RequestParser parser(Api::kChatCompletions, arena, &request);
    std::vector<std::vector<char>> chunks;
    for (size_t at = 0; at < text.size();) {
      const size_t n = std::min<size_t>(1 + random.Below(round % 2 ? 2000 : 40), text.size() - at);
      chunks.emplace_back(text.begin() + at, text.begin() + at + n);
      at += n;
    }
    for (const auto& chunk : chunks) ASSERT_TRUE(parser.Feed({chunk.data(), chunk.size()}));
    ASSERT_TRUE(parser.Finish().ok()) << text;
    ASSERT_EQ(request.model, body["model"].get<std::string>());
    ASSERT_EQ(
        Json::parse(text.substr(request.model_begin, request.model_end - request.model_begin)),
        body["model"]);
    ASSERT_EQ(request.stream, body.value("stream", false));
    ASSERT_EQ(request.max_output_tokens.value_or(-1), body.value("max_tokens", -1));
    ASSERT_EQ(request.cache_salt, body.value("cache_salt", ""));
    ASSERT_EQ(request.message_count, body["messages"].size());
    ASSERT_EQ(DecodedPieces(request, arena), TwinPieces(body)) << text;
  }
}

TEST(RequestRandom, EveryCutGivesTheSameRequest) {
  base::Random random(12);
  for (int round = 0; round < 60; ++round) {
    std::string body = RandomChat(random).dump();
    if (round % 3 == 0) body[random.Below(body.size())] = "{}[]\",:x0"[random.Below(9)];
    const std::string whole = DescribeRequest(Api::kChatCompletions, body, {});
    for (size_t cut = 0; cut <= body.size(); ++cut) {
      const std::string got = DescribeRequest(Api::kChatCompletions, body, {cut});
      // Where a string holds a control character is told to the part only.
      if (whole.find("malformed JSON string") != std::string::npos) {
        ASSERT_THAT(got, HasSubstr("malformed JSON string"));
      } else {
        ASSERT_EQ(got, whole) << body << " cut at " << cut;
      }
    }
  }
}

}  // namespace
}  // namespace llmd::protocol
