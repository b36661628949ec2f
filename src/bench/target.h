// Where requests go: a base URL as users of OpenAI SDKs write it.
//
// "http://host:port", "https://host/prefix" and the same with "/v1" at the end are accepted; a
// missing scheme means http. Pure, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace llmd::bench {

struct TargetUrl {
  bool tls = false;
  std::string host;  // without brackets
  uint16_t port = 80;
  std::string host_field;  // value of the Host header: with the port unless it is the scheme's own
  std::string base_path;   // "" or "/prefix": what stands before "/v1/..."
};

base::Result<TargetUrl> ParseTargetUrl(std::string_view url);

}  // namespace llmd::bench
