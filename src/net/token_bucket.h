// A token bucket: `burst` tokens at first and at most, `per_second` new ones.
//
// Thread safety: none.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/time.h"

namespace llmd::net {

class TokenBucket {
 public:
  TokenBucket(uint32_t burst, uint32_t per_second, base::TimePoint now)
      : tokens_(burst), burst_(burst), per_second_(per_second), filled_at_(now) {}

  // False when it is empty.
  bool Take(base::TimePoint now) {
    if (tokens_ < 1) Fill(now);
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
  }
  void Earn(uint32_t count) { tokens_ = std::min(tokens_ + count, burst_); }

 private:
  void Fill(base::TimePoint now) {
    tokens_ = std::min(tokens_ + base::ToSeconds(now - filled_at_) * per_second_, burst_);
    filled_at_ = now;
  }

  double tokens_;
  double burst_;
  double per_second_;
  base::TimePoint filled_at_;
};

}  // namespace llmd::net
