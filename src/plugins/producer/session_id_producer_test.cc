#include "plugins/producer/session_id_producer.h"

#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using testing::Scene;

std::string SessionOf(std::string_view yaml, std::vector<plugin::Header> headers) {
  Scene scene(1);
  auto made = scene.Make(SessionIdProducerType(), yaml);
  plugin::RequestContext& request = scene.NewRequest();
  request.headers = headers;
  EXPECT_TRUE(scene.Produce(*made).ok());
  const auto* session = request.attributes.Get(scene.context().SlotOf<plugin::SessionId>());
  return session ? std::string(session->id) : "";
}

TEST(SessionIdProducer, ReadsAHeader) {
  EXPECT_EQ(SessionOf("{headerName: X-Chat}", {{"x-chat", " 7 "}}), "7");
  EXPECT_EQ(SessionOf("{headerName: X-Chat}", {{"x-chat", " "}}), "");
  EXPECT_EQ(SessionOf("{headerName: X-Chat}", {}), "");
}

TEST(SessionIdProducer, ReadsACookie) {
  EXPECT_EQ(SessionOf("{cookieName: sid}", {{"Cookie", "a=1; sid=x=y; b=2"}}), "x=y");
  EXPECT_EQ(SessionOf("{cookieName: sid}", {{"cookie", "xsid=1; SID=2; sid"}}), "");
  EXPECT_EQ(SessionOf("{cookieName: sid}", {}), "");
}

TEST(SessionIdProducer, NeedsExactlyOneSource) {
  for (const char* yaml : {"{}", "{headerName: a, cookieName: b}", "{headerName: ' '}"}) {
    Scene scene(1);
    EXPECT_EQ(scene.Make(SessionIdProducerType(), yaml), nullptr) << yaml;
  }
}

}  // namespace
}  // namespace llmd::plugins
