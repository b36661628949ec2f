#include "bench/target.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace llmd::bench {
namespace {

TEST(TargetUrl, ReadsWhatSdkUsersWrite) {
  struct Case {
    const char* url;
    bool tls;
    const char* host;
    int port;
    const char* host_field;
    const char* base_path;
  };
  for (const Case& c : {
           Case{"http://127.0.0.1:8080", false, "127.0.0.1", 8080, "127.0.0.1:8080", ""},
           Case{"http://127.0.0.1:8080/", false, "127.0.0.1", 8080, "127.0.0.1:8080", ""},
           Case{"http://127.0.0.1:8080/v1/", false, "127.0.0.1", 8080, "127.0.0.1:8080", ""},
           Case{"localhost:9", false, "localhost", 9, "localhost:9", ""},
           Case{"HTTPS://api.example.com/openai/v1", true, "api.example.com", 443,
                "api.example.com", "/openai"},
           Case{"https://api.example.com:444/x", true, "api.example.com", 444,
                "api.example.com:444", "/x"},
           Case{"http://[::1]:80/a/b", false, "::1", 80, "[::1]", "/a/b"},
           Case{"http://[::1]", false, "::1", 80, "[::1]", ""},
       }) {
    const auto target = ParseTargetUrl(c.url);
    ASSERT_TRUE(target) << c.url;
    EXPECT_EQ(target->tls, c.tls) << c.url;
    EXPECT_EQ(target->host, c.host) << c.url;
    EXPECT_EQ(target->port, c.port) << c.url;
    EXPECT_EQ(target->host_field, c.host_field) << c.url;
    EXPECT_EQ(target->base_path, c.base_path) << c.url;
  }
}

TEST(TargetUrl, RefusesTheRestWithTheExpectedForm) {
  for (const char* url : {"", "ftp://x", "http://", "http://:80", "http://h:99999", "http://h:x",
                          "http://u@h", "http://h/a?b=c", "http://h/a b", "http://h/a\r\nX: y"}) {
    const auto target = ParseTargetUrl(url);
    ASSERT_FALSE(target) << url;
    EXPECT_THAT(std::string(target.error().message()), ::testing::HasSubstr("expected http"))
        << url;
  }
}

}  // namespace
}  // namespace llmd::bench
