#include "wire/proto_scan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "base/strings.h"
#include "wire/protobuf.h"

namespace llmd::wire {
namespace {

using ::testing::ElementsAre;

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string Tag(uint32_t field, ProtoWire wire) {
  return Varint(uint64_t{field} << 3 | static_cast<uint64_t>(wire));
}
std::string Number(uint32_t field, uint64_t value) {
  return Tag(field, ProtoWire::kVarint) + Varint(value);
}
std::string Bytes(uint32_t field, std::string_view bytes) {
  return Tag(field, ProtoWire::kBytes) + Varint(bytes.size()) + std::string(bytes);
}

TEST(ProtoScanner, ReadsAMessageWhileItArrives) {
  const std::string message = Number(1, 300) + Bytes(2, Number(7, 1)) + Bytes(3, "hello");
  ProtoScanner scan;
  scan.Begin(message.size());
  std::vector<std::string> seen;
  for (const char c : message) {
    scan.Feed({&c, 1});
    for (ProtoEvent e; (e = scan.Next()) != ProtoEvent::kMore && e != ProtoEvent::kEnd;) {
      if (e == ProtoEvent::kVarint) {
        seen.push_back(std::to_string(scan.field()) + "=" + std::to_string(scan.value()));
      }
      if (e == ProtoEvent::kLength && scan.field() == 2) scan.Enter();
      if (e == ProtoEvent::kLength && scan.field() == 3) scan.Take();
      if (e == ProtoEvent::kBytes) seen.push_back(std::string(scan.part()));
      if (e == ProtoEvent::kLeave) seen.push_back("leave");
    }
  }
  EXPECT_THAT(seen, ElementsAre("1=300", "7=1", "leave", "h", "e", "l", "l", "o"));
  EXPECT_EQ(scan.Next(), ProtoEvent::kEnd);
}

// Enters the fields below 4, takes those below 8, steps over the others.
std::string Describe(std::string_view message, size_t cut) {
  ProtoScanner scan;
  scan.Begin(message.size());
  std::string out;
  ProtoEvent e = ProtoEvent::kMore;
  for (const std::string_view part : {message.substr(0, cut), message.substr(cut)}) {
    const std::vector<char> chunk(part.begin(), part.end());
    scan.Feed({chunk.data(), chunk.size()});
    while ((e = scan.Next()) != ProtoEvent::kMore && e != ProtoEvent::kEnd) {
      if (e == ProtoEvent::kError) return base::Concat(out, "error ", ProtoErrorText(scan.error()));
      const std::string field = std::to_string(scan.field());
      if (e == ProtoEvent::kVarint) {
        out += base::Concat(field, "=", std::to_string(scan.value()), " ");
      }
      if (e == ProtoEvent::kLength) {
        out += base::Concat(field, "[", std::to_string(scan.value()), "] ");
        if (scan.field() < 4 && scan.depth() < kProtoScanDepthMax) scan.Enter();
        if (scan.field() >= 4 && scan.field() < 8) scan.Take();
      }
      if (e == ProtoEvent::kBytes) out += base::Concat(scan.part(), scan.last() ? "; " : "");
      if (e == ProtoEvent::kLeave) out += ") ";
    }
  }
  return out + (e == ProtoEvent::kEnd ? "end" : "more");
}

TEST(ProtoScanner, MessagesAtEveryCut) {
  const std::string truncated = base::Concat("error ", ProtoErrorText(ProtoError::kTruncated));
  const std::string too_long = base::Concat("error ", ProtoErrorText(ProtoError::kVarintTooLong));
  const std::string bad_tag = base::Concat("error ", ProtoErrorText(ProtoError::kBadTag));
  const struct {
    std::string message;
    std::string want;
  } cases[] = {
      {"", "end"},
      {Number(1, 0) + Number(1, UINT64_MAX), "1=0 1=18446744073709551615 end"},
      {Bytes(4, "") + Bytes(9, "passed over") + Bytes(5, "x"), "4[0] ; 9[11] 5[1] x; end"},
      {Bytes(1, Bytes(2, Bytes(3, ""))), "1[4] 2[2] 3[0] ) ) ) end"},
      {Tag(6, ProtoWire::kFixed64) + "12345678" + Tag(6, ProtoWire::kFixed32) + "1234" +
           Number(6, 1),
       "6=1 end"},
      {Number((1 << 29) - 1, 1), "536870911=1 end"},
      {std::string("\x08", 1), truncated},
      {std::string("\x08\x80", 2), truncated},
      {std::string("\x80", 1), truncated},
      {Bytes(4, "abc").substr(0, 4), "error"},
      {Tag(1, ProtoWire::kBytes) + Varint(3) + Number(1, 1), "error"},
      {Bytes(1, Tag(4, ProtoWire::kBytes) + Varint(5)) + "hello", "1[2] " + truncated},
      {Tag(6, ProtoWire::kFixed64) + "1234567", truncated},
      {Tag(1, ProtoWire::kVarint) + std::string(10, '\x80') + "\x01", too_long},
      {std::string(5, '\x80') + "\x01", too_long},
      {std::string("\x00\x01", 2), bad_tag},
      {std::string("\x0b\x01", 2), bad_tag},
      {std::string("\x0f\x01", 2), bad_tag},
  };
  for (const auto& c : cases) {
    const std::string whole = Describe(c.message, 0);
    EXPECT_TRUE(whole.starts_with(c.want)) << whole << " instead of " << c.want;
    for (size_t cut = 0; cut <= c.message.size(); ++cut) {
      EXPECT_EQ(Describe(c.message, cut), whole) << "cut at " << cut;
    }
  }
}

// The twin: ProtoReader over the whole message.
std::string DescribeWhole(std::string_view message, bool* failed, size_t depth = 1) {
  std::string out;
  ProtoReader in(message);
  for (ProtoField f; in.Next(&f);) {
    const std::string field = std::to_string(f.number);
    if (f.wire == ProtoWire::kVarint) out += base::Concat(field, "=", std::to_string(f.value), " ");
    if (f.wire != ProtoWire::kBytes) continue;
    out += base::Concat(field, "[", std::to_string(f.bytes.size()), "] ");
    if (f.number < 4 && depth < kProtoScanDepthMax) {
      out += DescribeWhole(f.bytes, failed, depth + 1) + ") ";
    }
    if (f.number >= 4 && f.number < 8) out += base::Concat(f.bytes, "; ");
    if (*failed) return out;
  }
  *failed |= in.error() != ProtoError::kNone;
  return out;
}

std::string RandomMessage(base::Random& random, int depth) {
  std::string out;
  for (uint64_t i = random.Below(5); i > 0; --i) {
    const auto field = static_cast<uint32_t>(1 + random.Below(9));
    switch (random.Below(4)) {
      case 0: out += Number(field, random.Next() >> random.Below(64)); break;
      case 1: out += Tag(field, ProtoWire::kFixed32) + "abcd"; break;
      default:
        out += Bytes(field, field >= 4 ? std::string(random.Below(300), 'x')
                            : depth < 3 ? RandomMessage(random, depth + 1) : "");
    }
  }
  return out;
}

TEST(ProtoScanner, AgreesWithTheReaderOfWholeMessages) {
  base::Random random(5);
  for (int round = 0; round < 2000; ++round) {
    std::string message = RandomMessage(random, 1);
    if (round % 4 == 0 && !message.empty()) {
      message[random.Below(message.size())] = static_cast<char>(random.Below(128));
    }
    bool failed = false;
    const std::string want = DescribeWhole(message, &failed);
    const std::string got = Describe(message, random.Below(message.size() + 1));
    if (failed) {
      ASSERT_NE(got.find("error"), std::string::npos);
    } else {
      ASSERT_EQ(got, want + "end");
    }
  }
}

TEST(PackedVarints, CountsWhateverTheCut) {
  const std::string ids = Varint(1) + Varint(300) + Varint(128000) + Varint(UINT64_MAX);
  for (size_t cut = 0; cut <= ids.size(); ++cut) {
    PackedVarints packed;
    EXPECT_TRUE(packed.Feed(std::string_view(ids).substr(0, cut)));
    EXPECT_TRUE(packed.Feed(std::string_view(ids).substr(cut)));
    EXPECT_TRUE(packed.complete());
    EXPECT_EQ(packed.count(), 4u);
  }
  PackedVarints packed;
  EXPECT_TRUE(packed.Feed("\x80"));
  EXPECT_FALSE(packed.complete());
  EXPECT_FALSE(packed.Feed(std::string(9, '\x80')));
}

}  // namespace
}  // namespace llmd::wire
