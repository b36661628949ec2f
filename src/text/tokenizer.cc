#include "text/tokenizer.h"

#include <atomic>
#include <optional>
#include <span>
#include <utility>

#include "base/strings.h"
#include "text/border.h"
#include "text/chunk_cache.h"

namespace llmd::text {
namespace {

// Without exceptions: there is no way across the border for them.
void TakeIds(void* context, const uint32_t* ids, size_t count) noexcept {
  auto& out = *static_cast<std::vector<uint32_t>*>(context);
  out.insert(out.end(), ids, ids + count);
}

struct FreeTokenizer {
  void operator()(LlmdTokenizer* tokenizer) const { llmd_tokenizer_free(tokenizer); }
};

}  // namespace

std::string_view TokenizerEngineName(TokenizerEngine engine) {
  return engine == TokenizerEngine::kFastokens ? "fastokens" : "tokenizers";
}

struct Tokenizer::Impl {
  std::unique_ptr<LlmdTokenizer, FreeTokenizer> tokenizer;
  LlmdTokenizerInfo info;
  std::optional<ChunkCache> cache;
  std::atomic<uint64_t> hit_bytes = 0;
  std::atomic<uint64_t> miss_bytes = 0;

  std::span<const uint32_t> before() const { return {info.before, info.before_count}; }
  std::span<const uint32_t> after() const { return {info.after, info.after_count}; }

  base::Status EncodeWhole(std::string_view text, bool add_special_tokens,
                           std::vector<uint32_t>& ids) {
    ErrorText error;
    const LlmdTextStatus status = llmd_tokenizer_encode(
        tokenizer.get(), ToSlice(text), add_special_tokens ? 1 : 0, TakeIds, &ids, error.out());
    return status == LLMD_TEXT_OK ? base::OkStatus() : ToStatus(status, error);
  }

  base::Status EncodeChunk(std::string_view chunk, std::vector<uint32_t>& ids) {
    if (!cache) return EncodeWhole(chunk, false, ids);
    const ChunkCache::Key key = cache->KeyOf(chunk);
    if (cache->Append(key, ids)) {
      hit_bytes.fetch_add(chunk.size(), std::memory_order_relaxed);
      return base::OkStatus();
    }
    miss_bytes.fetch_add(chunk.size(), std::memory_order_relaxed);
    const size_t begin = ids.size();
    LLMD_RETURN_IF_ERROR(EncodeWhole(chunk, false, ids));
    cache->Insert(key, std::span(ids).subspan(begin));
    return base::OkStatus();
  }

  base::Status EncodeChunks(std::string_view text, const std::atomic<bool>* cancel,
                            std::vector<uint32_t>& ids) {
    std::vector<size_t> ends(text.size() / LLMD_PIECE_MIN + 1);
    size_t count = 0;
    ErrorText error;
    const LlmdTextStatus status = llmd_tokenizer_cut(tokenizer.get(), ToSlice(text), ends.data(),
                                                     ends.size(), &count, error.out());
    if (status != LLMD_TEXT_OK) return ToStatus(status, error);
    size_t begin = 0;
    for (const size_t end : std::span(ends).first(count)) {
      if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
        return base::DeadlineExceeded(base::Concat("tokenising was given up after ",
                                                   std::to_string(begin), " of ",
                                                   std::to_string(text.size()), " bytes"));
      }
      LLMD_RETURN_IF_ERROR(EncodeChunk(text.substr(begin, end - begin), ids));
      begin = end;
    }
    return base::OkStatus();
  }

  base::Status Encode(std::string_view text, bool add_special_tokens,
                      const std::atomic<bool>* cancel, std::vector<uint32_t>& ids) {
    if (info.reuses == 0 || (add_special_tokens && info.fixed_around == 0)) {
      return EncodeWhole(text, add_special_tokens, ids);
    }
    if (add_special_tokens) ids.assign(before().begin(), before().end());
    LLMD_RETURN_IF_ERROR(EncodeChunks(text, cancel, ids));
    if (add_special_tokens) ids.insert(ids.end(), after().begin(), after().end());
    return base::OkStatus();
  }
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)),
      engine_(impl_->info.fast != 0 ? TokenizerEngine::kFastokens : TokenizerEngine::kTokenizers),
      engine_reason_(impl_->info.reason.data, impl_->info.reason.size),
      vocab_size_(impl_->info.vocab_size),
      reuses_prefixes_(impl_->info.reuses != 0) {}

Tokenizer::~Tokenizer() = default;

base::Result<std::shared_ptr<const Tokenizer>> Tokenizer::Load(const TokenizerFiles& files,
                                                               const TokenizerOptions& options) {
  if (files.tokenizer_json.size() > kTokenizerFileBytesMax ||
      files.tokenizer_config_json.size() > kTokenizerFileBytesMax) {
    return std::unexpected(base::InvalidArgument(base::Concat(
        "a tokenizer's file is longer than ", std::to_string(kTokenizerFileBytesMax), " bytes")));
  }
  LlmdTokenizer* loaded = nullptr;
  ErrorText error;
  const LlmdTextStatus status =
      llmd_tokenizer_load(ToSlice(files.tokenizer_json), ToSlice(files.tokenizer_config_json),
                          options.fast ? 1 : 0, &loaded, error.out());
  if (status != LLMD_TEXT_OK) return std::unexpected(ToStatus(status, error));
  auto impl = std::make_unique<Impl>();
  impl->tokenizer.reset(loaded);
  llmd_tokenizer_info(loaded, &impl->info);
  if (!options.reuse) impl->info.reuses = 0;
  if (options.cache_bytes > 0) impl->cache.emplace(options.cache_bytes, options.seed);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(impl)));
}

base::Status Tokenizer::Encode(std::string_view text, bool add_special_tokens,
                               std::vector<uint32_t>& ids, const std::atomic<bool>* cancel) const {
  ids.clear();
  if (text.size() > kTokenizeBytesMax) {
    return base::ResourceExhausted(base::Concat("a text of ", std::to_string(text.size()),
                                                " bytes is longer than ",
                                                std::to_string(kTokenizeBytesMax)));
  }
  base::Status status = impl_->Encode(text, add_special_tokens, cancel, ids);
  if (!status.ok()) ids.clear();
  return status;
}

Tokenizer::CacheStats Tokenizer::cache_stats() const {
  CacheStats stats{.hit_bytes = impl_->hit_bytes.load(std::memory_order_relaxed),
                   .miss_bytes = impl_->miss_bytes.load(std::memory_order_relaxed)};
  if (impl_->cache) {
    const ChunkCache::Stats cache = impl_->cache->stats();
    stats.evicted_chunks = cache.evicted;
    stats.chunks = cache.chunks;
    stats.bytes = cache.bytes;
  }
  return stats;
}

}  // namespace llmd::text
