// Block keys: a prompt's tokens as a chain of 64-bit values, one per full block, each covering all
// tokens before it, the model (or LoRA adapter) and what else makes a block differ (multimodal
// content, cache salt). Engine events and requests are put through the same chain, so an engine's
// own hashes never have to be understood.
//
//   const TokenChain chain(ChainKind::kOwn, seed);
//   std::vector<BlockKey> keys(tokens.size() / 16);
//   chain.Extend(chain.Root("llama-3"), tokens, 16, {}, keys);
//
// Kinds:
//   kOwn      private to one seed: 16 tokens go through independent 64x64->128 multiplications (NH,
//             Black et al. 1999), so that neighbouring blocks overlap in the pipeline, and one
//             multiplication per 16 tokens links them. All constants come from the seed: without it
//             nobody can construct collisions. The extras of a block form a set: order and
//             repetition are without effect.
//   kCborFnv  llm-d-router pkg/kvcache/kvblock/token_processor.go, "cbor-fnv": FNV-1a-64 over the
//             canonical CBOR of [parent, tokens, extras].
//   kXxh64    the same file, "xxh64": XXH64 over parent, tokens and extras with their lengths.
// The last two are byte compatible with upstream, so that an index can be shared with its pickers.
//
// Thread safety: immutable after construction.
// Invariants: 1. Extend over n blocks at once or in any pieces gives the same keys. 2. No key is 0.
// 3. Nothing is allocated.
// Limits: of one block kOwn sees the first kExtrasPerBlockMax extras. Cost: token_chain_bench.cc.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/arena.h"

namespace llmd::prefix {

// 0 is no key.
using BlockKey = uint64_t;

// Something besides tokens that a block depends on. Lists of extras are ordered by block; several
// of one block keep their order.
struct BlockExtra {
  uint32_t block = 0;  // counted from the first block of the call
  std::string_view text;

  friend bool operator==(const BlockExtra&, const BlockExtra&) = default;
};

enum class ChainKind : uint8_t { kOwn, kCborFnv, kXxh64 };
// "cbor-fnv", "xxh64" (upstream's names for hashAlgorithm) or "own"; nullopt for others.
std::optional<ChainKind> ParseChainKind(std::string_view name);
std::string_view ChainKindName(ChainKind kind);

class TokenChain {
 public:
  // Far more images than lie in one block; extras are compared with each other.
  static constexpr size_t kExtrasPerBlockMax = 256;

  // `seed` is upstream's hashSeed. For kOwn it should be random unless snapshots of the index are
  // to outlive the process.
  TokenChain(ChainKind kind, std::string_view seed);

  // The key before the first block. `model` is the adapter's name for a LoRA request.
  BlockKey Root(std::string_view model) const;

  // Keys of the full blocks of `tokens` after `parent` (a key of this chain, or Root) into `out`;
  // stops when `out` is full. Returns how many. `block_tokens` is positive.
  size_t Extend(BlockKey parent, std::span<const uint32_t> tokens, size_t block_tokens,
                std::span<const BlockExtra> extras, std::span<BlockKey> out) const;

  ChainKind kind() const { return kind_; }
  // Equal for chains that give equal keys: for the header of a snapshot.
  uint64_t fingerprint() const { return Root("fingerprint"); }

 private:
  static constexpr size_t kLinkTokens = 16;
  // Keys of the eight pairs of tokens of a link, then those of linking, roots and extras.
  using Secrets = std::array<uint64_t, kLinkTokens / 2 + 4>;

  size_t ExtendOwn(BlockKey parent, std::span<const uint32_t> tokens, size_t block_tokens,
                   std::span<const BlockExtra> extras, std::span<BlockKey> out) const;
  uint64_t OwnExtras(std::span<const BlockExtra> extras) const;

  ChainKind kind_;
  uint64_t init_ = 0;
  Secrets secrets_{};
};

// One multimodal item of a prompt: where its placeholder tokens lie, and the identifier (content
// hash) under which the engine knows it.
struct PlacedItem {
  uint32_t offset = 0;
  uint32_t length = 0;
  std::string_view identifier;
};

// Extras of a request in upstream's order: per block the items that overlap it, by `offset`, then
// on block 0 the cache salt, unless that is empty. `items` are ordered by offset. Only blocks below
// `blocks` are listed. Texts are not copied.
std::span<const BlockExtra> RequestExtras(std::span<const PlacedItem> items,
                                          std::string_view cache_salt, uint32_t block_tokens,
                                          uint32_t blocks, base::Arena* arena);

}  // namespace llmd::prefix
