#include "text/chunk_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <iterator>
#include <mutex>
#include <utility>

namespace llmd::text {

ChunkCache::ChunkCache(size_t budget_bytes, uint64_t seed)
    : shard_budget_bytes_(budget_bytes / kShards), seed_(seed) {}

ChunkCache::Key ChunkCache::KeyOf(std::string_view chunk) const {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(chunk.data(), chunk.size(), seed_);
  return {.low = hash.low64, .high = hash.high64};
}

bool ChunkCache::Append(const Key& key, std::vector<uint32_t>& ids) {
  Shard& shard = ShardOf(key);
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.places.find(key);
  if (found == shard.places.end()) return false;
  shard.chunks.splice(shard.chunks.begin(), shard.chunks, found->second);
  const Chunk& chunk = *found->second;
  ids.insert(ids.end(), chunk.ids.get(), chunk.ids.get() + chunk.count);
  return true;
}

void ChunkCache::Insert(const Key& key, std::span<const uint32_t> ids) {
  Chunk chunk{.key = key,
              .count = ids.size(),
              .ids = std::make_unique_for_overwrite<uint32_t[]>(ids.size())};
  if (chunk.bytes() > shard_budget_bytes_) return;
  std::ranges::copy(ids, chunk.ids.get());
  std::list<Chunk> dropped;  // freed after the lock
  Shard& shard = ShardOf(key);
  const std::lock_guard lock(shard.mutex);
  if (shard.places.contains(key)) return;
  while (shard.bytes + chunk.bytes() > shard_budget_bytes_) {
    const auto last = std::prev(shard.chunks.end());
    shard.bytes -= last->bytes();
    shard.places.erase(last->key);
    dropped.splice(dropped.begin(), shard.chunks, last);
    ++shard.evicted;
  }
  shard.bytes += chunk.bytes();
  shard.chunks.push_front(std::move(chunk));
  shard.places.emplace(key, shard.chunks.begin());
}

ChunkCache::Stats ChunkCache::stats() const {
  Stats stats;
  for (const Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    stats.evicted += shard.evicted;
    stats.chunks += shard.chunks.size();
    stats.bytes += shard.bytes;
  }
  return stats;
}

}  // namespace llmd::text
