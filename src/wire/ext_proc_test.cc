#include "wire/ext_proc.h"

#include <gtest/gtest.h>

#include <string>

namespace llmd::wire {
namespace {

std::string Flat(std::span<const base::Slice> slices) {
  std::string out;
  for (const base::Slice& slice : slices) out.append(slice.view());
  return out;
}

// What a picker does with a request: the headers, the body in two DATA frames, the replies.
TEST(ExtProcTest, ARequestAndItsReplies) {
  base::BufferPool pool;
  base::Arena arena;
  ExtProcReader reader(&arena);
  // request_headers { headers { {":path", raw "/v1"}, {"a", value "b"} } }
  const std::string headers(
      "\x12\x1a\x0a\x18"
      "\x0a\x0e\x0a\x05:path\x1a\x05/v1/x"
      "\x0a\x06\x0a\x01" "a\x12\x01" "b");
  ASSERT_TRUE(reader.Feed(pool.Copy(headers), true).ok());
  EXPECT_EQ(reader.message().kind, ExtProcKind::kRequestHeaders);
  ASSERT_EQ(reader.message().headers.size(), 2u);
  EXPECT_EQ(reader.message().headers[0], (ExtProcHeader{":path", "/v1/x"}));
  EXPECT_EQ(reader.message().headers[1], (ExtProcHeader{"a", "b"}));

  // request_body { body: "hello world" end_of_stream: true }
  ASSERT_TRUE(reader.Feed(pool.Copy("\x22\x0f\x0a\x0bhello"), false).ok());
  ASSERT_TRUE(reader.Feed(pool.Copy(" world\x10\x01"), true).ok());
  EXPECT_EQ(reader.message().kind, ExtProcKind::kRequestBody);
  EXPECT_TRUE(reader.message().end_of_stream);
  std::vector<base::Slice> body;
  reader.TakeBody(&body);
  reader.Clear();
  EXPECT_EQ(body.size(), 2u);
  EXPECT_EQ(Flat(body), "hello world");

  ExtProcWriter writer(&pool);
  const ExtProcHeader set[] = {{kEndpointKey, "10.0.0.1:8000"}};
  const base::Slice reply = writer.Headers(
      ExtProcKind::kRequestHeaders,
      {.set_headers = set, .clear_route_cache = true,
       .dynamic_metadata = EndpointMetadata("10.0.0.1:8000", {}, &arena)});
  EXPECT_GT(reply.size(), 60u);

  std::vector<base::Slice> out;
  ExtProcChunks chunks(body);
  for (std::vector<base::Slice> chunk; chunks.Next(&chunk);) {
    EXPECT_EQ(writer.Body(ExtProcKind::kRequestBody, chunk, chunks.done(), {}, &out), 23u);
  }
  EXPECT_EQ(Flat(out), "\x1a\x15\x0a\x13\x1a\x11\x1a\x0f\x0a\x0bhello world\x10\x01");
}

}  // namespace
}  // namespace llmd::wire
