#include "director/model_restorer.h"

#include <gtest/gtest.h>

namespace llmd::director {
namespace {

std::string Apply(std::string_view piece, const Forward::Splice& splice) {
  return std::string(piece.substr(0, splice.begin)) + std::string(splice.bytes) +
         std::string(piece.substr(splice.end));
}

// The tour: a place that two pieces share.
TEST(ModelRestorer, HoldsBackWhatIsUnsettled) {
  ModelRestorer restorer("\"big\"", "\"small\"");
  std::string relayed;
  restorer.Begin("{\"model\":\"bi");
  relayed += Apply("{\"model\":\"bi", restorer.End(5));
  EXPECT_EQ(relayed, "{\"model");
  restorer.Begin("g\",\"x\":1}");
  restorer.Replace(9, 14);
  relayed += Apply("g\",\"x\":1}", restorer.End(0));
  EXPECT_EQ(relayed, "{\"model\":\"small\",\"x\":1}");
  EXPECT_EQ(restorer.TakeHeldBack(), "");
}

TEST(ModelRestorer, LeavesAPieceAloneThatHasNothing) {
  ModelRestorer restorer("\"a\"", "\"b\"");
  restorer.Begin("data: {}\n\n");
  const Forward::Splice s = restorer.End(0);
  EXPECT_EQ(s.begin, s.end);
  EXPECT_TRUE(s.bytes.empty());
}

TEST(ModelRestorer, ReplacesOnlyTheExpectedLiteral) {
  ModelRestorer restorer("\"a\"", "\"b\"");
  const std::string_view piece = "[\"c\",\"a\",\"a\"]";
  restorer.Begin(piece);
  restorer.Replace(1, 4);
  restorer.Replace(5, 8);
  restorer.Replace(5, 8);    // behind what was passed on
  restorer.Replace(9, 100);  // beyond the reply
  restorer.Replace(9, 12);
  EXPECT_EQ(Apply(piece, restorer.End(0)), "[\"c\",\"b\",\"b\"]");
}

TEST(ModelRestorer, GivesUpOnWhatIsTooLongToHold) {
  ModelRestorer restorer("\"a\"", "\"b\"");
  const std::string piece(ModelRestorer::kHeldBytesMax / 2 + 1, 'x');
  std::string relayed;
  uint64_t unsettled = 0;
  for (int i = 0; i < 4; ++i) {
    restorer.Begin(piece);
    unsettled += piece.size();
    relayed += Apply(piece, restorer.End(unsettled));
  }
  EXPECT_EQ(relayed.size() + restorer.TakeHeldBack().size(), 4 * piece.size());
  EXPECT_GE(relayed.size(), 2 * piece.size());
}

TEST(ModelRestorer, TheRestComesAtTheEnd) {
  ModelRestorer restorer("\"a\"", "\"b\"");
  restorer.Begin("data: {\"mod");
  EXPECT_EQ(Apply("data: {\"mod", restorer.End(11)), "");
  EXPECT_EQ(restorer.TakeHeldBack(), "data: {\"mod");
  EXPECT_EQ(restorer.TakeHeldBack(), "");
}

}  // namespace
}  // namespace llmd::director
