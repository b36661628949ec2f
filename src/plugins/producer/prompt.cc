#include "plugins/producer/prompt.h"

#include <algorithm>
#include <optional>

#include "base/hash.h"

namespace llmd::plugins {
namespace {

using prefix::BlockHash;
using prefix::kBytesPerToken;
using prefix::PromptHasher;
using protocol::PieceKind;

uint64_t CeilDiv(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

uint32_t MediaTokens(const PromptValue& value, std::span<const uint32_t> media_tokens) {
  return value.media_index < media_tokens.size() ? media_tokens[value.media_index] : 1;
}

// A value that means its content, however it was cut: for placeholder tokens.
uint32_t ContentToken(const PromptValue& value, base::Arena& arena) {
  constexpr size_t kStepBytes = 4096;
  PromptHasher hasher(0, kStepBytes, arena.NewSpan<BlockHash>(value.bytes() / kStepBytes + 1),
                      arena.NewSpan<char>(kStepBytes));
  for (const protocol::Piece& piece : value.pieces) hasher.Append(piece.bytes);
  const std::span<BlockHash> hashes = hasher.Finish();
  return hashes.empty() ? 0 : static_cast<uint32_t>(hashes.back());
}

// Ids that stand for media are all alike, whatever the content: its hash takes their place.
void AppendTokenIds(const protocol::Request& request, const PromptValue& value,
                    PromptHasher& hasher) {
  std::span<const protocol::MediaFeature> media = request.media_features;  // by offset
  uint64_t at = 0;
  protocol::ForEachTokenId(request.encoding, value.pieces, [&](uint32_t id) {
    while (!media.empty() && at >= uint64_t{media[0].offset} + media[0].length) {
      media = media.subspan(1);
    }
    const bool inside = !media.empty() && at >= media[0].offset;
    hasher.AppendTokens(inside ? static_cast<uint32_t>(base::Hash64(media[0].hash)) : id, 1);
    ++at;
  });
}

void AppendValue(const protocol::Request& request, const PromptValue& value,
                 std::span<const uint32_t> media_tokens, PromptHasher& hasher,
                 base::Arena& arena) {
  if (hasher.full()) return;
  if (value.kind == PieceKind::kTokenIds) {
    hasher.AlignToToken();
    AppendTokenIds(request, value, hasher);
  } else if (protocol::IsMedia(value.kind)) {
    hasher.AlignToToken();
    hasher.AppendTokens(ContentToken(value, arena), MediaTokens(value, media_tokens));
  } else {
    for (const protocol::Piece& piece : value.pieces) hasher.Append(piece.bytes);
  }
}

}  // namespace

uint64_t CountTokens(const protocol::Request& request, std::span<const uint32_t> media_tokens) {
  uint64_t tokens = 0, text_bytes = 0;
  uint32_t prompt = 0;
  auto align = [&] {
    tokens += CeilDiv(text_bytes, kBytesPerToken);
    text_bytes = 0;
  };
  ForEachValue(request, [&](const PromptValue& value) {
    if (value.prompt != prompt) align();
    prompt = value.prompt;
    if (value.kind == PieceKind::kTokenIds) {
      align();
      tokens += value.pieces.back().token_count;
    } else if (protocol::IsMedia(value.kind)) {
      align();
      tokens += MediaTokens(value, media_tokens);
    } else {
      text_bytes += value.bytes();
    }
  });
  align();
  return tokens;
}

PromptChains HashPrompts(const protocol::Request& request, std::span<const uint32_t> media_tokens,
                         uint64_t seed, size_t block_tokens, size_t blocks_max,
                         base::Arena& arena) {
  if (request.pieces.empty()) return {};
  // Each prompt ends in a block of its own, so that there are never more than one per prompt and
  // one per full block of all tokens.
  const uint64_t tokens = CountTokens(request, media_tokens);
  const uint32_t prompts_max =
      std::max_element(request.pieces.begin(), request.pieces.end(),
                       [](const auto& a, const auto& b) { return a.prompt < b.prompt; })
          ->prompt +
      1;
  const std::span<BlockHash> out = arena.NewSpan<BlockHash>(
      std::min<uint64_t>(tokens / block_tokens + prompts_max, uint64_t{blocks_max} * prompts_max));
  const std::span<char> staging = arena.NewSpan<char>(block_tokens * kBytesPerToken);
  const auto chains = arena.NewSpan<std::span<const BlockHash>>(prompts_max);

  size_t used = 0, chain_count = 0;
  uint32_t prompt = 0;
  std::optional<PromptHasher> hasher;
  auto finish = [&] {
    if (!hasher) return;
    const std::span<const BlockHash> chain = hasher->Finish();
    hasher.reset();
    used += chain.size();
    if (!chain.empty() && chain_count < chains.size()) chains[chain_count++] = chain;
  };
  ForEachValue(request, [&](const PromptValue& value) {
    if (value.prompt != prompt) finish();
    prompt = value.prompt;
    if (!hasher) {
      const size_t room = std::min(blocks_max, out.size() - used);
      hasher.emplace(seed, staging.size(), out.subspan(used, room), staging);
    }
    AppendValue(request, value, media_tokens, *hasher, arena);
  });
  finish();
  return {chains.first(chain_count), static_cast<uint32_t>(used)};
}

}  // namespace llmd::plugins
