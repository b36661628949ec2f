// What a step changed in the caches, in vLLM's granularity: one change per sequence and step for
// what was stored, one per evicted block for what was removed (v1/core/block_pool.py; for the
// offload tier v1/kv_offload).
//
// Thread safety: none. Changes are valid until the next call on the engine.
// Invariants: 1. Applied in order to an empty multiset of (tier, hash), they give what the caches
// hold: a hash that is stored twice (in two blocks) has to be removed twice. 2. The parent of a
// stored block was stored before it; a block that was removed may be a parent again.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/block_hash.h"
#include "engine/wire_hash.h"

namespace llmd::engine {

enum class CacheTier : uint8_t { kGpu, kCpu };

struct CacheChange {
  enum class Kind : uint8_t {
    kStored,   // consecutive blocks of one prompt; in the CPU tier any blocks, without tokens
    kRemoved,
    kCleared,  // the GPU tier holds nothing any more
  };
  Kind kind = Kind::kStored;
  CacheTier tier = CacheTier::kGpu;
  std::span<const uint64_t> hashes;
  std::span<const Digest> digests;  // of the same blocks, with a wire hash
  std::span<const Token> tokens;
  bool has_parent = false;  // else the first block starts a prompt
  uint64_t parent = 0;
  Digest parent_digest{};
  std::string_view salt;  // of a first block
};

class CacheLog {
 public:
  void Clear();
  // What `change` points to lives until Clear.
  void Add(const CacheChange& change) { changes_.push_back(change); }
  // One block of a change whose blocks lie here. Blocks of one change are added in a row; kEnd
  // follows.
  void AddBlock(uint64_t hash, const Digest* digest);
  void EndBlocks(CacheChange::Kind kind, CacheTier tier);
  // Valid until the next Add, AddBlock or Clear.
  std::span<const CacheChange> changes();

 private:
  struct Owned {
    size_t change;
    size_t begin, end;  // in hashes_, and in digests_ if there are any
  };

  std::vector<CacheChange> changes_;
  std::vector<Owned> owned_;
  std::vector<uint64_t> hashes_;
  std::vector<Digest> digests_;
  size_t begun_ = 0;  // first block of the change that is being added
};

}  // namespace llmd::engine
