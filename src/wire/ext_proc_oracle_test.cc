// The codec beside the protobuf library: random messages, cut at random places, both directions.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/random.h"
#include "wire/ext_proc_oracle_testing.h"

namespace llmd::wire {
namespace {

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}

  bool Coin(uint64_t one_in) { return random_.Below(one_in) == 0; }
  uint64_t Below(uint64_t n) { return random_.Below(n); }
  std::string Bytes(size_t length_max, uint64_t alphabet = 256) {
    std::string out(Below(length_max + 1), 0);
    for (char& c : out) c = static_cast<char>(alphabet == 26 ? 'a' + Below(26) : Below(alphabet));
    return out;
  }
  std::string Word() { return Bytes(20, 26); }
  std::vector<size_t> Cuts(size_t size) {
    std::vector<size_t> cuts(Below(6));
    for (size_t& cut : cuts) cut = Below(size + 1);
    std::sort(cuts.begin(), cuts.end());
    return cuts;
  }

  google::protobuf::Value Value(int depth) {
    google::protobuf::Value out;
    switch (Below(depth > 0 ? 6 : 4)) {
      case 0: out.set_null_value(google::protobuf::NULL_VALUE); break;
      case 1: out.set_number_value(random_.Uniform() * 1000 - 500); break;
      case 2: out.set_string_value(Word()); break;
      case 3: out.set_bool_value(Coin(2)); break;
      case 4: *out.mutable_struct_value() = Struct(depth - 1); break;
      case 5:
        out.mutable_list_value();
        for (uint64_t i = Below(4); i > 0; --i) {
          *out.mutable_list_value()->add_values() = Value(depth - 1);
        }
        break;
    }
    return out;
  }
  google::protobuf::Struct Struct(int depth) {
    google::protobuf::Struct out;
    for (uint64_t i = Below(4); i > 0; --i) (*out.mutable_fields())[Word()] = Value(depth);
    return out;
  }

  void Headers(envoy::config::core::v3::HeaderMap* map) {
    for (uint64_t i = Below(40); i > 0; --i) {
      auto* header = map->add_headers();
      header->set_key(Word());
      if (!Coin(3)) header->set_raw_value(Bytes(150));
      if (Coin(3)) header->set_value(Word());
    }
  }
  void Metadata(envoy::config::core::v3::Metadata* metadata) {
    auto& spaces = *metadata->mutable_filter_metadata();
    for (uint64_t i = Below(3); i > 0; --i) spaces[Word()] = Struct(3);
    if (Coin(2)) {
      google::protobuf::Struct& space = spaces["envoy.lb.subset_hint"] = Struct(1);
      google::protobuf::Value& hint = (*space.mutable_fields())[std::string(kSubsetKey)];
      if (Coin(3)) {
        hint = Value(2);
      } else if (Coin(2)) {
        hint.mutable_list_value();
        for (uint64_t i = Below(5); i > 0; --i) {
          hint.mutable_list_value()->add_values()->set_string_value(Word() + ":80");
        }
      } else {
        hint.set_string_value(Word() + " , ," + Word());
      }
    }
    if (Coin(2)) {
      google::protobuf::Struct& space = spaces["envoy.lb"] = Struct(1);
      (*space.mutable_fields())[std::string(kEndpointServedKey)] = Value(1);
    }
  }

  pb::ProcessingRequest Request() {
    pb::ProcessingRequest out;
    const auto body = [&](pb::HttpBody* body) {
      body->set_body(Bytes(Coin(10) ? 40'000 : 300));
      body->set_end_of_stream(Coin(2));
    };
    const auto headers = [&](pb::HttpHeaders* headers) {
      Headers(headers->mutable_headers());
      headers->set_end_of_stream(Coin(2));
    };
    switch (Below(7)) {
      case 0: headers(out.mutable_request_headers()); break;
      case 1: headers(out.mutable_response_headers()); break;
      case 2: body(out.mutable_request_body()); break;
      case 3: body(out.mutable_response_body()); break;
      case 4: Headers(out.mutable_request_trailers()->mutable_trailers()); break;
      case 5: Headers(out.mutable_response_trailers()->mutable_trailers()); break;
      default: break;
    }
    if (Coin(2)) Metadata(out.mutable_metadata_context());
    if (Coin(3)) (*out.mutable_attributes())["envoy.filters.http.ext_proc"] = Struct(3);
    out.set_observability_mode(Coin(4));
    using Mode = envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
    if (Coin(3)) {
      out.mutable_protocol_config()->set_request_body_mode(
          static_cast<Mode::BodySendMode>(Below(7)));
      out.mutable_protocol_config()->set_response_body_mode(
          static_cast<Mode::BodySendMode>(Below(7)));
    }
    if (Coin(3)) {
      auto* unknown = out.GetReflection()->MutableUnknownFields(&out);
      unknown->AddVarint(100, Below(~uint64_t{0}));
      unknown->AddFixed64(101, 1);
      unknown->AddFixed32(102, 2);
      unknown->AddLengthDelimited(static_cast<int>(Below(1u << 28)) + 200, Bytes(20));
    }
    return out;
  }

 private:
  base::Random random_;
};

TEST(ExtProcOracleTest, RequestsFromTheLibraryAreReadAlike) {
  base::BufferPool pool;
  for (uint64_t seed = 1; seed <= 3000; ++seed) {
    Generator generate(seed);
    base::Arena arena;
    ExtProcReader reader(&arena);
    const pb::ProcessingRequest request = generate.Request();
    const std::string bytes = request.SerializeAsString();
    const base::Status status = FeedCut(bytes, generate.Cuts(bytes.size()), &pool, &reader);
    ASSERT_TRUE(status.ok()) << "seed " << seed << ": " << status.ToString();
    ASSERT_EQ(Text(reader), Text(request)) << "seed " << seed;
  }
}

TEST(ExtProcOracleTest, EveryBorderCutsAlike) {
  base::BufferPool pool;
  base::Arena arena;
  ExtProcReader reader(&arena);
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Generator generate(seed);
    pb::ProcessingRequest request;
    do request = generate.Request();
    while (request.ByteSizeLong() > 400);
    const std::string bytes = request.SerializeAsString();
    const std::string expected = Text(request);
    std::vector<size_t> all;
    for (size_t cut = 0; cut <= bytes.size(); ++cut) {
      ASSERT_TRUE(FeedCut(bytes, {cut}, &pool, &reader).ok()) << "seed " << seed << " at " << cut;
      ASSERT_EQ(Text(reader), expected) << "seed " << seed << " at " << cut;
      all.push_back(cut);
    }
    ASSERT_TRUE(FeedCut(bytes, all, &pool, &reader).ok());
    ASSERT_EQ(Text(reader), expected) << "seed " << seed << " in single bytes";
  }
}

// Two messages one behind the other are one whose fields were sent twice: the last member of the
// oneof counts, the same member twice is merged.
TEST(ExtProcOracleTest, RepeatedFieldsAreMergedAlike) {
  base::BufferPool pool;
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    Generator generate(seed);
    base::Arena arena;
    ExtProcReader reader(&arena);
    const std::string bytes =
        generate.Request().SerializeAsString() + generate.Request().SerializeAsString();
    pb::ProcessingRequest request;
    ASSERT_TRUE(request.ParseFromString(bytes));
    ASSERT_TRUE(FeedCut(bytes, generate.Cuts(bytes.size()), &pool, &reader).ok());
    ASSERT_EQ(Text(reader), Text(request)) << "seed " << seed;
  }
}

// What Envoy itself sent (conformance/recorded/ext_proc/ORIGIN.md).
TEST(ExtProcOracleTest, RecordedMessagesOfEnvoyAreReadAlike) {
  base::BufferPool pool;
  size_t messages = 0;
  for (const auto& file :
       std::filesystem::directory_iterator(LLMD_SOURCE_DIR "/conformance/recorded/ext_proc")) {
    if (file.path().extension() != ".bin") continue;
    const std::string name = file.path().stem();
    SCOPED_TRACE(name);
    ++messages;
    std::ifstream in(file.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    pb::ProcessingRequest request;
    ASSERT_TRUE(request.ParseFromString(bytes));
    base::Arena arena;
    ExtProcReader reader(&arena);
    for (size_t cut = 0; cut <= bytes.size(); cut += 1 + bytes.size() / 500) {
      ASSERT_TRUE(FeedCut(bytes, {cut}, &pool, &reader).ok());
      ASSERT_EQ(Text(reader), Text(request));
    }
    const ExtProcMessage& message = reader.message();
    EXPECT_TRUE(name.find(ExtProcKindName(message.kind)) != name.npos);
    EXPECT_EQ(message.end_of_stream, name.starts_with("get") || name.ends_with("end"));
    EXPECT_EQ(message.has_protocol_config, message.kind == ExtProcKind::kRequestHeaders);
    if (message.has_protocol_config) {
      EXPECT_EQ(message.response_body_mode, ExtProcBodyMode::kFullDuplexStreamed);
    }
    const base::Result<ExtProcMetadata> metadata = reader.ReadMetadata();
    EXPECT_EQ(SubsetText(metadata->has_subset, metadata->subset),
              "subset 127.0.0.1:8000 [::1]:8000\n");
    EXPECT_EQ(metadata->served_endpoint, "127.0.0.1:8000");
  }
  EXPECT_EQ(messages, 9u);
}

// --- replies ------------------------------------------------------------------------------------

// Random texts with the storage that a tree of views needs.
class ReplyInputs {
 public:
  explicit ReplyInputs(Generator* generate) : generate_(*generate) {}

  std::span<const ExtProcHeader> Headers() {
    const auto headers = arena_.NewSpan<ExtProcHeader>(generate_.Below(30));
    for (ExtProcHeader& header : headers) header = {Word(), Copy(generate_.Bytes(200))};
    return headers;
  }
  std::span<const std::string_view> Names() {
    const auto names = arena_.NewSpan<std::string_view>(generate_.Below(4));
    for (std::string_view& name : names) name = Word();
    return names;
  }
  std::span<const StructField> Fields(int depth) {
    const auto fields = arena_.NewSpan<StructField>(generate_.Below(4));
    for (StructField& field : fields) field = Field(depth);
    return fields;
  }
  std::span<const base::Slice> Body(base::BufferPool* pool) {
    body_.resize(generate_.Below(4));
    for (base::Slice& slice : body_) slice = pool->Copy(generate_.Bytes(500));
    return body_;
  }
  std::string_view Word() { return Copy(generate_.Word()); }
  std::string_view Copy(std::string_view text) { return arena_.Copy(text); }
  base::Arena* arena() { return &arena_; }

 private:
  StructField Field(int depth) {
    const std::string_view name = Word();
    switch (generate_.Below(depth > 0 ? 6 : 4)) {
      case 0: return {.name = name};
      case 1: return StructField::Number(name, static_cast<double>(generate_.Below(1000)) / 8);
      case 2: return StructField::String(name, Word());
      case 3: return StructField::Bool(name, generate_.Coin(2));
      case 4: return StructField::Struct(name, Fields(depth - 1));
      default: return StructField::List(name, Fields(depth - 1));
    }
  }

  Generator& generate_;
  base::Arena arena_;
  std::vector<base::Slice> body_;
};

void FillHeaders(std::span<const ExtProcHeader> set, std::span<const std::string_view> remove,
                 pb::HeaderMutation* mutation) {
  for (const ExtProcHeader& header : set) {
    auto* out = mutation->add_set_headers()->mutable_header();
    out->set_key(std::string(header.name));
    out->set_raw_value(std::string(header.value));
  }
  for (const std::string_view name : remove) mutation->add_remove_headers(std::string(name));
}

// Same bytes, field for field, and our own reader agrees with the library's view of them.
void ExpectReply(const std::string& bytes, pb::ProcessingResponse expected,
                 std::span<const StructField> metadata, Generator* generate,
                 base::BufferPool* pool) {
  pb::ProcessingResponse parsed;
  ASSERT_TRUE(parsed.ParseFromString(bytes));
  EXPECT_EQ(Text(parsed.dynamic_metadata()), Text(metadata));
  EXPECT_EQ(parsed.has_dynamic_metadata(), !metadata.empty());
  base::Arena arena;
  ExtProcReplyReader reader(&arena);
  const base::Status status = FeedCut(bytes, generate->Cuts(bytes.size()), pool, &reader);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(Text(reader), Text(parsed));
  parsed.clear_dynamic_metadata();
  EXPECT_EQ(parsed.SerializeAsString(), expected.SerializeAsString());
  // Without the map, whose order the library does not keep, the bytes are the library's own.
  if (metadata.empty()) EXPECT_TRUE(bytes == expected.SerializeAsString());
}

TEST(ExtProcOracleTest, HeadersRepliesAreTheLibrarys) {
  base::BufferPool pool;
  ExtProcWriter writer(&pool);
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE(seed);
    Generator generate(seed);
    ReplyInputs inputs(&generate);
    const bool is_request = generate.Coin(2);
    const ExtProcHeadersReply reply = {.set_headers = inputs.Headers(),
                                       .remove_headers = inputs.Names(),
                                       .clear_route_cache = generate.Coin(2),
                                       .dynamic_metadata = inputs.Fields(3)};
    pb::ProcessingResponse expected;
    pb::CommonResponse* const common =
        (is_request ? expected.mutable_request_headers() : expected.mutable_response_headers())
            ->mutable_response();
    common->set_clear_route_cache(reply.clear_route_cache);
    if (!reply.set_headers.empty() || !reply.remove_headers.empty()) {
      FillHeaders(reply.set_headers, reply.remove_headers, common->mutable_header_mutation());
    }
    const base::Slice message = writer.Headers(
        is_request ? ExtProcKind::kRequestHeaders : ExtProcKind::kResponseHeaders, reply);
    ExpectReply(std::string(message.view()), expected, reply.dynamic_metadata, &generate, &pool);
  }
}

TEST(ExtProcOracleTest, BodyRepliesAreTheLibrarys) {
  base::BufferPool pool;
  ExtProcWriter writer(&pool);
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE(seed);
    Generator generate(seed);
    ReplyInputs inputs(&generate);
    const bool is_request = generate.Coin(2);
    const std::span<const base::Slice> body = inputs.Body(&pool);
    const bool end_of_stream = generate.Coin(2);
    const std::span<const StructField> metadata = inputs.Fields(2);
    pb::ProcessingResponse expected;
    pb::StreamedBodyResponse* const streamed =
        (is_request ? expected.mutable_request_body() : expected.mutable_response_body())
            ->mutable_response()
            ->mutable_body_mutation()
            ->mutable_streamed_response();
    streamed->set_body(Flat(body));
    streamed->set_end_of_stream(end_of_stream);
    std::vector<base::Slice> out;
    const uint64_t bytes =
        writer.Body(is_request ? ExtProcKind::kRequestBody : ExtProcKind::kResponseBody, body,
                    end_of_stream, metadata, &out);
    EXPECT_EQ(bytes, Flat(out).size());
    ExpectReply(Flat(out), expected, metadata, &generate, &pool);
  }
}

TEST(ExtProcOracleTest, ImmediateAndTrailersRepliesAreTheLibrarys) {
  base::BufferPool pool;
  ExtProcWriter writer(&pool);
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Generator generate(seed);
    ReplyInputs inputs(&generate);
    ExtProcImmediateReply reply = {.status = generate.Coin(2) ? 429 : 503,
                                   .headers = inputs.Headers(),
                                   .body = inputs.Copy(generate.Bytes(12'000)),
                                   .details = inputs.Word()};
    if (generate.Coin(2)) reply.grpc_status = generate.Below(17);
    pb::ProcessingResponse expected;
    pb::ImmediateResponse* const immediate = expected.mutable_immediate_response();
    immediate->mutable_status()->set_code(static_cast<envoy::type::v3::StatusCode>(reply.status));
    if (!reply.headers.empty()) FillHeaders(reply.headers, {}, immediate->mutable_headers());
    immediate->set_body(std::string(reply.body));
    immediate->set_details(std::string(reply.details));
    if (reply.grpc_status) immediate->mutable_grpc_status()->set_status(*reply.grpc_status);
    ExpectReply(std::string(writer.Immediate(reply).view()), expected, {}, &generate, &pool);
  }
  Generator generate(1);
  pb::ProcessingResponse expected;
  expected.mutable_request_trailers();
  ExpectReply(std::string(writer.Trailers(ExtProcKind::kRequestTrailers).view()), expected, {},
              &generate, &pool);
  expected.mutable_response_trailers();
  ExpectReply(std::string(writer.Trailers(ExtProcKind::kResponseTrailers).view()), expected, {},
              &generate, &pool);
}

// --- requests of our own ------------------------------------------------------------------------

TEST(ExtProcOracleTest, RequestsOfOurOwnAreTheLibrarys) {
  base::BufferPool pool;
  ExtProcClientWriter writer(&pool);
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    SCOPED_TRACE(seed);
    Generator generate(seed);
    ReplyInputs inputs(&generate);
    const StructField spaces[] = {StructField::Struct("envoy.lb.subset_hint", inputs.Fields(2)),
                                  StructField::Struct("envoy.lb", inputs.Fields(2))};
    const ExtProcContext context = {
        .filter_metadata = std::span(spaces).first(generate.Below(3)),
        .observability_mode = generate.Coin(2),
        .has_protocol_config = generate.Coin(2),
        .request_body_mode = static_cast<ExtProcBodyMode>(generate.Below(6)),
        .response_body_mode = static_cast<ExtProcBodyMode>(generate.Below(6))};
    const auto kind = static_cast<ExtProcKind>(2 + generate.Below(6));
    const bool end_of_stream = generate.Coin(2);
    const std::span<const ExtProcHeader> headers = inputs.Headers();
    std::vector<base::Slice> out;
    switch (kind) {
      case ExtProcKind::kRequestHeaders: case ExtProcKind::kResponseHeaders:
        out.push_back(writer.Headers(kind, headers, end_of_stream, context));
        break;
      case ExtProcKind::kRequestBody: case ExtProcKind::kResponseBody:
        EXPECT_EQ(writer.Body(kind, inputs.Body(&pool), end_of_stream, &out, context),
                  Flat(out).size());
        break;
      default: out.push_back(writer.Trailers(kind, headers, context));
    }
    const std::string bytes = Flat(out);
    pb::ProcessingRequest parsed;
    ASSERT_TRUE(parsed.ParseFromString(bytes));
    EXPECT_EQ(static_cast<int>(parsed.request_case()), static_cast<int>(kind));
    EXPECT_EQ(parsed.protocol_config().request_body_mode(),
              context.has_protocol_config ? static_cast<int>(context.request_body_mode) : 0);
    ASSERT_EQ(parsed.metadata_context().filter_metadata_size(),
              static_cast<int>(context.filter_metadata.size()));
    for (const StructField& space : context.filter_metadata) {
      EXPECT_EQ(Text(parsed.metadata_context().filter_metadata().at(std::string(space.name))),
                Text(space.fields));
    }
    base::Arena arena;
    ExtProcReader reader(&arena);
    ASSERT_TRUE(FeedCut(bytes, generate.Cuts(bytes.size()), &pool, &reader).ok());
    EXPECT_EQ(Text(reader), Text(parsed));
  }
}

}  // namespace
}  // namespace llmd::wire
