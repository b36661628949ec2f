#include "wire/protobuf.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace llmd::wire {
namespace {

using namespace std::string_literals;

// {1: "name", 3: {2: 300, 4: 1.5}} written from the back and read from the front.
TEST(ProtobufTest, WritesBackwardsAndReadsForwards) {
  base::BufferPool pool;
  ProtoWriter out(&pool);
  const size_t mark = out.size();
  out.Double(4, 1.5);
  out.Varint(2, 300);
  out.Wrap(3, mark);
  out.Bytes(1, "name");
  const base::Slice message = out.Take();
  EXPECT_EQ(message.view(), "\x0a\x04name\x1a\x0c\x10\xac\x02\x21\0\0\0\0\0\0\xf8\x3f"s);

  ProtoReader in(message.view());
  ProtoField f;
  ASSERT_TRUE(in.Next(&f));
  EXPECT_EQ(f.number, 1u);
  EXPECT_EQ(f.bytes, "name");
  ASSERT_TRUE(in.Next(&f));
  EXPECT_EQ(f.number, 3u);
  ProtoReader inner(f.bytes);
  ASSERT_TRUE(inner.Next(&f));
  EXPECT_EQ(f.value, 300u);
  ASSERT_TRUE(inner.Next(&f));
  EXPECT_EQ(f.number64(), 1.5);
  EXPECT_FALSE(inner.Next(&f));
  EXPECT_FALSE(in.Next(&f));
  EXPECT_TRUE(ProtoStatus(in.error(), "M").ok());
}

// Both readers, the second with every byte a piece of its own.
struct Outcome {
  std::vector<std::string> fields;
  ProtoError error;
  bool operator==(const Outcome&) const = default;
};

std::string FieldText(const ProtoField& f, std::string_view content) {
  return std::to_string(f.number) + "/" + std::to_string(static_cast<int>(f.wire)) + "/" +
         std::to_string(f.value) + "/" + std::string(content);
}

Outcome ReadWhole(std::string_view message) {
  Outcome out;
  ProtoReader in(message);
  for (ProtoField f; in.Next(&f);) {
    out.fields.push_back(FieldText(f, f.wire == ProtoWire::kBytes ? f.bytes : ""));
  }
  out.error = in.error();
  return out;
}

Outcome ReadPieces(std::string_view message) {
  base::BufferPool pool;
  std::vector<base::Slice> pieces;
  for (const char c : message) {
    pieces.push_back(pool.Copy({&c, 1}));
    pieces.push_back({});
  }
  Outcome out;
  ProtoPieceReader in(pieces);
  for (ProtoField f; in.Next(&f);) {
    std::string content;
    if (f.wire == ProtoWire::kBytes) {
      content.resize(f.value);
      in.CopyContent(content.data());
    }
    out.fields.push_back(FieldText(f, content));
  }
  out.error = in.error();
  return out;
}

TEST(ProtobufTest, RefusesWhatProtobufDoesNotHave) {
  struct Case {
    std::string bytes;
    ProtoError error;
    size_t fields;
  };
  const Case cases[] = {
      {"", ProtoError::kNone, 0},
      {"\x08\x01", ProtoError::kNone, 1},
      {"\x0d\1\0\0\0"s, ProtoError::kNone, 1},
      {"\x09\1\0\0\0\0\0\0\0"s, ProtoError::kNone, 1},
      {"\x0a\x00"s, ProtoError::kNone, 1},
      {"\x0a\x02" "ab\x12\x01" "c", ProtoError::kNone, 2},
      {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ProtoError::kNone, 1},
      {"\xf8\xff\xff\xff\x0f\x01", ProtoError::kNone, 1},           // the largest field number
      {"\x08", ProtoError::kTruncated, 0},                          // no value
      {"\x08\x80", ProtoError::kTruncated, 0},                      // half a value
      {"\x88", ProtoError::kTruncated, 0},                          // half a tag
      {"\x0d\1\0\0"s, ProtoError::kTruncated, 0},                   // half a fixed32
      {"\x09\1\0\0\0\0\0\0"s, ProtoError::kTruncated, 0},           // half a fixed64
      {"\x0a\x03" "ab", ProtoError::kTruncated, 0},                 // content cut short
      {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ProtoError::kTruncated, 0},
      {"\x08\x01\x0a\x05", ProtoError::kTruncated, 1},              // after a good field
      {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ProtoError::kVarintTooLong, 0},
      {"\x88\x80\x80\x80\x80\x00"s, ProtoError::kVarintTooLong, 0},  // a tag of six bytes
      {"\x00\x01"s, ProtoError::kBadTag, 0},                        // field number 0
      {"\x88\x80\x80\x80\x10\x01", ProtoError::kBadTag, 0},         // field number 2^29 + 1
      {"\x0b\x0c", ProtoError::kBadTag, 0},                         // a group
      {"\x0e\x01", ProtoError::kBadTag, 0},                         // wire type 6
      {"\x0f\x01", ProtoError::kBadTag, 0},                         // wire type 7
  };
  for (const Case& c : cases) {
    const Outcome whole = ReadWhole(c.bytes);
    SCOPED_TRACE(testing::PrintToString(c.bytes));
    EXPECT_EQ(whole.error, c.error) << ProtoErrorText(whole.error);
    EXPECT_EQ(whole.fields.size(), c.fields);
    EXPECT_EQ(ReadPieces(c.bytes), whole);
  }
}

TEST(ProtobufTest, AMessageLargerThanABlockGrows) {
  base::BufferPool pool;
  ProtoWriter out(&pool);
  const std::string large(3 * ProtoWriter::kBlockBytes, 'x');
  const size_t mark = out.size();
  out.Bytes(2, "behind");
  out.Bytes(1, large);
  out.Wrap(7, mark);
  const base::Slice first = out.Take();
  out.Varint(1, 1);
  const base::Slice second = out.Take();
  ProtoReader in(first.view());
  ProtoField f;
  ASSERT_TRUE(in.Next(&f));
  ProtoReader inner(f.bytes);
  ASSERT_TRUE(inner.Next(&f));
  EXPECT_EQ(f.bytes, large);
  ASSERT_TRUE(inner.Next(&f));
  EXPECT_EQ(f.bytes, "behind");
  EXPECT_EQ(second.view(), "\x08\x01");
}

TEST(ProtobufTest, AGapIsCountedAndLeftToTheCaller) {
  base::BufferPool pool;
  ProtoWriter out(&pool);
  out.Varint(9, 1);
  const size_t mark = out.size();
  out.Varint(2, 1);
  const base::Slice behind = out.Gap(200);
  out.RawVarint(200);
  out.Tag(1, ProtoWire::kBytes);
  out.Wrap(3, mark);
  EXPECT_EQ(out.size(), 210u);
  const base::Slice before = out.Take();
  EXPECT_EQ(before.view(), "\x1a\xcd\x01\x0a\xc8\x01");
  EXPECT_EQ(behind.view(), "\x10\x01\x48\x01");
}

}  // namespace
}  // namespace llmd::wire
