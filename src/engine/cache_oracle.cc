#include "engine/cache_oracle.h"

#include <algorithm>

namespace llmd::engine {

uint32_t CacheOracle::Access(std::span<const Token> prompt) {
  hashes_.clear();
  HashBlocks(RootHash(0, 0), prompt, block_tokens_, &hashes_);
  size_t hits = 0;
  while (hits < hashes_.size() && place_.contains(hashes_[hits])) ++hits;

  // What is there must not make room for what is missing; then head last, so that it stays longest.
  for (const uint64_t hash : hashes_) {
    const auto found = place_.find(hash);
    if (found != place_.end()) by_age_.splice(by_age_.end(), by_age_, found->second);
  }
  for (size_t i = hashes_.size(); i-- > 0;) {
    const auto found = place_.find(hashes_[i]);
    if (found != place_.end()) {
      by_age_.splice(by_age_.end(), by_age_, found->second);
      continue;
    }
    if (place_.size() == blocks_max_) {
      place_.erase(by_age_.front());
      by_age_.pop_front();
    }
    place_[hashes_[i]] = by_age_.insert(by_age_.end(), hashes_[i]);
  }

  // The last token is always computed.
  const size_t usable = prompt.empty() ? 0 : (prompt.size() - 1) / block_tokens_;
  const uint32_t tokens = static_cast<uint32_t>(std::min(hits, usable)) * block_tokens_;
  queried_tokens_ += prompt.size();
  hit_tokens_ += tokens;
  return tokens;
}

}  // namespace llmd::engine
