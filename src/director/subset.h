// Subset: the endpoints among which a proxy lets the picker choose (the hint of Envoy's subset load
// balancing; Gateway API Inference Extension, proposal 004).
//
// An entry is "ip" (any port), "ip:port", "[v6]:port", "[v6]", or a v6 address without brackets,
// which has no port then. Case is ignored; addresses are compared as text, and an endpoint by the
// address that discovery gave it. Text of another form names nobody. (Upstream cuts at the last
// colon and compares addresses only.)
//
// Thread safety: immutable; everything lies in the arena it was made with. Building sorts n
// entries, asking compares log n.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/arena.h"
#include "fleet/endpoint.h"

namespace llmd::director {

class Subset {
 public:
  // Nobody.
  Subset() = default;
  // Copies what it keeps of `entries`.
  Subset(base::Arena& arena, std::span<const std::string_view> entries);

  bool Allows(const fleet::EndpointSpec& endpoint) const;

 private:
  struct Entry {
    std::string_view address;
    uint16_t port;  // 0 = any
  };

  std::span<Entry> entries_;  // by address, ASCII case ignored
};

}  // namespace llmd::director
