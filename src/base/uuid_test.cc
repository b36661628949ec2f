#include "base/uuid.h"

#include <gtest/gtest.h>

namespace llmd::base {
namespace {

TEST(Uuid, HasItsVersionAndVariantWhateverTheBits) {
  char room[kUuidBytes];
  EXPECT_EQ(WriteUuid(0, 0, room), "00000000-0000-4000-8000-000000000000");
  EXPECT_EQ(WriteUuid(~0ull, ~0ull, room), "ffffffff-ffff-4fff-bfff-ffffffffffff");
  EXPECT_EQ(WriteUuid(0x0123456789abcdef, 0xfedcba9876543210, room),
            "01234567-89ab-4def-bedc-ba9876543210");
}

}  // namespace
}  // namespace llmd::base
