#include "wire/grpc_frames.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/strings.h"

namespace llmd::wire {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> Frames(std::string_view body, size_t cut) {
  GrpcFrames frames;
  std::vector<std::string> messages;
  for (const std::string_view part : {body.substr(0, cut), body.substr(cut)}) {
    const std::vector<char> chunk(part.begin(), part.end());
    frames.Feed({chunk.data(), chunk.size()});
    for (GrpcFrames::Event e; (e = frames.Next()) != GrpcFrames::Event::kMore;) {
      if (e == GrpcFrames::Event::kMessage) {
        messages.push_back(base::Concat(frames.compressed() ? "z" : "", "#",
                                        std::to_string(frames.length()), ":"));
      } else {
        messages.back().append(frames.part());
        if (frames.last()) messages.back() += ".";
      }
    }
  }
  return messages;
}

TEST(GrpcFrames, MessagesAtEveryCut) {
  const std::string body = std::string("\0\0\0\0\5hello", 10) + std::string("\0\0\0\0\0", 5) +
                           std::string("\1\0\0\0\2zz", 7) + std::string("\0\0\0\1\0ab", 7);
  for (size_t cut = 0; cut <= body.size(); ++cut) {
    EXPECT_THAT(Frames(body, cut), ElementsAre("#5:hello.", "#0:.", "z#2:zz.", "#256:ab"));
  }
  EXPECT_THAT(Frames(std::string("\0\0\0\0", 4), 2), IsEmpty());
}

TEST(GrpcFrames, TellsWhetherTheStreamMayEnd) {
  GrpcFrames frames;
  EXPECT_FALSE(frames.inside());
  frames.Feed(std::string_view("\0\0", 2));
  EXPECT_EQ(frames.Next(), GrpcFrames::Event::kMore);
  EXPECT_EQ(frames.prefix_bytes(), 2u);
  EXPECT_TRUE(frames.inside());
  frames.Feed(std::string_view("\0\0\2a", 4));
  EXPECT_EQ(frames.Next(), GrpcFrames::Event::kMessage);
  EXPECT_EQ(frames.Next(), GrpcFrames::Event::kPart);
  EXPECT_FALSE(frames.last());
  EXPECT_EQ(frames.left(), 1u);
  EXPECT_TRUE(frames.inside());
  frames.Feed("b");
  EXPECT_EQ(frames.Next(), GrpcFrames::Event::kPart);
  EXPECT_TRUE(frames.last());
  EXPECT_FALSE(frames.inside());
}

TEST(GrpcFrames, ReadsWhatIsWritten) {
  for (const size_t size : {size_t{0}, size_t{255}, size_t{256}, size_t{0x01020304},
                            size_t{0xffffffff}}) {
    char prefix[kGrpcPrefixBytes];
    WriteGrpcPrefix(size, prefix);
    GrpcFrames frames;
    frames.Feed({prefix, sizeof(prefix)});
    ASSERT_EQ(frames.Next(), GrpcFrames::Event::kMessage);
    EXPECT_EQ(frames.length(), size);
    EXPECT_EQ(frames.flag(), 0);
  }
}

}  // namespace
}  // namespace llmd::wire
