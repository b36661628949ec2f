#include "wire/otlp.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace llmd::wire {
namespace {

// The fields of a message as text: "1:abc 6:3".
std::string Fields(std::string_view message) {
  std::string text;
  ProtoReader in(message);
  for (ProtoField f; in.Next(&f);) {
    if (!text.empty()) text += ' ';
    text += std::to_string(f.number);
    if (f.wire != ProtoWire::kBytes) {
      text += ":" + std::to_string(f.value);
    } else {
      text += ":" + std::string(f.bytes);
    }
  }
  EXPECT_EQ(in.error(), ProtoError::kNone);
  return text;
}

// The one span of a list.
std::string_view Only(std::string_view list) {
  ProtoReader in(list);
  ProtoField span, more;
  EXPECT_TRUE(in.Next(&span));
  EXPECT_EQ(span.number, 2u) << "an entry of ScopeSpans.spans";
  EXPECT_FALSE(in.Next(&more));
  return span.bytes;
}

std::string Written(const OtlpSpan& span) {
  base::BufferPool pool;
  ProtoWriter out(&pool);
  WriteOtlpSpan(span, &out);
  return std::string(out.Take().view());
}

// The tour: a span with one attribute of each kind, field by field.
TEST(Otlp, ASpanFieldByField) {
  const std::string_view names[] = {"a", "b"};
  const double scores[] = {0.0};
  const OtlpAttribute attributes[] = {{"text", std::string_view("v")},
                                      {"count", int64_t{7}},
                                      {"names", std::span<const std::string_view>(names)},
                                      {"scores", std::span<const double>(scores)}};
  const OtlpSpan span{.trace_high = 0x4141414141414141,
                      .trace_low = 0x4242424242424242,
                      .span_id = 0x4343434343434343,
                      .parent_id = 0x4444444444444444,
                      .trace_state = "k=v",
                      .name = "gateway.request",
                      .kind = OtlpKind::kServer,
                      .start_unix_ns = 1000,
                      .end_unix_ns = 2000,
                      .attributes = attributes,
                      .failed = true,
                      .error = "no"};
  const std::string bytes = Written(span);
  EXPECT_EQ(Fields(Only(bytes)),
            "1:AAAAAAAABBBBBBBB 2:CCCCCCCC 3:k=v 4:DDDDDDDD 5:gateway.request 6:2 7:1000 8:2000 "
            "9:\x0a\x04text\x12\x03\x0a\x01v "
            "9:\x0a\x05" "count\x12\x02\x18\x07 "
            "9:\x0a\x05names\x12\x0c\x2a\x0a\x0a\x03\x0a\x01" "a\x0a\x03\x0a\x01" "b "
            + std::string("9:\x0a\x06scores\x12\x0d\x2a\x0b\x0a\x09\x21\0\0\0\0\0\0\0\0", 25)
            + " 15:\x12\x02no\x18\x02");
}

TEST(Otlp, ARootHasNoParentAndASuccessNoStatus) {
  const std::string bytes = Written({.trace_high = 1, .span_id = 1, .name = "n"});
  const std::string text = Fields(Only(bytes));
  EXPECT_EQ(text.find(" 4:"), std::string::npos);
  EXPECT_EQ(text.find(" 15"), std::string::npos);
}

// A collector refuses a request with one string that is not UTF-8.
TEST(Otlp, TextIsMadeValid) {
  const std::string long_text(kOtlpTextBytesMax - 1, 'x');
  const struct {
    std::string_view given, written;
  } cases[] = {
      {"plain", "plain"},
      {"gr\xc3\xbc\xc3\x9f \xe6\x97\xa5 \xf0\x9f\x98\x80", "gr\xc3\xbc\xc3\x9f \xe6\x97\xa5 "
                                                           "\xf0\x9f\x98\x80"},
      {"a\xff" "b", "a?b"},
      {"\xc0\xaf", "??"},                  // overlong
      {"\xe0\x80\xaf", "???"},             // overlong
      {"\xed\xa0\x80", "???"},             // a surrogate
      {"\xf4\x90\x80\x80", "????"},        // beyond U+10FFFF
      {"\xf5\x80", "??"},
      {"cut \xe6\x97", "cut ??"},
  };
  for (const auto& c : cases) {
    const std::string bytes = Written({.trace_high = 1, .span_id = 1, .name = c.given});
    EXPECT_NE(Fields(Only(bytes)).find("5:" + std::string(c.written) + " 6:"), std::string::npos)
        << Fields(Only(bytes));
  }
  const std::string cut = Written({.trace_high = 1, .span_id = 1, .name = long_text + "\xc3\xbc"});
  EXPECT_NE(Fields(Only(cut)).find("5:" + long_text + " 6:"), std::string::npos)
      << "cut before the character that no longer fits";
}

TEST(Otlp, ARequestAroundSpans) {
  base::BufferPool pool;
  ProtoWriter out(&pool);
  const std::string spans = Written({.trace_high = 1, .span_id = 1, .name = "one"}) +
                            Written({.trace_high = 1, .span_id = 2, .name = "two"});
  const OtlpAttribute resource[] = {{"service.name", std::string_view("epp")}};
  const base::Slice head = OtlpTraceRequestHead(
      {.resource = resource, .scope = "llm-d-router", .scope_version = "1"}, spans.size(), &out);
  const std::string request = std::string(head.view()) + spans;
  ProtoReader in(request);
  ProtoField resource_spans, f;
  ASSERT_TRUE(in.Next(&resource_spans));
  EXPECT_EQ(resource_spans.number, 1u);
  EXPECT_FALSE(in.Next(&f)) << "one ResourceSpans is all";
  ProtoReader inner(resource_spans.bytes);
  ASSERT_TRUE(inner.Next(&f));
  EXPECT_EQ(f.number, 1u);
  EXPECT_EQ(f.bytes, "\x0a\x15\x0a\x0cservice.name\x12\x05\x0a\x03" "epp");
  ASSERT_TRUE(inner.Next(&f));
  EXPECT_EQ(f.number, 2u);
  EXPECT_EQ(f.bytes, std::string("\x0a\x11\x0a\x0cllm-d-router\x12\x01" "1") + spans);
}

TEST(Otlp, ACollectorsReply) {
  EXPECT_EQ(ReadOtlpTraceReply("")->rejected_spans, 0u);
  const auto partial = ReadOtlpTraceReply("\x0a\x06\x08\x03\x12\x02no");
  ASSERT_TRUE(partial);
  EXPECT_EQ(partial->rejected_spans, 3u);
  EXPECT_EQ(partial->message, "no");
  for (const std::string_view bad : {"\x0a\x06\x08", "\x08", "\x0a\x01\x08"}) {
    EXPECT_FALSE(ReadOtlpTraceReply(bad));
  }
}

}  // namespace
}  // namespace llmd::wire
