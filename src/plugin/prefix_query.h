// PrefixQuery: a plugin that knows which model servers hold which blocks of a prompt, for doors
// that ask on their own and not for a request (the index service).
//
// Thread safety: the plugin's methods are for any worker; each says which one it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/time.h"

namespace llmd::plugin {

struct PrefixQuestion {
  std::string_view model;       // of a LoRA request, the adapter's name
  std::string_view cache_salt;  // "": none
  // One of them: token ids, or the block keys that the asker made of them.
  std::span<const uint32_t> tokens = {};
  std::span<const uint64_t> keys = {};
};

// What one publisher (a data-parallel rank of a server) holds of the prompt.
struct PrefixHolding {
  std::string address;  // "ip:port"
  uint32_t rank = 0;
  uint32_t blocks = 0;    // from the start, without a gap, in any tier
  float score = 0;        // sum over them of their best tier's weight
  float confidence = 0;   // in what is known of this publisher, 0 to 1
};

class PrefixQuery {
 public:
  virtual ~PrefixQuery() = default;
  virtual uint32_t block_tokens() const = 0;
  // "cbor-fnv", "xxh64"; "own" for keys that nobody outside can make.
  virtual std::string_view key_algorithm() const = 0;
  // Everyone who is known, in no order, who holds nothing included.
  virtual std::vector<PrefixHolding> Ask(const PrefixQuestion& question, size_t worker,
                                         base::TimePoint now) = 0;
};

}  // namespace llmd::plugin
