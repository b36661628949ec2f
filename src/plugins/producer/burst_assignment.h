// Who gets which request of a burst, so that requests with the same prompt meet on one replica.
//
// Requests with identical prompts form a group; a group of two or more, and a single request that
// shares at least `min_colocate_blocks` leading blocks with another, are placed: longest prompt
// first, groups before singles. A unit goes to the replica that holds most of its prompt already in
// this burst (at least min_colocate_blocks of it) and is below its fair share, else to the least
// loaded one (ties: fewer running requests, then the name); what exceeds `max_per_replica` goes on
// to the next. Everything else is left to the scorers.
//
// Pure. Source: llm-d-router, pkg/epp/framework/plugins/requestcontrol/dataproducer/burstprefix.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "prefix/block_hash.h"

namespace llmd::plugins {

struct BurstRules {
  std::optional<size_t> max_per_replica;  // of one group; nullopt: no limit
  size_t min_colocate_blocks = 0;         // 0: only identical prompts are placed
  bool by_tokens = false;                 // balance blocks to be computed instead of requests
};

struct BurstReplica {
  std::string name;
  double running = 0;
};

// Index into `replicas` for each request, nullopt where none is meant. A prompt is its block
// hashes, those of several prompts one after the other; an empty one is never placed.
std::vector<std::optional<size_t>> AssignBurst(
    std::span<const std::vector<prefix::BlockHash>> prompts, std::span<const BurstReplica> replicas,
    const BurstRules& rules);

}  // namespace llmd::plugins
