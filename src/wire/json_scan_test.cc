#include "wire/json_scan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/random.h"
#include "wire/json_kernels.h"
#include "wire/json_scan_testing.h"

namespace llmd::wire {
namespace {

using ::testing::ElementsAre;

std::vector<const internal::JsonKernels*> AllKernels() {
  std::vector<const internal::JsonKernels*> all;
  for (const char* name : {"sse2", "avx2", "avx512"}) {
    if (const auto* kernels = internal::JsonKernelsNamed(name)) all.push_back(kernels);
  }
  return all;
}

TEST(JsonScan, ReadsOneFieldAndSkipsTheRestAcrossChunks) {
  const std::string_view chunks[] = {R"({"messages":[{"role":"us)", R"(er"}],"mod)",
                                     R"(el": "tiny", "n":2})"};
  JsonScanner scan;
  std::string model;
  bool here = false;
  for (const std::string_view chunk : chunks) {
    scan.Feed(chunk);
    for (JsonEvent e; (e = scan.Next()) != JsonEvent::kMore && e != JsonEvent::kEnd;) {
      ASSERT_NE(e, JsonEvent::kError);
      if (e == JsonEvent::kKey) {
        here = scan.text() == "model";
        if (!here) scan.SkipValue();
      } else if (e == JsonEvent::kString && here) {
        model.append(scan.part());
        EXPECT_TRUE(scan.last());
        EXPECT_EQ(scan.value_begin(), 39u);
        EXPECT_EQ(scan.value_end(), 45u);
      }
    }
  }
  EXPECT_EQ(scan.Finish(), JsonError::kNone);
  EXPECT_EQ(model, "tiny");
}

TEST(JsonScan, EventsAndOffsets) {
  const JsonTrace trace = TraceJson(R"( {"a":[1,-2.5e3,"x\n"],"b":{"c":null},"d":true} )", {});
  EXPECT_EQ(trace.error, JsonError::kNone);
  EXPECT_THAT(trace.lines, ElementsAre("{ @1", "Ka", "[ @6", "N1 @7-8", "N-2.5e3 @9-15",
                                       "Sx\\n @16-21", "] @22", "Kb", "{ @27", "Kc", "null @32-36",
                                       "} @37", "Kd", "true @42-46", "} @47"));
}

TEST(JsonScan, EscapedKeysAreUnescapedAndLongOnesAreEmpty) {
  const std::string document =
      R"({"\u006dodel":1,")" + std::string(kJsonKeyBytesMax + 1, 'k') + R"(":2,"":3})";
  for (size_t cut = 0; cut <= document.size(); ++cut) {
    const JsonTrace trace = TraceJson(document, {cut});
    EXPECT_EQ(trace.lines[1], "Kmodel");
    EXPECT_EQ(trace.lines[3], "K");
    EXPECT_EQ(trace.lines[5], "K");
    EXPECT_EQ(trace.error, JsonError::kNone);
  }
}

TEST(JsonScan, ErrorsWhateverTheCut) {
  const std::string deep(kJsonDepthMax + 1, '[');
  const struct {
    std::string document;
    JsonError error;
  } cases[] = {
      {"", JsonError::kTruncated},
      {"  ", JsonError::kTruncated},
      {"{", JsonError::kTruncated},
      {R"({"a":"b)", JsonError::kTruncated},
      {R"({"a":tru)", JsonError::kTruncated},
      {"[]", JsonError::kNotAnObject},
      {"\"x\"", JsonError::kNotAnObject},
      {"7", JsonError::kNotAnObject},
      {"{}x", JsonError::kTrailingBytes},
      {"{}{}", JsonError::kTrailingBytes},
      {R"({"a":[1})", JsonError::kUnbalanced},
      {R"({"a":1])", JsonError::kUnbalanced},
      {R"({"a" 1})", JsonError::kSyntax},
      {R"({"a":1 "b":2})", JsonError::kSyntax},
      {R"({"a":1,})", JsonError::kSyntax},
      {R"({"a":,"b":1})", JsonError::kSyntax},
      {R"({"a":[1,]})", JsonError::kSyntax},
      {R"({"a":[,1]})", JsonError::kSyntax},
      {R"({a:1})", JsonError::kSyntax},
      {R"({"a":nul})", JsonError::kBadLiteral},
      {R"({"a":True})", JsonError::kBadLiteral},
      {R"({"a":NaN})", JsonError::kBadLiteral},
      {R"({"a":01})", JsonError::kBadNumber},
      {R"({"a":1.})", JsonError::kBadNumber},
      {R"({"a":-})", JsonError::kBadNumber},
      {R"({"a":1e+})", JsonError::kBadNumber},
      {R"({"a":)" + std::string(kJsonNumberBytesMax + 1, '1') + "}", JsonError::kBadNumber},
      {"{\"a\":\"x\ny\"}", JsonError::kBadString},
      {"{\"a\n\":1}", JsonError::kBadString},
      {R"({"\x":1})", JsonError::kBadString},
      {R"({"\ud800":1})", JsonError::kBadString},
      {R"({"a":)" + deep, JsonError::kTooDeep},
  };
  for (const auto& c : cases) {
    for (size_t cut = 0; cut <= c.document.size(); ++cut) {
      EXPECT_EQ(TraceJson(c.document, {cut}).error, c.error) << c.document << " cut at " << cut;
    }
  }
}

TEST(JsonScan, SkippedValuesAreCheckedForBracketsStringsAndDepthOnly) {
  const auto skip_a = [](std::string_view value, const internal::JsonKernels* kernels) {
    JsonScanner scan(kernels);
    const std::string document = "{\"a\":" + std::string(value) + ",\"b\":1}";
    scan.Feed(document);
    for (JsonEvent e; (e = scan.Next()) != JsonEvent::kMore && e != JsonEvent::kEnd;) {
      if (e == JsonEvent::kError) return scan.error();
      if (e == JsonEvent::kKey && scan.text() == "a") scan.SkipValue();
    }
    return scan.Finish();
  };
  for (const auto* kernels : AllKernels()) {
    EXPECT_EQ(skip_a(R"([1 2 : "}\"]" {"x"}])", kernels), JsonError::kNone);
    EXPECT_EQ(skip_a("bogus", kernels), JsonError::kNone);
    EXPECT_EQ(skip_a("[{]}", kernels), JsonError::kUnbalanced);
    EXPECT_EQ(skip_a("[\"]", kernels), JsonError::kTruncated);
    EXPECT_EQ(skip_a("", kernels), JsonError::kSyntax);
    const std::string deepest =
        std::string(kJsonDepthMax - 1, '[') + std::string(kJsonDepthMax - 1, ']');
    EXPECT_EQ(skip_a(deepest, kernels), JsonError::kNone);
    EXPECT_EQ(skip_a("[" + deepest + "]", kernels), JsonError::kTooDeep);
  }
}

TEST(JsonScan, NumberArraysAreCountedAndChecked) {
  const struct {
    std::string array;
    JsonError error;
    uint64_t count;
  } cases[] = {
      {"[1]", JsonError::kNone, 1},
      {"[ 1 , 22,\n333 ]", JsonError::kNone, 3},
      {"[1,]", JsonError::kSyntax, 0},
      {"[1,,2]", JsonError::kSyntax, 0},
      {"[1 2]", JsonError::kSyntax, 0},
      {"[1,\"a\"]", JsonError::kBadNumber, 0},
      {"[1,-2]", JsonError::kBadNumber, 0},
      {"[-1]", JsonError::kBadNumber, 0},
      {"[1,2.5]", JsonError::kBadNumber, 0},
      {"[1,2", JsonError::kTruncated, 0},
  };
  for (const auto& c : cases) {
    const std::string document =
        "{\"p\":" + c.array + (c.error == JsonError::kTruncated ? "" : "}");
    for (size_t cut = 0; cut <= document.size(); ++cut) {
      JsonScanner scan;
      uint64_t count = 0;
      for (const std::string_view chunk : {std::string_view(document).substr(0, cut),
                                           std::string_view(document).substr(cut)}) {
        scan.Feed(chunk);
        for (JsonEvent e; (e = scan.Next()) < JsonEvent::kEnd && e != JsonEvent::kMore;) {
          if (e == JsonEvent::kKey) scan.ExpectNumbers();
          if (e == JsonEvent::kNumbers && scan.last()) count = scan.count();
        }
      }
      EXPECT_EQ(scan.Finish(), c.error) << document << " cut at " << cut;
      if (c.error == JsonError::kNone) {
        EXPECT_EQ(count, c.count) << document;
      }
    }
  }
}

TEST(JsonScan, ALongArrayOfIdsIsCountedAtAnyCut) {
  std::string ids;
  for (int i = 0; i < 300; ++i) ids += (i ? "," : "") + std::to_string(i * 7919 % 128000);
  const std::string document = "{\"p\":[" + ids + "]}";
  // One under which the first choice, after the brace, is to walk, and the second to take numbers.
  uint64_t policy = 1;
  while (TraceJson(document, {}, policy).lines[2].find(" x300") == std::string::npos) ++policy;
  for (const auto* kernels : AllKernels()) {
    for (size_t cut = 0; cut <= document.size(); ++cut) {
      EXPECT_EQ(TraceJson(document, {cut}, policy, kernels), TraceJson(document, {}, policy));
    }
  }
}

// Random documents against nlohmann's parser -----------------------------------------------------

std::string RandomString(base::Random& random) {
  static constexpr std::string_view kBits[] = {
      "a", "plain text ", "\\\\", "\\\"", "\\n", "\\u00e9", "\\ud83d\\ude00",
      "é", "{",           "]",    ",",    ":",   "\\/",     " "};
  std::string out = "\"";
  const uint64_t length = random.Below(8) ? random.Below(6) : random.Below(120);
  for (uint64_t i = 0; i < length; ++i) out += kBits[random.Below(std::size(kBits))];
  return out + "\"";
}

std::string RandomSpace(base::Random& random) {
  static constexpr std::string_view kSpaces[] = {"", "", "", " ", "\n", "\t \r\n"};
  return std::string(kSpaces[random.Below(std::size(kSpaces))]);
}

std::string RandomValue(base::Random& random, int depth) {
  static constexpr std::string_view kScalars[] = {"0", "-1", "1.5", "2e3", "12345678901", "true",
                                                  "false", "null", "-0.0E-2", "[1,2,3]", "[ 4 ]"};
  const uint64_t kind = random.Below(depth > 0 ? 6 : 3);
  if (kind <= 1) return std::string(kScalars[random.Below(std::size(kScalars))]);
  if (kind == 2) return RandomString(random);
  const bool object = kind >= 4;
  std::string out = object ? "{" : "[";
  const uint64_t count = random.Below(5);
  for (uint64_t i = 0; i < count; ++i) {
    if (i) out += ",";
    out += RandomSpace(random);
    if (object) out += RandomString(random) + RandomSpace(random) + ":";
    out += RandomSpace(random) + RandomValue(random, depth - 1) + RandomSpace(random);
  }
  return out + (object ? "}" : "]");
}

std::string RandomDocument(base::Random& random) {
  for (;;) {
    std::string document = RandomValue(random, 4);
    if (document[0] == '{') return RandomSpace(random) + document + RandomSpace(random);
  }
}

// The same lines as TraceJson, strings and numbers decoded and without offsets, by nlohmann.
struct SaxLines : nlohmann::json_sax<nlohmann::json> {
  std::vector<std::string> lines;
  bool overflow = false;

  bool Put(std::string line) {
    lines.push_back(std::move(line));
    return true;
  }
  bool null() override { return Put("null"); }
  bool boolean(bool v) override { return Put(v ? "true" : "false"); }
  bool number_integer(number_integer_t v) override { return Put(std::to_string(double(v))); }
  bool number_unsigned(number_unsigned_t v) override { return Put(std::to_string(double(v))); }
  bool number_float(number_float_t v, const string_t&) override {
    return Put(std::to_string(v + 0.0));
  }
  bool string(string_t& v) override { return Put("S" + v); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return Put("{"); }
  bool key(string_t& v) override { return Put("K" + (v.size() > kJsonKeyBytesMax ? "" : v)); }
  bool end_object() override { return Put("}"); }
  bool start_array(std::size_t) override { return Put("["); }
  bool end_array() override { return Put("]"); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& e) override {
    overflow = e.id == 406;
    return false;
  }
};

// Lines of TraceJson brought to the form of SaxLines; false when a string does not unescape.
bool Decode(std::vector<std::string>* lines) {
  base::Arena arena;
  for (std::string& line : *lines) {
    const size_t at = line.rfind(" @");
    if (at != std::string::npos && line[0] != 'K') line.resize(at);
    if (line[0] == 'S') {
      const auto text = JsonUnescape(std::string_view(line).substr(1), arena);
      if (!text) return false;
      line = "S" + std::string(*text);
    } else if (line[0] == 'N') {
      line = std::to_string(std::stod(line.substr(1)) + 0.0);  // without the sign of zero
    }
  }
  return true;
}

bool HasLongKey(const std::vector<std::string>& lines) {
  return std::find(lines.begin(), lines.end(), "K") != lines.end();
}

void CompareWithNlohmann(const std::string& document) {
  JsonTrace ours = TraceJson(document, {});
  SaxLines theirs;
  const bool accepted = nlohmann::json::sax_parse(document, &theirs);
  if (theirs.overflow) return;  // a number too large for a double is none of our business
  const bool we_accept = ours.error == JsonError::kNone && Decode(&ours.lines);
  const bool top_object = !theirs.lines.empty() && theirs.lines[0] == "{";
  // Keys over the limit are told by their raw length, which nlohmann does not say, and are not
  // looked into.
  if (HasLongKey(ours.lines) || HasLongKey(theirs.lines)) return;
  ASSERT_EQ(we_accept, accepted && top_object) << document << JsonErrorText(ours.error);
  if (we_accept) {
    ASSERT_EQ(ours.lines, theirs.lines) << document;
  }
}

TEST(JsonScanRandom, AgreesWithNlohmannOnGoodAndDamagedDocuments) {
  base::Random random(1);
  static constexpr std::string_view kDamage = "{}[]\",:\\ \n0e-.tn";
  for (int round = 0; round < 20000; ++round) {
    std::string document = RandomDocument(random);
    ASSERT_NO_FATAL_FAILURE(CompareWithNlohmann(document));
    for (int i = 0; i < 3; ++i) {
      std::string damaged = document;
      const size_t at = random.Below(damaged.size());
      // Only whole ASCII characters are touched: UTF-8 is not ours to check.
      if (static_cast<unsigned char>(damaged[at]) >= 0x80) continue;
      switch (random.Below(3)) {
        case 0: damaged[at] = kDamage[random.Below(kDamage.size())]; break;
        case 1: damaged.erase(at, 1); break;
        default: damaged.insert(at, 1, kDamage[random.Below(kDamage.size())]);
      }
      ASSERT_NO_FATAL_FAILURE(CompareWithNlohmann(damaged));
    }
  }
}

TEST(JsonScanRandom, EveryCutAndKernelGivesTheSameEvents) {
  base::Random random(2);
  for (int round = 0; round < 300; ++round) {
    const std::string document = RandomDocument(random);
    const uint64_t policy = round % 3 ? random.Next() : 0;
    const JsonTrace whole = TraceJson(document, {}, policy);
    for (const auto* kernels : AllKernels()) {
      ASSERT_EQ(TraceJson(document, {}, policy, kernels), whole) << document;
      for (size_t cut = 0; cut <= document.size(); ++cut) {
        ASSERT_EQ(TraceJson(document, {cut}, policy, kernels), whole) << document << cut;
      }
      std::vector<size_t> cuts;
      for (size_t at = 0; at < document.size(); at += random.Below(4)) cuts.push_back(at);
      ASSERT_EQ(TraceJson(document, cuts, policy, kernels), whole) << document;
    }
  }
}

TEST(JsonScanRandom, RawValuesAreTheBytesAtTheirOffsets) {
  base::Random random(3);
  int raws = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::string document = RandomDocument(random);
    for (const std::string& line : TraceJson(document, {}, random.Next()).lines) {
      if (line[0] != 'R') continue;
      ++raws;
      const size_t at = line.rfind(" @");
      const size_t begin = std::stoul(line.substr(at + 2));
      const size_t end = std::stoul(line.substr(line.find('-', at) + 1));
      ASSERT_EQ(document.substr(begin, end - begin), line.substr(1, at - 1));
      ASSERT_TRUE(nlohmann::json::accept(document.substr(begin, end - begin)));
    }
  }
  EXPECT_GT(raws, 1000);
}

TEST(JsonText, UnescapeTable) {
  base::Arena arena;
  const struct {
    std::string_view raw;
    std::optional<std::string_view> text;
  } cases[] = {
      {"", ""},
      {"plain", "plain"},
      {R"(\"\\\/\b\f\n\r\t)", "\"\\/\b\f\n\r\t"},
      {R"(\u0041\u00e9\u20ac)", "Aé€"},
      {R"(\ud83d\ude00!)", "😀!"},
      {R"(\uD83D\uDE00)", "😀"},
      {R"(\)", std::nullopt},
      {R"(\x)", std::nullopt},
      {R"(\u12)", std::nullopt},
      {R"(\u12g4)", std::nullopt},
      {R"(\ud83d)", std::nullopt},
      {R"(\ud83dx)", std::nullopt},
      {R"(\ud83d\n)", std::nullopt},
      {R"(\ud83d\u0041)", std::nullopt},
      {R"(\ude00)", std::nullopt},
      {"a\"b", std::nullopt},
      {"a\x01", std::nullopt},
  };
  for (const auto& c : cases) EXPECT_EQ(JsonUnescape(c.raw, arena), c.text) << c.raw;
  const std::string_view plain = "no copy";
  EXPECT_EQ(JsonUnescape(plain, arena)->data(), plain.data());
}

TEST(JsonText, WholeNumberTable) {
  const struct {
    std::string_view text;
    std::optional<int64_t> value;
  } cases[] = {
      {"0", 0},
      {"-7", -7},
      {"16", 16},
      {"16.0", 16},
      {"1e3", 1000},
      {"9223372036854775807", INT64_MAX},
      {"1.5", std::nullopt},
      {"1e-1", std::nullopt},
      {"1e300", std::nullopt},
      {"", std::nullopt},
      {"99999999999999999999", std::nullopt},
  };
  for (const auto& c : cases) EXPECT_EQ(JsonWholeNumber(c.text), c.value) << c.text;
}

TEST(JsonKernels, FindAndLineEndAgreeWithTheirTwins) {
  base::Random random(4);
  for (int round = 0; round < 5000; ++round) {
    std::string text;
    const uint64_t length = random.Below(300);
    for (uint64_t i = 0; i < length; ++i)
      text += "\"usage\n\r"[random.Below(random.Below(2) ? 6 : 8)];
    if (random.Below(2)) text.insert(random.Below(text.size() + 1), "\"usage\"");
    const std::vector<char> bytes(text.begin(), text.end());
    const char* begin = bytes.data();
    const char* end = begin + bytes.size();
    for (const auto* kernels : AllKernels()) {
      const size_t line = std::min(text.find_first_of("\r\n"), text.size());
      ASSERT_EQ(kernels->line_end(begin, end) - begin, ptrdiff_t(line));
      const size_t usage = std::min(text.find("\"usage\""), text.size());
      ASSERT_EQ(kernels->find(begin, end, "\"usage\"") - begin, ptrdiff_t(usage)) << text;
    }
  }
}

}  // namespace
}  // namespace llmd::wire
