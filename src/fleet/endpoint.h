// What an endpoint is: one serving address of a model server (a data-parallel rank is its own
// endpoint). Identity never changes while the number is in use.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmd::fleet {

// Index into every per-endpoint column. A number is reused only when nobody holds an Endpoint of
// its old owner any more: no View that has yet to refresh, no Pin, no scraper's shared_ptr.
using EndpointNumber = uint32_t;
inline constexpr EndpointNumber kNoEndpoint = ~EndpointNumber{0};

// Endpoints one process serves at most: sixteen times the largest fleet that the field reports per
// picker. Each costs the store 64 bytes of load, 48 of ownership and 8 per worker and counter, and
// each worker's view 60 and 8 per counter: all of them 33 MiB with 16 workers and 4 counters.
// Columns grow with the fleet (Rows): ten endpoints cost a sixteenth of the store's part.
inline constexpr size_t kEndpointsMax = 16384;

// An endpoint as discovery (a file, flags, Kubernetes) describes it.
struct EndpointSpec {
  std::string name;
  std::string name_space = "default";
  std::string address;  // IPv4, IPv6 (no brackets) or DNS name
  uint16_t port = 8000;
  std::vector<std::pair<std::string, std::string>> labels;  // sorted by key, keys unique
  bool draining = false;  // finishes what it has, gets nothing new

  bool operator==(const EndpointSpec&) const = default;
  // The label's value, or nullptr.
  const std::string* Label(std::string_view key) const;
};

struct Endpoint {
  EndpointNumber number = kNoEndpoint;
  EndpointSpec spec;
  std::string host_port;  // "10.0.0.1:8000", "[fd00::1]:8000", "name:8000"
  uint64_t generation = 0;  // grows with every reuse of the number; (number, generation) is unique
};

// "host:port" with brackets around an IPv6 address.
std::string JoinHostPort(std::string_view address, uint16_t port);

}  // namespace llmd::fleet
