#include "wire/msgpack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/random.h"

namespace llmd::wire {
namespace {

using Json = nlohmann::json;

std::string Bytes(std::initializer_list<int> bytes) {
  std::string text;
  for (const int b : bytes) text.push_back(static_cast<char>(b));
  return text;
}

// A value is written and read back; a Read of another type moves nothing.
TEST(Msgpack, Tutorial) {
  MsgpackWriter out;
  out.Array(3);
  out.Text("BlockStored");
  out.Uint(70000);
  out.Nil();

  MsgpackReader in(out.bytes());
  uint32_t count;
  ASSERT_TRUE(in.ReadArray(&count));
  EXPECT_EQ(count, 3u);
  std::string_view text;
  uint64_t number;
  EXPECT_FALSE(in.ReadUint(&number));
  EXPECT_TRUE(in.ReadText(&text));
  EXPECT_EQ(text, "BlockStored");
  EXPECT_TRUE(in.ReadUint(&number));
  EXPECT_EQ(number, 70000u);
  EXPECT_EQ(in.Peek(), MsgpackType::kNil);
  EXPECT_TRUE(in.Skip());
  EXPECT_EQ(in.bytes_left(), 0u);
  EXPECT_FALSE(in.Skip());
}

TEST(Msgpack, IntegersOfEveryForm) {
  const struct {
    std::string bytes;
    int64_t value;
  } cases[] = {
      {Bytes({0x00}), 0},
      {Bytes({0x7f}), 127},
      {Bytes({0xff}), -1},
      {Bytes({0xe0}), -32},
      {Bytes({0xcc, 0xff}), 255},
      {Bytes({0xcd, 0x01, 0x00}), 256},
      {Bytes({0xce, 0xff, 0xff, 0xff, 0xff}), 0xffffffff},
      {Bytes({0xcf, 0, 0, 0, 1, 0, 0, 0, 0}), int64_t{1} << 32},
      {Bytes({0xd0, 0x80}), -128},
      {Bytes({0xd0, 0x05}), 5},
      {Bytes({0xd1, 0x80, 0x00}), -32768},
      {Bytes({0xd2, 0xff, 0xff, 0xff, 0xfe}), -2},
      {Bytes({0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0}), std::numeric_limits<int64_t>::min()},
  };
  for (const auto& c : cases) {
    MsgpackReader in(c.bytes);
    int64_t signed_value;
    ASSERT_TRUE(in.ReadInt(&signed_value));
    EXPECT_EQ(signed_value, c.value);
    EXPECT_EQ(in.bytes_left(), 0u);

    in = MsgpackReader(c.bytes);
    uint64_t bits;
    EXPECT_EQ(in.ReadUint(&bits), c.value >= 0);
    EXPECT_EQ(in.bytes_left(), c.value >= 0 ? 0u : c.bytes.size());

    in = MsgpackReader(c.bytes);
    double number;
    EXPECT_TRUE(in.ReadNumber(&number));
    EXPECT_EQ(number, static_cast<double>(c.value));

    for (size_t cut = 0; cut < c.bytes.size(); ++cut) {
      MsgpackReader less(std::string_view(c.bytes).substr(0, cut));
      EXPECT_FALSE(less.ReadBits(&bits));
      EXPECT_FALSE(less.Skip());
    }
  }
  const std::string all_ones = Bytes({0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
  MsgpackReader in(all_ones);
  int64_t value;
  uint64_t bits;
  EXPECT_FALSE(in.ReadInt(&value));
  EXPECT_TRUE(in.ReadBits(&bits));
  EXPECT_EQ(bits, ~uint64_t{0});
}

Json RandomValue(base::Random& random, int depth) {
  switch (random.Below(depth > 0 ? 9 : 7)) {
    case 0: return nullptr;
    case 1: return random.Below(2) == 0;
    case 2: return random.Next() >> random.Below(64);
    case 3: return -static_cast<int64_t>(random.Next() >> (1 + random.Below(63)));
    case 4: return random.Uniform();
    case 5: return std::string(random.Below(300), 'x');
    case 6: return Json::binary(std::vector<uint8_t>(random.Below(70000)));
    case 7: {
      Json array = Json::array();
      for (uint64_t n = random.Below(40); n > 0; --n)
        array.push_back(RandomValue(random, depth - 1));
      return array;
    }
    default: {
      Json map = Json::object();
      for (uint64_t n = random.Below(40); n > 0; --n) {
        map[std::to_string(random.Below(1000))] = RandomValue(random, depth - 1);
      }
      return map;
    }
  }
}

void Write(const Json& value, MsgpackWriter* out) {
  switch (value.type()) {
    case Json::value_t::boolean: return out->Bool(value.get<bool>());
    case Json::value_t::number_unsigned: return out->Uint(value.get<uint64_t>());
    case Json::value_t::number_integer: return out->Int(value.get<int64_t>());
    case Json::value_t::number_float: return out->Float(value.get<double>());
    case Json::value_t::string: return out->Text(value.get_ref<const std::string&>());
    case Json::value_t::binary: {
      const auto& bytes = value.get_binary();
      return out->Binary({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    }
    case Json::value_t::array:
      out->Array(value.size());
      for (const Json& item : value) Write(item, out);
      return;
    case Json::value_t::object:
      out->Map(value.size());
      for (const auto& [key, item] : value.items()) {
        out->Text(key);
        Write(item, out);
      }
      return;
    default: return out->Nil();
  }
}

Json Read(MsgpackReader* in) {
  uint64_t bits;
  int64_t negative;
  double number;
  bool flag;
  uint32_t count;
  std::string_view text;
  switch (in->Peek()) {
    case MsgpackType::kBool: return in->ReadBool(&flag) ? Json(flag) : Json();
    case MsgpackType::kUint:
    case MsgpackType::kInt:
      if (in->ReadUint(&bits)) return bits;
      return in->ReadInt(&negative) ? Json(negative) : Json();
    case MsgpackType::kFloat: return in->ReadNumber(&number) ? Json(number) : Json();
    case MsgpackType::kText: return in->ReadText(&text) ? Json(text) : Json();
    case MsgpackType::kBinary:
      if (!in->ReadBinary(&text)) return {};
      return Json::binary(std::vector<uint8_t>(text.begin(), text.end()));
    case MsgpackType::kArray: {
      Json array = Json::array();
      if (!in->ReadArray(&count)) return {};
      for (uint32_t i = 0; i < count; ++i) array.push_back(Read(in));
      return array;
    }
    case MsgpackType::kMap: {
      Json map = Json::object();
      if (!in->ReadMap(&count)) return {};
      for (uint32_t i = 0; i < count; ++i) {
        if (!in->ReadText(&text)) return {};
        const std::string key(text);
        map[key] = Read(in);
      }
      return map;
    }
    default:
      in->Skip();
      return {};
  }
}

// Another implementation reads what we write and writes what we read.
TEST(Msgpack, AgreesWithNlohmann) {
  base::Random random(1);
  for (int round = 0; round < 100; ++round) {
    const Json value = RandomValue(random, 3);
    MsgpackWriter out;
    Write(value, &out);
    EXPECT_EQ(Json::from_msgpack(out.bytes()), value);

    const std::vector<uint8_t> theirs = Json::to_msgpack(value);
    const std::string_view bytes(reinterpret_cast<const char*>(theirs.data()), theirs.size());
    MsgpackReader in(bytes);
    EXPECT_EQ(Read(&in), value);
    EXPECT_EQ(in.bytes_left(), 0u);
    MsgpackReader skipping(bytes);
    EXPECT_TRUE(skipping.Skip());
    EXPECT_EQ(skipping.bytes_left(), 0u);
  }
}

TEST(Msgpack, CutAnywhereIsRefused) {
  base::Random random(2);
  const Json value = {RandomValue(random, 1), "text", 70000, {{"a", {1, 2, 3}}}, 1.5};
  const std::vector<uint8_t> whole = Json::to_msgpack(value);
  const std::string_view bytes(reinterpret_cast<const char*>(whole.data()), whole.size());
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    MsgpackReader in(bytes.substr(0, cut));
    EXPECT_FALSE(in.Skip());
    EXPECT_EQ(in.bytes_left(), cut);
  }
}

TEST(Msgpack, CountsAreBelievedAsFarAsBytesAreLeft) {
  for (const std::string& bytes :
       {Bytes({0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0}), Bytes({0xdf, 0, 0, 0, 2, 0xc0, 0xc0, 0xc0}),
        Bytes({0x92, 0xc0}), Bytes({0x81, 0xc0}), Bytes({0xdc, 0x00})}) {
    MsgpackReader in(bytes);
    uint32_t count = 7;
    EXPECT_FALSE(in.ReadArray(&count) || in.ReadMap(&count));
    EXPECT_EQ(count, 7u);
    EXPECT_FALSE(in.Skip());
    EXPECT_EQ(in.bytes_left(), bytes.size());
  }
}

TEST(Msgpack, ExtensionsAreSteppedOver) {
  for (const std::string& bytes :
       {Bytes({0xd4, 1, 2}), Bytes({0xd6, 0xff, 1, 2, 3, 4}), Bytes({0xc7, 3, 9, 1, 2, 3}),
        Bytes({0xc8, 0, 1, 9, 1}), Bytes({0xc9, 0, 0, 0, 0, 9})}) {
    MsgpackReader in(bytes);
    EXPECT_EQ(in.Peek(), MsgpackType::kExtension);
    EXPECT_TRUE(in.Skip());
    EXPECT_EQ(in.bytes_left(), 0u);
  }
  const std::string never = Bytes({0xc1});
  MsgpackReader in(never);
  EXPECT_EQ(in.Peek(), MsgpackType::kNone);
  EXPECT_FALSE(in.Skip());
}

TEST(Msgpack, NestingIsBounded) {
  for (const uint32_t depth : {kMsgpackDepthMax - 1, kMsgpackDepthMax}) {
    const std::string bytes = std::string(depth, '\x91') + '\xc0';
    MsgpackReader in(bytes);
    EXPECT_EQ(in.Skip(), depth < kMsgpackDepthMax);
  }
}

// The run readers give what reading one by one gives, wherever the run ends in the buffer.
TEST(Msgpack, RunsAgreeWithSingleReads) {
  base::Random random(3);
  for (int round = 0; round < 3000; ++round) {
    MsgpackWriter out;
    std::vector<uint64_t> values(random.Below(70));
    const uint64_t kind = random.Below(4);
    const uint64_t width = kind == 0 ? 17 : kind == 1 ? 16 : kind == 2 ? 32 : 1 + random.Below(34);
    for (uint64_t& value : values) {
      value = random.Next() >> (64 - width);
      if (kind == 3 && random.Below(4) == 0) value >>= random.Below(width);
      out.Uint(value);
    }
    const size_t tail = random.Below(12);
    const std::string bytes = out.bytes() + std::string(tail, '\xc0');

    std::vector<uint32_t> narrow(values.size(), 1);
    MsgpackReader in(bytes);
    const bool fits = std::all_of(values.begin(), values.end(),
                                  [](uint64_t v) { return v <= UINT32_MAX; });
    ASSERT_EQ(in.ReadUint32s(narrow), fits);
    ASSERT_EQ(in.bytes_left(), fits ? tail : bytes.size());
    if (fits) ASSERT_TRUE(std::equal(values.begin(), values.end(), narrow.begin()));

    std::vector<uint64_t> wide(values.size(), 1);
    in = MsgpackReader(bytes);
    ASSERT_TRUE(in.ReadBitsRun(wide));
    ASSERT_EQ(in.bytes_left(), tail);
    ASSERT_EQ(wide, values);

    std::vector<uint32_t> more(values.size() + 1);
    in = MsgpackReader(bytes);
    EXPECT_FALSE(in.ReadUint32s(more));
    EXPECT_EQ(in.bytes_left(), bytes.size());
  }
}

}  // namespace
}  // namespace llmd::wire
