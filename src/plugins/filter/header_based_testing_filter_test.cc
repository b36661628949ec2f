#include "plugins/filter/header_based_testing_filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plugins/testing.h"

namespace llmd::plugins {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;
using testing::Scene;

std::vector<plugin::EndpointNumber> Kept(std::string_view header) {
  Scene scene(0);
  scene.SetMembers({{.name = "a", .address = "10.0.0.1", .port = 8000, .labels = {}},
                    {.name = "b", .address = "10.0.0.1", .port = 8001, .labels = {}},
                    {.name = "c", .address = "10.0.0.2", .port = 8000, .labels = {}},
                    {.name = "d", .address = "fd00::1", .port = 8000, .labels = {}}});
  auto filter = scene.Make(HeaderBasedTestingFilterType());
  const plugin::Header headers[] = {{"Test-EPP-Endpoint-Selection", header}};
  scene.NewRequest().headers = headers;
  return scene.Filter(*filter);
}

TEST(HeaderBasedTestingFilter, KeepsWhoIsNamed) {
  const struct {
    std::string_view header;
    std::vector<plugin::EndpointNumber> kept;
  } cases[] = {{"10.0.0.2", {2}},
               {"10.0.0.1:8000", {0}},
               {"10.0.0.1", {1}},
               {" 10.0.0.2:8000 , 10.0.0.1:8001 ,", {1, 2}},
               {"fd00::1", {3}},
               {"[fd00::1]", {3}},
               {"[fd00::1]:8000", {3}},
               {"[fd00::1]:9", {}},
               {"10.0.0.1:9", {}},
               {"10.0.0.9", {}},
               {"nonsense:port,[", {}},
               {"", {}}};
  for (const auto& c : cases) EXPECT_THAT(Kept(c.header), ElementsAreArray(c.kept)) << c.header;
}

TEST(HeaderBasedTestingFilter, WithoutTheHeaderNobodyIsKept) {
  Scene scene(2);
  auto filter = scene.Make(HeaderBasedTestingFilterType());
  scene.NewRequest();
  EXPECT_THAT(scene.Filter(*filter), IsEmpty());
}

}  // namespace
}  // namespace llmd::plugins
