#include "plugins/producer/hit_error.h"

#include "gtest/gtest.h"

namespace llmd::plugins {
namespace {

TEST(HitError, TrustFallsWithPersistentErrorAndComesBack) {
  HitError error(2);
  for (int i = 0; i < 100; ++i) error.Add(i % 2, 3, 7, 800, 800, 1000);
  error.Fold(8);
  EXPECT_FLOAT_EQ(error.trust(3), 1);
  EXPECT_EQ(error.report(3).requests, 100u);
  EXPECT_NEAR(error.report(3).error, 0, 1e-6);

  // The engine finds nothing of what the index said: .8 of every prompt.
  for (int i = 0; i < 300; ++i) error.Add(i % 2, 3, 7, 800, 0, 1000);
  error.Fold(8);
  EXPECT_LT(error.report(3).error, -.7);
  EXPECT_LT(error.trust(3), .01);
  EXPECT_FLOAT_EQ(error.trust(2), 1) << "others are not touched";

  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 100; ++i) error.Add(0, 3, 7, 800, 800, 1000);
    error.Fold(8);
  }
  EXPECT_FLOAT_EQ(error.trust(3), 1);
}

TEST(HitError, AFewRequestsSayNothingYet) {
  HitError error(1);
  for (uint64_t i = 0; i + 1 < HitError::kRequestsMin; ++i) error.Add(0, 0, 0, 1000, 0, 1000);
  error.Fold(1);
  EXPECT_NEAR(error.report(0).error, -1, 1e-6);
  EXPECT_FLOAT_EQ(error.trust(0), 1);
  error.Add(0, 0, 0, 1000, 0, 1000);
  error.Fold(1);
  EXPECT_FLOAT_EQ(error.trust(0), 0);
}

TEST(HitError, ANewOwnerOfANumberBeginsAnew) {
  HitError error(2);
  for (int i = 0; i < 50; ++i) error.Add(0, 0, 1, 1000, 0, 1000);
  error.Fold(1);
  EXPECT_FLOAT_EQ(error.trust(0), 0);
  error.Add(1, 0, 2, 500, 500, 1000);  // the other worker still has the old owner's sums
  error.Fold(1);
  EXPECT_FLOAT_EQ(error.trust(0), 1);
  EXPECT_EQ(error.report(0).requests, 1u);
}

TEST(HitError, NumbersThatCannotBeAreIgnored) {
  HitError error(1);
  error.Add(1, 0, 0, 1, 1, 1);
  error.Add(0, fleet::kEndpointsMax, 0, 1, 1, 1);
  error.Add(0, 0, 0, 1, 1, 0);
  error.Add(0, 0, 0, ~uint64_t{0}, ~uint64_t{0}, 10);  // no more than the prompt
  error.Fold(fleet::kEndpointsMax + 5);
  EXPECT_EQ(error.report(0).predicted, 10u);
  EXPECT_EQ(error.report(0).cached, 10u);
}

}  // namespace
}  // namespace llmd::plugins
