#include "wire/ext_proc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "wire/ext_proc_client.h"

namespace llmd::wire {
namespace {

using base::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using namespace std::literals;

std::string Join(std::span<const base::Slice> slices) {
  std::string out;
  for (const base::Slice& slice : slices) out.append(slice.view());
  return out;
}

// What a picker does with a request: the headers, the body in two DATA frames, the replies.
TEST(ExtProcTest, ARequestAndItsReplies) {
  base::BufferPool pool;
  base::Arena arena;
  ExtProcReader reader(&arena);
  // request_headers { headers { {":path", raw "/v1/x"}, {"a", value "b"} } }
  const std::string headers(
      "\x12\x1a\x0a\x18"
      "\x0a\x0e\x0a\x05:path\x1a\x05/v1/x"
      "\x0a\x06\x0a\x01" "a\x12\x01" "b");
  ASSERT_TRUE(reader.Feed(pool.Copy(headers), true).ok());
  EXPECT_EQ(reader.message().kind, ExtProcKind::kRequestHeaders);
  EXPECT_FALSE(reader.message().end_of_stream);
  EXPECT_THAT(reader.message().headers,
              ElementsAre(ExtProcHeader{":path", "/v1/x"}, ExtProcHeader{"a", "b"}));

  // request_body { body: "hello world" end_of_stream: true }
  ASSERT_TRUE(reader.Feed(pool.Copy("\x22\x0f\x0a\x0bhello"), false).ok());
  ASSERT_TRUE(reader.Feed(pool.Copy(" world\x10\x01"), true).ok());
  EXPECT_EQ(reader.message().kind, ExtProcKind::kRequestBody);
  EXPECT_TRUE(reader.message().end_of_stream);
  std::vector<base::Slice> body;
  reader.TakeBody(&body);
  reader.Clear();
  EXPECT_EQ(body.size(), 2u);
  EXPECT_EQ(Join(body), "hello world");

  ExtProcWriter writer(&pool);
  const ExtProcHeader set[] = {{"x", "10.0.0.1:80"}};
  const base::Slice reply =
      writer.Headers(ExtProcKind::kRequestHeaders,
                     {.set_headers = set, .clear_route_cache = true,
                      .dynamic_metadata = EndpointMetadata("10.0.0.1:80", {}, &arena)});
  EXPECT_EQ(reply.view(),
            "\x0a\x1a\x0a\x18"                                         // request_headers, response
            "\x12\x14\x0a\x12\x0a\x10\x0a\x01x\x1a\x0b" "10.0.0.1:80"  // set_headers
            "\x28\x01"                                                 // clear_route_cache
            "\x42\x41\x0a\x3f\x0a\x08" "envoy.lb\x12\x33\x2a\x31\x0a\x2f"  // dynamic_metadata
            "\x0a\x1ex-gateway-destination-endpoint\x12\x0d\x1a\x0b" "10.0.0.1:80"sv);

  std::vector<base::Slice> out;
  ExtProcChunks chunks(body);
  for (std::vector<base::Slice> chunk; chunks.Next(&chunk);) {
    EXPECT_EQ(writer.Body(ExtProcKind::kRequestBody, chunk, chunks.done(), {}, &out), 23u);
  }
  EXPECT_EQ(Join(out), "\x1a\x15\x0a\x13\x1a\x11\x1a\x0f\x0a\x0bhello world\x10\x01");
}

TEST(ExtProcTest, BodyBytesAreNotCopied) {
  base::BufferPool pool;
  base::Arena arena;
  ExtProcReader reader(&arena);
  const base::Slice piece = pool.Copy("\x22\x07\x0a\x05hello");
  ASSERT_TRUE(reader.Feed(piece, true).ok());
  std::vector<base::Slice> body;
  reader.TakeBody(&body);
  ASSERT_EQ(body.size(), 1u);
  EXPECT_EQ(body[0].data(), piece.data() + 4);
  ExtProcWriter writer(&pool);
  std::vector<base::Slice> out;
  writer.Body(ExtProcKind::kResponseBody, body, false, {}, &out);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[1].data(), piece.data() + 4);
}

TEST(ExtProcTest, HeadersHoldNoReadBuffer) {
  base::BufferPool pool(0);
  base::Arena arena;
  ExtProcReader reader(&arena);
  ASSERT_TRUE(reader
                  .Feed(pool.Copy("\x12\x0a\x0a\x08\x0a\x06\x0a\x01"
                                  "a\x1a\x01"
                                  "b"),
                        true)
                  .ok());
  const std::span<const ExtProcHeader> headers = reader.message().headers;
  reader.Clear();
  EXPECT_EQ(pool.live_bytes(), 0u);
  EXPECT_THAT(headers, ElementsAre(ExtProcHeader{"a", "b"}));
}

TEST(ExtProcTest, AReaderServesAnotherStreamAfterReset) {
  base::BufferPool pool;
  base::Arena first;
  ExtProcReader reader(&first);
  ASSERT_TRUE(reader.Feed(pool.Copy("\x22\x07\x0a\x05he"), false).ok());  // a stream breaks off
  base::Arena second;
  reader.Reset(&second);
  ASSERT_TRUE(reader.Feed(pool.Copy("\x22\x02\x10\x01"), true).ok());
  EXPECT_TRUE(reader.message().end_of_stream);
  EXPECT_EQ(reader.message().body_bytes, 0u);
}

// --- metadata -----------------------------------------------------------------------------------

class ExtProcMetadataTest : public testing::Test {
 protected:
  // A last body message with `spaces` as filter metadata.
  base::Result<ExtProcMetadata> Read(std::span<const StructField> spaces) {
    std::vector<base::Slice> pieces;
    writer_.Body(ExtProcKind::kRequestBody, {}, true, &pieces, {.filter_metadata = spaces});
    EXPECT_TRUE(reader_.Feed(pieces[0], true).ok());
    return reader_.ReadMetadata();
  }
  base::Result<ExtProcMetadata> ReadHint(StructField hint) {
    hint.name = kSubsetKey;
    const StructField spaces[] = {StructField::Struct(kSubsetNamespace, {&hint, 1})};
    return Read(spaces);
  }

  base::BufferPool pool_;
  base::Arena arena_;
  ExtProcReader reader_{&arena_};
  ExtProcClientWriter writer_{&pool_};
};

TEST_F(ExtProcMetadataTest, ASubsetIsAbsentEmptyOrPresent) {
  EXPECT_FALSE(Read({})->has_subset);
  EXPECT_FALSE(ReadHint(StructField::Number("", 1))->has_subset);
  EXPECT_FALSE(ReadHint({})->has_subset);
  const StructField other[] = {StructField::Struct("envoy.lb", {})};
  EXPECT_FALSE(Read(other)->has_subset);

  for (const StructField& empty : {StructField::List("", {}), StructField::String("", ""),
                                   StructField::String("", " , ")}) {
    EXPECT_TRUE(ReadHint(empty)->has_subset);
    EXPECT_TRUE(ReadHint(empty)->subset.empty());
  }
  const StructField list[] = {StructField::String("", "10.0.0.1:8000"), StructField::Number("", 7),
                              StructField::String("", "[fd00::1]:8000")};
  EXPECT_THAT(ReadHint(StructField::List("", list))->subset,
              ElementsAre("10.0.0.1:8000", "[fd00::1]:8000"));
  EXPECT_THAT(ReadHint(StructField::String("", "10.0.0.1:8000, 10.0.0.2:8000,"))->subset,
              ElementsAre("10.0.0.1:8000", "10.0.0.2:8000"));
}

TEST_F(ExtProcMetadataTest, TheServedEndpointAndALaterNamespaceOfTheSameName) {
  const StructField first[] = {StructField::String(kEndpointServedKey, "10.0.0.1:8000")};
  const StructField second[] = {StructField::String(kEndpointServedKey, "10.0.0.2:8000")};
  const StructField spaces[] = {StructField::Struct("envoy.filters.http.jwt_authn", first),
                                StructField::Struct(kEndpointNamespace, first),
                                StructField::Struct(kEndpointNamespace, second)};
  EXPECT_EQ(Read(std::span(spaces).first(1))->served_endpoint, std::nullopt);
  EXPECT_EQ(Read(std::span(spaces).first(2))->served_endpoint, "10.0.0.1:8000");
  EXPECT_EQ(Read(spaces)->served_endpoint, "10.0.0.2:8000");
}

TEST_F(ExtProcMetadataTest, MetadataBeyondItsLimitsIsRefusedAndTheMessageIsNot) {
  StructField deep[kStructDepthMax + 1];
  for (size_t i = 1; i <= kStructDepthMax; ++i)
    deep[i] = StructField::Struct("d", {&deep[i - 1], 1});
  const StructField fits[] = {
      StructField::Struct(kEndpointNamespace, {&deep[kStructDepthMax - 1], 1})};
  EXPECT_TRUE(Read(fits).has_value());
  // One more level than the writer writes either, so by hand: a Struct in the innermost list.
  base::BufferPool pool;
  ProtoWriter out(&pool);
  for (size_t i = 0; i <= kStructDepthMax; ++i) {
    out.Wrap(5, 0);
    out.Wrap(2, 0);
    out.Wrap(1, 0);
  }
  const auto nested = ReadStruct(out.Take().view(), &arena_);
  ASSERT_FALSE(nested.has_value());
  EXPECT_EQ(nested.error().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(nested.error().message(), HasSubstr("24 levels"));

  const std::vector<StructField> many(kStructFieldsMax, StructField::String("", "e"));
  const auto wide = ReadHint(StructField::List("", many));
  ASSERT_FALSE(wide.has_value());
  EXPECT_THAT(wide.error().message(), HasSubstr("32768 fields"));
  const std::string large(kExtProcMetadataBytesMax, 'e');
  const auto long_text = ReadHint(StructField::String("", large));
  ASSERT_FALSE(long_text.has_value());
  EXPECT_EQ(long_text.error().code(), StatusCode::kResourceExhausted);
}

// --- bad input ----------------------------------------------------------------------------------

TEST(ExtProcTest, MalformedMessagesAreRefusedWithTheirPlace) {
  struct Case {
    std::string bytes;
    std::string message;
  };
  const Case cases[] = {
      {"\x22\x05\x0a", "malformed ProcessingRequest: a field ends behind"},
      {"\x22\x02\x0a\x05", "malformed ProcessingRequest.request_body: a field ends behind"},
      {"\x20\x01", "malformed ProcessingRequest: a known field has the wire type of another"},
      {"\x22\x02\x08\x01", "malformed ProcessingRequest.request_body: a known field"},
      {"\x12\x02\x08\x01", "malformed ProcessingRequest.request_headers: a known field"},
      {"\x1a\x04\x0a\x02\x08\x01", "malformed ProcessingRequest.response_headers: a known field"},
      {"\x32\x06\x0a\x04\x0a\x02\x08\x01", "ProcessingRequest.request_trailers: a known field"},
      {"\x5a\x02\x0a\x00"s, "malformed ProcessingRequest.protocol_config: a known field"},
      {"\x23\x24", "a tag has a field number or wire type that does not exist"},
      {"\x22\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a varint has too many bytes"},
  };
  base::BufferPool pool;
  base::Arena arena;
  ExtProcReader reader(&arena);
  for (const Case& c : cases) {
    const base::Status status = reader.Feed(pool.Copy(c.bytes), true);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << c.message;
    EXPECT_THAT(status.message(), HasSubstr(c.message));
    EXPECT_EQ(reader.message().kind, ExtProcKind::kNone);
  }
  // The reader goes on with the next message.
  EXPECT_TRUE(reader.Feed(pool.Copy("\x22\x02\x10\x01"), true).ok());
  EXPECT_EQ(reader.message().kind, ExtProcKind::kRequestBody);
}

TEST(ExtProcTest, HeadersAreBoundedInNumberAndBytes) {
  base::BufferPool pool;
  base::Arena arena;
  ExtProcReader reader(&arena);
  ExtProcClientWriter writer(&pool);
  std::vector<ExtProcHeader> headers(kExtProcHeadersMax, {"name", "value"});
  const auto feed = [&] {
    return reader.Feed(writer.Headers(ExtProcKind::kRequestHeaders, headers, false), true);
  };
  ASSERT_TRUE(feed().ok());
  EXPECT_EQ(reader.message().headers.size(), kExtProcHeadersMax);
  headers.push_back({"one", "more"});
  base::Status status = feed();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("request_headers has more than 1024 headers"));

  const std::string large(kExtProcHeaderBytesMax - 14, 'x');
  headers = {{"name", large}};
  EXPECT_TRUE(feed().ok());
  const std::string larger = large + "x";
  headers = {{"name", larger}};
  status = feed();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("bytes of at most 262144"));
}

TEST(ExtProcTest, AMessageInTooManyPiecesIsRefused) {
  base::BufferPool pool;
  base::Arena arena;
  ExtProcReader reader(&arena);
  const base::Slice byte = pool.Copy("\x22");
  base::Status status;
  size_t fed = 0;
  for (; status.ok() && fed < 10'000; ++fed) status = reader.Feed(byte, false);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("pieces"));
  EXPECT_NEAR(static_cast<double>(fed), MessagePieces::kPiecesMax, 10);
  // Large pieces are another matter, and empty ones are none.
  for (size_t i = 0; i < 5000; ++i) ASSERT_TRUE(reader.Feed({}, false).ok());
}

// --- chunks and replies -------------------------------------------------------------------------

TEST(ExtProcTest, BodiesAreCutIntoChunks) {
  base::BufferPool pool;
  struct Case {
    std::vector<size_t> slices;
    std::vector<size_t> chunks;
  };
  const size_t max = kExtProcChunkBytesMax;
  const Case cases[] = {
      {{}, {0}},
      {{0, 0}, {0}},
      {{5}, {5}},
      {{max}, {max}},
      {{max, 0}, {max}},
      {{max + 1}, {max, 1}},
      {{30'000, 32'000, 1}, {max, 1}},
      {{0, 200'000, 0}, {max, max, max, 14'000}},
      {{1, 2 * max, 1}, {max, max, 2}},
  };
  for (const Case& c : cases) {
    std::vector<base::Slice> body;
    std::string whole;
    for (const size_t bytes : c.slices) {
      body.push_back(pool.Copy(std::string(bytes, static_cast<char>('a' + body.size()))));
      whole.append(body.back().view());
    }
    std::vector<size_t> sizes;
    std::string joined;
    ExtProcChunks chunks(body);
    for (std::vector<base::Slice> chunk; chunks.Next(&chunk);) {
      const std::string bytes = Join(chunk);
      sizes.push_back(bytes.size());
      joined += bytes;
      EXPECT_EQ(chunks.done(), sizes.size() == c.chunks.size());
    }
    EXPECT_EQ(sizes, c.chunks);
    EXPECT_TRUE(joined == whole);
  }
}

TEST(ExtProcTest, GoldenReplies) {
  base::BufferPool pool;
  base::Arena arena;
  ExtProcWriter writer(&pool);
  EXPECT_EQ(writer.Trailers(ExtProcKind::kRequestTrailers).view(), "\x2a\x00"s);
  EXPECT_EQ(writer.Trailers(ExtProcKind::kResponseTrailers).view(), "\x32\x00"s);
  // The empty chunk that ends a body.
  std::vector<base::Slice> out;
  EXPECT_EQ(writer.Body(ExtProcKind::kResponseBody, {}, true, {}, &out), 10u);
  EXPECT_EQ(Join(out), "\x22\x08\x0a\x06\x1a\x04\x1a\x02\x10\x01");
  // Headers replies that change nothing and that remove one.
  EXPECT_EQ(writer.Headers(ExtProcKind::kResponseHeaders, {}).view(), "\x12\x02\x0a\x00"s);
  const std::string_view remove[] = {"gone"};
  EXPECT_EQ(writer.Headers(ExtProcKind::kRequestHeaders, {.remove_headers = remove}).view(),
            "\x0a\x0a\x0a\x08\x12\x06\x12\x04gone");
  const ExtProcHeader headers[] = {{"a", "b"}};
  EXPECT_EQ(writer.Immediate({.status = 429, .headers = headers, .body = "no", .grpc_status = 8,
                              .details = "d"}).view(),
            "\x3a\x1c\x0a\x03\x08\xad\x03\x12\x0a\x0a\x08\x0a\x06\x0a\x01" "a\x1a\x01" "b"
            "\x1a\x02no\x22\x02\x08\x08\x2a\x01" "d");
}

TEST(ExtProcTest, ScoresAndNumbersInDynamicMetadata) {
  base::BufferPool pool;
  base::Arena arena;
  ExtProcWriter writer(&pool);
  const StructField scores[] = {StructField::Number("10.0.0.1:8000", 0.75),
                                StructField::Number("10.0.0.2:8000", 0.5)};
  ExtProcReplyReader reader(&arena);
  const base::Slice reply = writer.Headers(
      ExtProcKind::kRequestHeaders,
      {.dynamic_metadata = EndpointMetadata("10.0.0.1:8000,10.0.0.2:8000", scores, &arena)});
  ASSERT_TRUE(reader.Feed(reply, true).ok());
  const StructField* const space = FindField(reader.reply().dynamic_metadata, kEndpointNamespace);
  ASSERT_NE(space, nullptr);
  EXPECT_EQ(FindField(space->fields, kEndpointKey)->text, "10.0.0.1:8000,10.0.0.2:8000");
  const StructField* const read = FindField(space->fields, kEndpointScoresKey);
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(FindField(read->fields, "10.0.0.2:8000")->number, 0.5);

  // The end of a response, with what it cost.
  const StructField usage[] = {StructField::Number("tokens", 42)};
  const StructField spaces[] = {StructField::Struct("example.billing", usage)};
  std::vector<base::Slice> out;
  writer.Body(ExtProcKind::kResponseBody, {}, true, spaces, &out);
  ASSERT_TRUE(reader.Feed(pool.Copy(Join(out)), true).ok());
  EXPECT_TRUE(reader.reply().end_of_stream);
  EXPECT_EQ(FindField(reader.reply().dynamic_metadata[0].fields, "tokens")->number, 42);
}

TEST(ExtProcTest, ALaterReplyNeverChangesAnEarlierOne) {
  base::BufferPool pool;
  ExtProcWriter writer(&pool);
  std::vector<std::string> expected;
  std::vector<base::Slice> replies;
  for (int i = 0; i < 2000; ++i) {
    const std::string value(static_cast<size_t>(i % 97), static_cast<char>('a' + i % 26));
    const ExtProcHeader headers[] = {{"n", value}};
    replies.push_back(writer.Headers(ExtProcKind::kRequestHeaders, {.set_headers = headers}));
    expected.emplace_back(replies.back().view());
  }
  for (size_t i = 0; i < replies.size(); ++i) ASSERT_EQ(replies[i].view(), expected[i]);
}

}  // namespace
}  // namespace llmd::wire
