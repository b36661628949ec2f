// PrefixIndex: which endpoint holds how much of which prompt, by block hash.
//
// A radix tree over hash chains. A node is a run of consecutive blocks; under it hang the runs that
// go on from its end. Each node lists its holders: an endpoint and how many blocks of the run it
// holds, from the run's start. A holder of a node with a parent holds all of the parent, so what an
// endpoint holds is closed under prefixes by construction and the match is exact and contiguous.
// Because equal hashes mean equal prefixes (see block_hash.h), one comparison at the end of a run
// settles the run.
//
// Eviction is least recently used per endpoint, tail first: an endpoint's extents stand in one list
// ordered by last use, deeper before shallower within one use, so the front is always a leaf and is
// trimmed from its end. The order is that of a plain LRU over blocks in which a use touches all
// blocks of the prompt, the first block last. When `bytes_max` is reached the least recently used
// extent of all endpoints goes; a tournament over the endpoints knows whose that is.
//
// Thread safety: thread-safe. One mutex, held for one Match or Record (under 1 us and 2 us for 512
// blocks) and for at most 256 extents of a Trim. The longest hold is the split of a run that very
// many endpoints hold, about 20 ns for each, once per branch.
// Invariants: 1. An endpoint never holds more blocks than the capacity of its last Record or Trim.
// 2. stats().bytes never exceeds bytes_max after an operation. 3. What an endpoint holds is closed
// under prefixes at all times.
// Limits: endpoint numbers below kEndpointsMax, others are ignored; kRunBlocksMax blocks per node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "prefix/block_hash.h"

namespace llmd::prefix {

class PrefixIndex {
 public:
  // As many as a fleet has (fleet::kEndpointsMax). Each costs 40 bytes, those below the highest
  // number that was recorded included.
  static constexpr uint32_t kEndpointsMax = 16384;
  // 1 KiB of hashes: a split copies at most that, and a prompt of 512 blocks is 4 nodes.
  static constexpr size_t kRunBlocksMax = 128;

  // Room for 1,000 endpoints of 31,250 blocks in runs of 30 or more, or 2 million single blocks.
  static constexpr size_t kBytesMaxDefault = 256u << 20;
  static constexpr size_t kBytesMaxSmallest = 1u << 20;  // a smaller limit counts as this

  explicit PrefixIndex(size_t bytes_max = kBytesMaxDefault);
  ~PrefixIndex();
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  // Adds to matched[e], for every endpoint e < matched.size(), the number of blocks from the start
  // of `chain` that e holds without a gap. Changes nothing in the index.
  void Match(std::span<const BlockHash> chain, std::span<uint32_t> matched) const;

  // `endpoint` has just been sent `chain`: it holds all of it, as the most recently used. Then what
  // is over `capacity_blocks` is evicted, and of a longer chain only its first blocks are kept.
  void Record(uint32_t endpoint, size_t capacity_blocks, std::span<const BlockHash> chain);

  // Evicts down to `capacity_blocks`.
  void Trim(uint32_t endpoint, size_t capacity_blocks);
  // The endpoint is gone, or another one has its number now.
  void Forget(uint32_t endpoint) { Trim(endpoint, 0); }

  size_t blocks(uint32_t endpoint) const;

  struct Stats {
    size_t bytes = 0;
    size_t nodes = 0;
    size_t extents = 0;           // (node, endpoint) pairs
    uint64_t blocks = 0;          // sum over endpoints
    uint64_t evicted_blocks = 0;  // since the start, Trim and Forget included
  };
  Stats stats() const;

  // Walks everything and checks every invariant; false says that one is broken.
  bool CheckForTest() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::prefix
