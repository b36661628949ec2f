#include "plugins/producer/prompt.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/arena.h"
#include "base/random.h"

namespace llmd::plugins {
namespace {

using protocol::Piece;
using protocol::PieceKind;

constexpr size_t kBlockTokens = 4;  // 16 bytes

struct Prompts {
  explicit Prompts(std::vector<Piece> p, std::vector<uint32_t> m = {})
      : pieces(std::move(p)), media(std::move(m)) {
    request.pieces = pieces;
  }
  uint64_t Tokens() const { return CountTokens(request, media); }
  // One vector per prompt.
  std::vector<std::vector<prefix::BlockHash>> Hash(size_t blocks_max = 1000) {
    const PromptChains chains = HashPrompts(request, media, 1, kBlockTokens, blocks_max, arena);
    std::vector<std::vector<prefix::BlockHash>> out;
    uint32_t total = 0;
    for (const auto& chain : chains.prompts) {
      out.emplace_back(chain.begin(), chain.end());
      total += static_cast<uint32_t>(chain.size());
    }
    EXPECT_EQ(total, chains.total_blocks);
    return out;
  }
  std::vector<Piece> pieces;
  std::vector<uint32_t> media;
  protocol::Request request;
  base::Arena arena;
};

std::vector<prefix::BlockHash> HashText(std::string_view text) {
  return Prompts({{.bytes = text}}).Hash().at(0);
}

TEST(Prompt, TextIsFourBytesPerTokenOverAllPieces) {
  Prompts prompt(
      {{.bytes = "user", .kind = PieceKind::kRole}, {.bytes = "hello there, how are you?"}});
  EXPECT_EQ(prompt.Tokens(), 8u);  // 29 bytes
  ASSERT_EQ(prompt.Hash().size(), 1u);
  EXPECT_EQ(prompt.Hash()[0], HashText("userhello there, how are you?"));
}

TEST(Prompt, ToolsComeFirstWhereverTheyStand) {
  const std::string tools = R"([{"type":"function"}])";
  Prompts before({{.bytes = tools, .kind = PieceKind::kTools}, {.bytes = "what is the time"}});
  Prompts after({{.bytes = "what is the time"}, {.bytes = tools, .kind = PieceKind::kTools}});
  EXPECT_EQ(before.Hash(), after.Hash());
  EXPECT_EQ(before.Hash()[0], HashText(tools + "what is the time"));
}

TEST(Prompt, ASystemPromptStandsBehindTheToolsWhereverItStands) {
  Prompts last({{.bytes = "what is the time"},
                {.bytes = "be brief", .kind = PieceKind::kSystem},
                {.bytes = "[1]", .kind = PieceKind::kTools}});
  EXPECT_EQ(last.Hash().at(0), HashText("[1]be briefwhat is the time"));
}

TEST(Prompt, PackedTokenIdsAreTheSameTokens) {
  Prompts json({{.bytes = "1,2,300,70000,5", .token_count = 5, .kind = PieceKind::kTokenIds}});
  const std::string_view varints("\x01\x02\xac\x02\xf0\xa2\x04\x05", 8);
  Prompts packed({{.bytes = varints.substr(0, 3), .kind = PieceKind::kTokenIds},
                  {.bytes = varints.substr(3),
                   .token_count = 5,
                   .kind = PieceKind::kTokenIds,
                   .continued = true}});
  packed.request.encoding = protocol::Encoding::kProtobuf;
  EXPECT_EQ(packed.Hash(), json.Hash());
  EXPECT_EQ(packed.Tokens(), 5u);
}

TEST(Prompt, TokenIdsThatStandForAnImageCountAsTheImage) {
  const auto hashes = [](std::string_view image) {
    Prompts ids({{.bytes = "1,2,9,9,9,9,9,9,3,4,5,6,7,8,9,10,11,12,13",
                  .token_count = 19,
                  .kind = PieceKind::kTokenIds}});
    const protocol::MediaFeature feature{.offset = 4, .length = 4, .hash = image};
    ids.request.media_features = {&feature, 1};
    return ids.Hash().at(0);
  };
  ASSERT_EQ(hashes("cat").size(), 5u);
  EXPECT_EQ(hashes("cat"), hashes("cat"));
  EXPECT_EQ(hashes("cat")[0], hashes("dog")[0]) << "what is before the image is shared";
  EXPECT_NE(hashes("cat")[1], hashes("dog")[1]);
  EXPECT_NE(hashes("cat")[4], hashes("dog")[4]);
}

TEST(Prompt, EveryPromptOfABatchHasItsOwnChain) {
  Prompts batch(
      {{.bytes = "the first of two prompts", .prompt = 0}, {.bytes = "the second", .prompt = 1}});
  EXPECT_EQ(batch.Tokens(), 6u + 3u);
  ASSERT_EQ(batch.Hash().size(), 2u);
  EXPECT_EQ(batch.Hash()[0], HashText("the first of two prompts"));
  EXPECT_EQ(batch.Hash()[1], HashText("the second"));
}

TEST(Prompt, TokenIdsAreTheirOwnTokens) {
  Prompts ids({{.bytes = "[1, 2,300,70000,5]", .token_count = 5, .kind = PieceKind::kTokenIds}});
  EXPECT_EQ(ids.Tokens(), 5u);
  const uint32_t same[] = {1, 2, 300, 70000, 5};
  EXPECT_EQ(ids.Hash()[0], HashText({reinterpret_cast<const char*>(same), sizeof same}));

  Prompts cut(
      {{.bytes = "[1, 2,30", .kind = PieceKind::kTokenIds},
       {.bytes = "0,7", .kind = PieceKind::kTokenIds, .continued = true},
       {.bytes = "0000,5]", .token_count = 5, .kind = PieceKind::kTokenIds, .continued = true}});
  EXPECT_EQ(cut.Tokens(), 5u);
  EXPECT_EQ(cut.Hash(), ids.Hash());
}

TEST(Prompt, MediaAreAlignedPlaceholdersThatKnowTheirContent) {
  Prompts a({{.bytes = "look:"}, {.bytes = "http://x/1.png", .kind = PieceKind::kImage}}, {6});
  Prompts b({{.bytes = "look:"}, {.bytes = "http://x/2.png", .kind = PieceKind::kImage}}, {6});
  EXPECT_EQ(a.Tokens(), 2u + 6u);
  ASSERT_EQ(a.Hash()[0].size(), 2u);
  EXPECT_NE(a.Hash()[0][0], b.Hash()[0][0]);

  Prompts cut({{.bytes = "look:"},
               {.bytes = "http://x", .kind = PieceKind::kImage},
               {.bytes = "/1.png", .kind = PieceKind::kImage, .continued = true}},
              {6});
  EXPECT_EQ(cut.Hash(), a.Hash());
  EXPECT_EQ(cut.Tokens(), a.Tokens());
}

TEST(Prompt, AtMostSoManyBlocksPerPrompt) {
  const std::string text(100, 'x');
  Prompts prompt({{.bytes = text}, {.bytes = text, .prompt = 1}});
  const auto hashes = prompt.Hash(3);
  ASSERT_EQ(hashes.size(), 2u);
  EXPECT_EQ(hashes[0].size(), 3u);
  EXPECT_EQ(hashes[1].size(), 3u);
  EXPECT_TRUE(prompt.Hash(0).empty());
}

TEST(Prompt, NoPiecesNoTokens) {
  Prompts nothing({});
  EXPECT_EQ(nothing.Tokens(), 0u);
  EXPECT_TRUE(nothing.Hash().empty());
  Prompts empty({{.bytes = ""}, {.bytes = "", .prompt = 1}});
  EXPECT_EQ(empty.Tokens(), 0u);
  EXPECT_TRUE(empty.Hash().empty());
}

// As many blocks as the tokens of each prompt need, however the prompts are made up.
TEST(Prompt, BlocksAreTheTokensOfEachPromptRoundedUp) {
  base::Random random(5);
  const std::string text(500, 'y');
  for (int round = 0; round < 500; ++round) {
    std::vector<Piece> pieces;
    std::vector<uint32_t> media;
    for (uint32_t prompt = 0; prompt < 1 + random.Below(4); ++prompt) {
      for (uint64_t i = 0; i < 1 + random.Below(5); ++i) {
        const auto bytes = std::string_view(text).substr(0, random.Below(80));
        const bool image = random.Below(4) == 0;
        pieces.push_back({.bytes = bytes,
                          .prompt = prompt,
                          .kind = image ? PieceKind::kImage : PieceKind::kText});
        if (image) media.push_back(static_cast<uint32_t>(1 + random.Below(20)));
      }
    }
    Prompts all(pieces, media);
    uint64_t expected = 0, tokens = 0, media_index = 0;
    for (uint32_t prompt = 0; prompt < 5; ++prompt) {
      std::vector<Piece> of;
      std::vector<uint32_t> of_media;
      for (const Piece& piece : pieces) {
        if (piece.prompt != prompt) continue;
        of.push_back(piece);
        if (piece.kind == PieceKind::kImage) of_media.push_back(media[media_index++]);
      }
      const uint64_t of_tokens = Prompts(of, of_media).Tokens();
      expected += (of_tokens + kBlockTokens - 1) / kBlockTokens;
      tokens += of_tokens;
    }
    uint64_t blocks = 0;
    for (const auto& chain : all.Hash()) blocks += chain.size();
    ASSERT_EQ(blocks, expected);
    ASSERT_EQ(all.Tokens(), tokens);
  }
}

}  // namespace
}  // namespace llmd::plugins
