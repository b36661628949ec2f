#include "director/subset.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"

namespace llmd::director {
namespace {

TEST(Subset, NamesEndpointsByAddressAndPort) {
  struct Case {
    std::string_view entry, address;
    uint16_t port;
    bool allowed;
  };
  for (const Case& c : {
           Case{"10.0.0.1", "10.0.0.1", 8000, true},
           {"10.0.0.1", "10.0.0.1", 9, true},
           {"10.0.0.1", "10.0.0.11", 8000, false},
           {"10.0.0.1:8000", "10.0.0.1", 8000, true},
           {"10.0.0.1:8000", "10.0.0.1", 8001, false},
           {" 10.0.0.1:8000 ", "10.0.0.1", 8000, true},
           {"[fd00::1]:8000", "fd00::1", 8000, true},
           {"[fd00::1]:8000", "fd00::1", 8001, false},
           {"[fd00::1]", "fd00::1", 8001, true},
           {"fd00::1", "fd00::1", 7, true},
           {"FD00::1", "fd00::1", 7, true},
           {"[FD00::a]:7", "fd00::A", 7, true},
           {"fd00::1:8000", "fd00::1", 8000, false},  // an address of its own
           {"::1", "::1", 8000, true},
           {"model-0.example:8000", "Model-0.example", 8000, true},
           {"10.0.0.1:", "10.0.0.1", 8000, false},
           {"10.0.0.1:0", "10.0.0.1", 8000, false},
           {"10.0.0.1:65536", "10.0.0.1", 8000, false},
           {"10.0.0.1:http", "10.0.0.1", 8000, false},
           {"[fd00::1", "fd00::1", 8000, false},
           {"[fd00::1]8000", "fd00::1", 8000, false},
           {"[fd00::1]:", "fd00::1", 8000, false},
           {"", "", 8000, false},
           {":", "", 8000, false},
           {":8000", "", 8000, false},
       }) {
    base::Arena arena;
    const Subset subset(arena, {&c.entry, 1});
    EXPECT_EQ(subset.Allows({.name = "e", .address = std::string(c.address), .port = c.port,
                             .labels = {}}),
              c.allowed)
        << c.entry << " " << c.address << " " << c.port;
  }
}

TEST(Subset, AnEmptyListNamesNobody) {
  base::Arena arena;
  EXPECT_FALSE(Subset(arena, {}).Allows({.name = "e", .address = "10.0.0.1", .labels = {}}));
  EXPECT_FALSE(Subset().Allows({.name = "e", .address = "", .labels = {}}));
}

TEST(Subset, ManyEntriesAgreeWithALinearSearch) {
  base::Random random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::string> texts;
    std::vector<std::pair<std::string, uint16_t>> plain;
    for (uint64_t i = random.Below(60); i > 0; --i) {
      const std::string address = "10.0.0." + std::to_string(random.Below(20));
      const auto port = static_cast<uint16_t>(random.Below(3));  // 0: none
      texts.push_back(port ? address + ":" + std::to_string(port) : address);
      plain.emplace_back(address, port);
    }
    base::Arena arena;
    const std::vector<std::string_view> views(texts.begin(), texts.end());
    const Subset subset(arena, views);
    for (int host = 0; host < 20; ++host) {
      for (uint16_t port = 1; port < 4; ++port) {
        const fleet::EndpointSpec spec{.name = "e", .address = "10.0.0." + std::to_string(host),
                                       .port = port, .labels = {}};
        bool expected = false;
        for (const auto& [address, p] : plain) {
          expected |= address == spec.address && (p == 0 || p == port);
        }
        ASSERT_EQ(subset.Allows(spec), expected) << spec.address << ":" << port;
      }
    }
  }
}

}  // namespace
}  // namespace llmd::director
