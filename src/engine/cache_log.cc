#include "engine/cache_log.h"

namespace llmd::engine {

void CacheLog::Clear() {
  changes_.clear();
  owned_.clear();
  hashes_.clear();
  digests_.clear();
  begun_ = 0;
}

void CacheLog::AddBlock(uint64_t hash, const Digest* digest) {
  hashes_.push_back(hash);
  if (digest != nullptr) digests_.push_back(*digest);
}

void CacheLog::EndBlocks(CacheChange::Kind kind, CacheTier tier) {
  owned_.push_back({changes_.size(), begun_, hashes_.size()});
  begun_ = hashes_.size();
  changes_.push_back({.kind = kind, .tier = tier});
}

std::span<const CacheChange> CacheLog::changes() {
  for (const Owned& owned : owned_) {
    CacheChange& change = changes_[owned.change];
    change.hashes = std::span(hashes_).subspan(owned.begin, owned.end - owned.begin);
    if (!digests_.empty()) {
      change.digests = std::span(digests_).subspan(owned.begin, owned.end - owned.begin);
    }
  }
  return changes_;
}

}  // namespace llmd::engine
