#include "wire/json_splice.h"

#include <gtest/gtest.h>

#include <string>

#include "base/random.h"

namespace llmd::wire {
namespace {

std::string Joined(const std::vector<base::Slice>& slices) {
  std::string out;
  for (const base::Slice& slice : slices) out.append(slice.view());
  return out;
}

TEST(SpliceSlices, ReplacesTheModelAcrossASliceBorderWithoutCopyingTheRest) {
  base::BufferPool pool;
  const std::vector<base::Slice> body = {pool.Copy(R"({"model":"ti)"), pool.Copy(R"(ny","n":1})")};
  const Edit edit = {9, 15, base::Slice::Unowned("\"big-model\"")};
  std::vector<base::Slice> out;
  EXPECT_EQ(SpliceSlices(body, {&edit, 1}, &out), 27u);
  EXPECT_EQ(Joined(out), R"({"model":"big-model","n":1})");
  EXPECT_EQ(out.front().data(), body[0].data());
  EXPECT_EQ(out.back().data(), body[1].data() + 3);
}

TEST(SpliceSlices, AgreesWithStringReplaceForRandomEditsAndCuts) {
  base::Random random(7);
  base::BufferPool pool;
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (uint64_t i = random.Below(60); i > 0; --i)
      text += static_cast<char>('a' + random.Below(26));
    std::vector<base::Slice> body;
    for (size_t at = 0; at < text.size();) {
      const size_t n = std::min<size_t>(random.Below(9), text.size() - at);
      body.push_back(pool.Copy(std::string_view(text).substr(at, n)));
      at += n;
    }
    std::string want;
    std::vector<Edit> edits;
    size_t at = 0;
    for (uint64_t i = random.Below(4); i > 0; --i) {
      const size_t begin = at + random.Below(text.size() - at + 1);
      const size_t end = begin + random.Below(text.size() - begin + 1);
      const std::string fresh(random.Below(4), 'X');
      want += text.substr(at, begin - at) + fresh;
      edits.push_back({begin, end, pool.Copy(fresh)});
      at = end;
    }
    want += text.substr(at);
    std::vector<base::Slice> out;
    EXPECT_EQ(SpliceSlices(body, edits, &out), want.size());
    ASSERT_EQ(Joined(out), want);
    for (const base::Slice& slice : out) ASSERT_FALSE(slice.empty());
  }
}

TEST(SpliceSlices, AnEditBehindTheBodyIsABug) {
  const base::Slice body = base::Slice::Unowned("abc");
  const Edit edit = {2, 9, {}};
  std::vector<base::Slice> out;
  EXPECT_DEATH(SpliceSlices({&body, 1}, {&edit, 1}, &out), "behind the body");
}

}  // namespace
}  // namespace llmd::wire
