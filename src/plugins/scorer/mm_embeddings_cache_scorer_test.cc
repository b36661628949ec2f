#include "plugins/scorer/mm_embeddings_cache_scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/producer/mm_embeddings_cache_producer.h"
#include "plugins/producer/token_producer.h"
#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Scene;

struct Media {
  explicit Media(std::string_view yaml = "")
      : scene(2),
        tokens(scene.Make(TokenProducerType())),
        producer(scene.Make(MmEmbeddingsCacheProducerType(), yaml)),
        scorer(scene.Make(MmEmbeddingsCacheScorerType())) {
    EXPECT_NE(producer, nullptr) << scene.context().errors().ToString();
  }
  std::vector<double> Score(std::vector<std::string_view> images) {
    scene.NewRequest();
    pieces = {{.bytes = "look"}};
    for (const auto url : images) {
      pieces.push_back({.bytes = url, .kind = protocol::PieceKind::kImage});
    }
    scene.body().pieces = pieces;
    scene.body().media_count = static_cast<uint32_t>(images.size());
    EXPECT_TRUE(scene.Produce(*tokens).ok());
    EXPECT_TRUE(scene.Produce(*producer).ok());
    return scene.Score(*scorer);
  }
  void Send(std::vector<std::string_view> images, plugin::EndpointNumber n) {
    Score(std::move(images));
    plugin::BookingList bookings;
    EXPECT_TRUE(scene.Route(*producer, n, &bookings).ok());
  }

  Scene scene;
  std::unique_ptr<plugin::Plugin> tokens, producer, scorer;
  std::vector<protocol::Piece> pieces;
};

TEST(MmEmbeddingsCache, PrefersWhoHasEncodedTheItems) {
  Media x;
  EXPECT_THAT(x.Score({"http://a", "http://b"}), Each(0.0));
  x.Send({"http://a", "http://b", "http://a"}, 1);
  EXPECT_THAT(x.Score({"http://b", "http://a"}), ElementsAre(0, 1)) << "in any order";
  EXPECT_THAT(x.Score({"http://b", "http://c"}), ElementsAre(0, 0.5));
  EXPECT_THAT(x.Score({}), Each(0.0));
  EXPECT_THAT(x.producer->DumpState(), HasSubstr("{\"pod\":\"default/s1\",\"items\":2}"));
}

TEST(MmEmbeddingsCache, ForgetsTheLeastRecentlyUsedAndWhoLeft) {
  Media x("{cacheSizeInMB: 4}");
  x.Send({"http://a"}, 0);
  x.Send({"http://b"}, 0);
  x.Send({"http://c"}, 0);
  EXPECT_THAT(x.Score({"http://a", "http://b", "http://c"}), ElementsAre(2.0 / 3, 0));
  x.scene.SetMembers({{.name = "s1", .address = "10.0.0.1", .port = 8001}});
  x.scene.SetMembers({{.name = "s1", .address = "10.0.0.1", .port = 8001},
                      {.name = "new", .address = "10.0.0.9", .port = 1}});
  EXPECT_THAT(x.Score({"http://b"}), Each(0.0));
}

}  // namespace
}  // namespace llmd::plugins
