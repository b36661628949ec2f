// The engine's caches: what is found in them, what comes and goes, and telling of it.
#include <algorithm>
#include <utility>

#include "engine/engine.h"

namespace llmd::engine {

void Engine::AllocateBlocks(uint32_t n, Sequence* s) {
  if (!config_.cache_changes) return pool_.Allocate(n, &s->blocks);
  evicted_.clear();
  pool_.Allocate(n, &s->blocks, &evicted_);
  // One change each, as vLLM does.
  for (const BlockId& block : evicted_) LogRemoved(pool_, CacheTier::kGpu, {&block, 1});
}

void Engine::RegisterBlocks(Sequence* s) {
  const uint32_t begin = s->registered;
  const uint32_t full = (s->computed + s->scheduled) / config_.block_tokens;
  if (full <= begin) return;
  for (; s->registered < full; ++s->registered) {
    const BlockId block = s->blocks[s->registered];
    pool_.Register(block, s->hashes[s->registered]);
    if (hasher_) digests_[block] = s->digests[s->registered];
  }
  if (config_.cache_changes) LogStored(*s, begin, full);
  if (offload_) Offload(*s, begin, full);
}

void Engine::LogStored(const Sequence& s, uint32_t begin, uint32_t end) {
  const uint32_t n = end - begin;
  CacheChange change{.kind = CacheChange::Kind::kStored,
                     .tier = CacheTier::kGpu,
                     .hashes = std::span(s.hashes).subspan(begin, n),
                     .digests = {},
                     .tokens = std::span(s.tokens).subspan(begin * config_.block_tokens,
                                                           n * config_.block_tokens),
                     .has_parent = begin > 0};
  if (begin > 0) change.parent = s.hashes[begin - 1];
  if (begin == 0) change.salt = s.salt;
  if (hasher_) {
    change.digests = std::span(s.digests).subspan(begin, n);
    if (begin > 0) change.parent_digest = s.digests[begin - 1];
  }
  log_.Add(change);
}

void Engine::LogRemoved(const BlockPool& pool, CacheTier tier, std::span<const BlockId> blocks) {
  const std::vector<Digest>& digests = tier == CacheTier::kGpu ? digests_ : offload_digests_;
  for (const BlockId block : blocks) {
    log_.AddBlock(pool.hash_of(block), hasher_ ? &digests[block] : nullptr);
  }
  log_.EndBlocks(CacheChange::Kind::kRemoved, tier);
}

// How many blocks from `begin` on the offload tier has in a row.
uint32_t Engine::FindOffloaded(const Sequence& s, uint32_t begin, uint32_t end) const {
  if (!offload_) return 0;
  uint32_t i = begin;
  while (i < end && offload_->Find(s.hashes[i]) != kNoBlock) ++i;
  return i - begin;
}

void Engine::TouchOffloaded(const Sequence& s, uint32_t end) {
  if (!offload_) return;
  for (uint32_t i = end; i-- > 0;) {
    const BlockId block = offload_->Find(s.hashes[i]);
    if (block == kNoBlock) continue;
    offload_->Hold(block);
    offload_->Release({&block, 1});
  }
}

void Engine::Offload(const Sequence& s, uint32_t begin, uint32_t end) {
  evicted_.clear();
  offloaded_.clear();
  // The head of what does not fit as a whole; so nothing that is stored here is evicted here.
  end = std::min(end, begin + offload_->size());
  for (uint32_t i = end; i-- > begin;) {
    BlockId block = offload_->Find(s.hashes[i]);
    if (block != kNoBlock) {
      offload_->Hold(block);
    } else {
      const size_t evicted = evicted_.size();
      offload_->Allocate(1, &offloaded_, &evicted_);
      block = offloaded_.back();
      // Before the block's new content overwrites what it was.
      if (config_.cache_changes && evicted_.size() > evicted) {
        LogRemoved(*offload_, CacheTier::kCpu, {&block, 1});
      }
      offload_->Register(block, s.hashes[i]);
      if (hasher_) offload_digests_[block] = s.digests[i];
    }
    offload_->Release({&block, 1});
  }
  if (!config_.cache_changes || offloaded_.empty()) return;
  for (size_t i = offloaded_.size(); i-- > 0;) {
    const BlockId block = offloaded_[i];
    log_.AddBlock(offload_->hash_of(block), hasher_ ? &offload_digests_[block] : nullptr);
  }
  log_.EndBlocks(CacheChange::Kind::kStored, CacheTier::kCpu);
}

bool Engine::ResetPrefixCache(bool offload_too) {
  if (pool_.free_count() < pool_.size()) return false;
  if (std::exchange(log_taken_, false)) log_.Clear();
  pool_.ForgetAll();
  if (config_.cache_changes) {
    log_.Add({.kind = CacheChange::Kind::kCleared, .tier = CacheTier::kGpu});
  }
  if (!offload_ || !offload_too) return true;
  if (config_.cache_changes) {
    for (BlockId block = 0; block < offload_->size(); ++block) {
      if (offload_->hashed(block)) LogRemoved(*offload_, CacheTier::kCpu, {&block, 1});
    }
  }
  offload_->ForgetAll();
  return true;
}

std::vector<uint64_t> Engine::CachedHashes(CacheTier tier) const {
  std::vector<uint64_t> hashes;
  if (tier == CacheTier::kCpu && !offload_) return hashes;
  const BlockPool& pool = tier == CacheTier::kGpu ? pool_ : *offload_;
  for (BlockId block = 0; block < pool.size(); ++block) {
    if (pool.hashed(block)) hashes.push_back(pool.hash_of(block));
  }
  return hashes;
}

}  // namespace llmd::engine
