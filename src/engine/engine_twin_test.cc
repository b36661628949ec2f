// The engine against a twin that is slow and plain: blocks in a vector, the free list a deque that
// is searched, cached content a map from whole token prefixes (no hashes), every sequence with its
// full token list, everything computed from the definitions in engine.h on every step.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/random.h"
#include "engine/engine.h"

namespace llmd::engine {
namespace {

using base::Duration;
using base::TimePoint;

struct TwinRequest {
  RequestSpec spec;
  std::vector<Token> tokens;  // known so far
  size_t prompt = 0;
  size_t generated = 0;
  size_t computed = 0;
  size_t scheduled = 0;
  size_t cached = 0;
  size_t offload_cached = 0;
  size_t loading = 0;  // tokens from the offload tier
  uint32_t preemptions = 0;
  bool seen = false;
  std::vector<int> blocks;
  TimePoint arrived, queued, first_scheduled, first_token, due;
};

struct TwinResult {
  TimePoint at{};
  std::vector<TokenEvent> tokens;
  std::vector<RequestReport> finished;
  std::vector<uint64_t> scheduled, preempted;
};

class Twin {
 public:
  explicit Twin(const EngineConfig& config) : config_(config), blocks_(config.kv_blocks) {
    for (int b = 0; b < static_cast<int>(config.kv_blocks); ++b) free_.push_back(b);
  }

  bool Submit(const RequestSpec& spec, TimePoint now) {
    if (spec.prompt.empty() || spec.output_tokens == 0) return false;
    if (spec.prompt.size() + spec.output_tokens > config_.model_tokens_max) return false;
    const size_t seats = config_.sequences_max - running_.size();
    if (arriving_.size() + waiting_.size() >= seats + config_.waiting_max) return false;
    TwinRequest r;
    r.spec = spec;
    r.tokens.assign(spec.prompt.begin(), spec.prompt.end());
    r.prompt = r.tokens.size();
    r.arrived = now;
    r.queued = now + config_.frontend_delay;
    arriving_.push_back(std::move(r));
    return true;
  }

  bool Abort(uint64_t tag, TimePoint now) {
    bool found = false;
    for (auto* list : {&arriving_, &waiting_, &running_}) {
      for (size_t i = 0; i < list->size(); ++i) {
        if ((*list)[i].spec.tag != tag) continue;
        FreeBlocks(&(*list)[i]);
        list->erase(list->begin() + static_cast<ptrdiff_t>(i));
        found = true;
        break;
      }
    }
    if (found && !waiting_.empty()) wake_ = now;
    return found;
  }

  TwinResult StepAt(TimePoint now) {
    TwinResult result{.at = now};
    wake_ = Engine::kNever;
    if (step_end_ <= now || paced()) Deliver(now, &result);
    while (!arriving_.empty() && arriving_.front().queued <= now) {
      waiting_.push_back(arriving_.front());
      arriving_.pop_front();
    }
    Schedule(now, &result);
    return result;
  }

  // When something is due by the definitions; steps that turn out empty are allowed.
  TimePoint NextAt() const {
    TimePoint at = Engine::kNever;
    if (paced()) {
      for (const TwinRequest& r : running_) {
        if (r.scheduled > 0) at = std::min(at, r.due);
      }
    } else {
      at = step_end_;
    }
    if (paced() || at == Engine::kNever) {
      at = std::min(at, wake_);
      if (!arriving_.empty()) at = std::min(at, arriving_.front().queued);
    }
    return at;
  }

  size_t running() const { return running_.size(); }
  size_t waiting() const { return waiting_.size(); }
  size_t used() const { return config_.kv_blocks - free_.size(); }
  size_t named() const {
    return std::accumulate(named_.begin(), named_.end(), size_t{0},
                           [](size_t n, const auto& entry) { return n + entry.second.size(); });
  }
  size_t offloaded() const { return offloaded_.size(); }
  bool ResetPrefixCache(bool offload_too) {
    if (used() > 0) return false;
    for (TwinBlock& block : blocks_) block.named = false;
    named_.clear();
    if (offload_too) offloaded_.clear();
    return true;
  }

 private:
  using Content = std::pair<std::string, std::vector<Token>>;  // salt, tokens up to its end
  struct TwinBlock {
    int references = 0;
    bool named = false;
    Content content;
  };

  bool paced() const { return std::holds_alternative<Pace>(config_.timing); }
  size_t BlocksFor(size_t tokens) const {
    return (tokens + config_.block_tokens - 1) / config_.block_tokens;
  }

  void Deliver(TimePoint now, TwinResult* result) {
    std::deque<TwinRequest> still;
    for (TwinRequest& r : running_) {
      if (r.scheduled > 0 && (!paced() || r.due <= now)) {
        r.computed += r.scheduled;
        r.scheduled = 0;
        if (r.computed == r.tokens.size()) {
          const Token token = static_cast<Token>(base::Mix64(r.spec.output_offset, r.generated));
          if (r.generated == 0) r.first_token = now;
          result->tokens.push_back(
              {r.spec.tag, RequestId{}, static_cast<uint32_t>(r.generated), token});
          r.tokens.push_back(token);
          ++r.generated;
        }
        if (r.generated == r.spec.output_tokens) {
          FreeBlocks(&r);
          result->finished.push_back({.tag = r.spec.tag,
                                      .id = {},
                                      .reason = r.spec.reason,
                                      .prompt_tokens = static_cast<uint32_t>(r.prompt),
                                      .cached_tokens = static_cast<uint32_t>(r.cached),
                                      .offload_tokens = static_cast<uint32_t>(r.offload_cached),
                                      .output_tokens = r.spec.output_tokens,
                                      .preemptions = r.preemptions,
                                      .arrived_at = r.arrived,
                                      .queued_at = r.queued,
                                      .scheduled_at = r.first_scheduled,
                                      .first_token_at = r.first_token,
                                      .finished_at = now});
          continue;
        }
      }
      still.push_back(r);
    }
    running_ = still;
  }

  void Schedule(TimePoint now, TwinResult* result) {
    size_t budget = paced() ? SIZE_MAX : config_.batched_tokens_max;
    BatchShape batch;
    loading_ = 0;
    for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
      if (running_[i].scheduled > 0) continue;
      const size_t n = std::min(running_[i].tokens.size() - running_[i].computed, budget);
      while (i < running_.size() &&
             BlocksFor(running_[i].computed + n) > running_[i].blocks.size() + free_.size()) {
        TwinRequest victim = running_.back();
        running_.pop_back();
        FreeBlocks(&victim);
        victim.computed = victim.scheduled = 0;
        ++victim.preemptions;
        result->preempted.push_back(victim.spec.tag);
        waiting_.push_front(victim);
      }
      if (i >= running_.size()) break;
      Launch(&running_[i], n, now, &batch);
      budget -= n;
    }
    while (result->preempted.empty() && !waiting_.empty() && budget > 0 &&
           running_.size() < config_.sequences_max) {
      if (!Admit(&waiting_.front(), budget)) break;
      running_.push_back(waiting_.front());
      waiting_.pop_front();
      TwinRequest& r = running_.back();
      if (!r.seen) {
        r.seen = true;
        r.first_scheduled = now;
        r.cached = r.computed;
        r.offload_cached = r.loading;
      }
      const size_t n = std::min(r.tokens.size() - r.computed, budget);
      Launch(&r, n, now, &batch);
      result->scheduled.push_back(r.spec.tag);
      budget -= n;
    }
    step_end_ = Engine::kNever;
    if (!paced() && batch.tokens() > 0) {
      step_end_ = now + std::get<StepCost>(config_.timing).Of(batch) +
                  config_.offload_load_token * static_cast<int64_t>(loading_);
    }
  }

  Content ContentOf(const TwinRequest& r, size_t block) const {
    const auto end = r.tokens.begin() + static_cast<ptrdiff_t>((block + 1) * config_.block_tokens);
    return {std::string(r.spec.cache_salt), std::vector<Token>(r.tokens.begin(), end)};
  }

  auto FindOffloaded(const Content& content) {
    return std::find(offloaded_.begin(), offloaded_.end(), content);
  }
  void MakeWarm(const Content& content) {
    const auto found = FindOffloaded(content);
    if (found == offloaded_.end()) return;
    offloaded_.erase(found);
    offloaded_.push_back(content);
  }

  bool Admit(TwinRequest* r, size_t budget) {
    std::vector<int> hits;
    while (config_.prefix_caching &&
           (hits.size() + 1) * config_.block_tokens <= r->tokens.size() - 1) {
      const auto found = named_.find(ContentOf(*r, hits.size()));
      if (found == named_.end()) break;
      hits.push_back(found->second.front());
    }
    size_t known = hits.size();
    while (config_.prefix_caching && (known + 1) * config_.block_tokens <= r->tokens.size() - 1 &&
           FindOffloaded(ContentOf(*r, known)) != offloaded_.end()) {
      ++known;
    }
    const size_t cached = known * config_.block_tokens;
    const size_t n = std::min(r->tokens.size() - cached, budget);
    size_t from_free = BlocksFor(cached + n) - hits.size();
    for (int b : hits) from_free += blocks_[b].references == 0;
    if (from_free > free_.size()) return false;
    for (int b : hits) {
      if (blocks_[b].references++ == 0) free_.erase(std::find(free_.begin(), free_.end(), b));
    }
    for (size_t i = known; i-- > 0;) MakeWarm(ContentOf(*r, i));
    r->blocks = hits;
    r->computed = cached;
    r->loading = (known - hits.size()) * config_.block_tokens;
    return true;
  }

  void Launch(TwinRequest* r, size_t n, TimePoint now, BatchShape* batch) {
    while (r->blocks.size() < BlocksFor(r->computed + n)) {
      const int b = free_.front();
      free_.pop_front();
      Unname(b);
      blocks_[b].references = 1;
      r->blocks.push_back(b);
    }
    r->scheduled = n;
    batch->Add(n, r->computed);
    const size_t loading = std::exchange(r->loading, 0);
    loading_ += loading;
    if (paced()) {
      const Pace& pace = std::get<Pace>(config_.timing);
      r->due = now + (r->generated > 0 && n == 1 ? pace.inter_token : pace.Prefill(n)) +
               config_.offload_load_token * static_cast<int64_t>(loading);
    }
    if (!config_.prefix_caching) return;
    const size_t full = (r->computed + n) / config_.block_tokens;
    size_t begin = full;
    for (size_t i = 0; i < full; ++i) {
      TwinBlock& block = blocks_[r->blocks[i]];
      if (block.named) continue;
      block.named = true;
      block.content = ContentOf(*r, i);
      named_[block.content].push_back(r->blocks[i]);
      begin = std::min(begin, i);
    }
    // The offload tier, the tail first.
    for (size_t i = std::min(full, begin + config_.offload_blocks); i-- > begin;) {
      const Content content = ContentOf(*r, i);
      if (FindOffloaded(content) != offloaded_.end()) {
        MakeWarm(content);
        continue;
      }
      if (offloaded_.size() == config_.offload_blocks) offloaded_.pop_front();
      offloaded_.push_back(content);
    }
  }

  void FreeBlocks(TwinRequest* r) {
    for (size_t i = r->blocks.size(); i-- > 0;) {
      if (--blocks_[r->blocks[i]].references == 0) free_.push_back(r->blocks[i]);
    }
    r->blocks.clear();
  }

  void Unname(int b) {
    if (!blocks_[b].named) return;
    auto& list = named_[blocks_[b].content];
    list.erase(std::find(list.begin(), list.end(), b));
    if (list.empty()) named_.erase(blocks_[b].content);
    blocks_[b].named = false;
  }

  const EngineConfig config_;
  std::vector<TwinBlock> blocks_;
  std::deque<int> free_;  // coldest first
  std::map<Content, std::vector<int>> named_;
  std::deque<Content> offloaded_;  // coldest first
  size_t loading_ = 0;
  std::deque<TwinRequest> arriving_, waiting_, running_;
  TimePoint step_end_ = Engine::kNever;
  TimePoint wake_ = Engine::kNever;
};

// What somebody who only hears of changes believes the caches to hold.
class Replica {
 public:
  explicit Replica(const EngineConfig& config) : config_(config) {
    if (config.wire_hash) hasher_.emplace(*config.wire_hash, config.wire_seed, config.hash_seed);
  }

  void Apply(const CacheChange& change) {
    std::multiset<uint64_t>& held = held_[change.tier == CacheTier::kCpu];
    switch (change.kind) {
      case CacheChange::Kind::kCleared: held.clear(); break;
      case CacheChange::Kind::kRemoved:
        for (const uint64_t hash : change.hashes) {
          const auto found = held.find(hash);
          ASSERT_NE(found, held.end());
          held.erase(found);
        }
        break;
      case CacheChange::Kind::kStored:
        ASSERT_FALSE(change.hashes.empty());
        held.insert(change.hashes.begin(), change.hashes.end());
        if (change.tier == CacheTier::kGpu) CheckChain(change);
        break;
    }
    ASSERT_EQ(change.digests.size(), hasher_ ? change.hashes.size() : 0);
    for (size_t i = 0; i < change.digests.size(); ++i) {
      ASSERT_EQ(hasher_->KeyOf(change.digests[i]), change.hashes[i]);
    }
  }

  void ExpectSame(const Engine& engine) const {
    for (const CacheTier tier : {CacheTier::kGpu, CacheTier::kCpu}) {
      std::vector<uint64_t> hashes = engine.CachedHashes(tier);
      std::ranges::sort(hashes);
      ASSERT_TRUE(std::ranges::equal(hashes, held_[tier == CacheTier::kCpu]));
    }
  }
  size_t size(CacheTier tier) const { return held_[tier == CacheTier::kCpu].size(); }
  uint64_t stored = 0;

 private:
  // The hashes follow from what the change says.
  void CheckChain(const CacheChange& change) {
    const size_t size = config_.block_tokens;
    ASSERT_EQ(change.tokens.size(), change.hashes.size() * size);
    uint64_t parent = change.has_parent ? change.parent
                      : RootHash(config_.hash_seed,
                                 change.salt.empty() ? 0 : base::Hash64(change.salt));
    Digest digest{};
    if (hasher_) digest = change.has_parent ? change.parent_digest : hasher_->root();
    for (size_t i = 0; i < change.hashes.size(); ++i, ++stored) {
      const auto block = change.tokens.subspan(i * size, size);
      if (hasher_) {
        digest = hasher_->Chain(digest, block, i == 0 ? change.salt : "");
        ASSERT_EQ(digest, change.digests[i]);
      } else {
        parent = ChainHash(parent, block);
        ASSERT_EQ(parent, change.hashes[i]);
      }
    }
  }

  const EngineConfig config_;
  std::optional<WireHasher> hasher_;
  std::multiset<uint64_t> held_[2];
};

struct Seen {  // what a set of runs exercised
  uint64_t hits = 0, preemptions = 0, finished = 0, aborted = 0, refused = 0, chunked = 0,
           stored = 0, offload_hits = 0, resets = 0, resets_refused = 0;
};

EngineConfig RandomConfig(base::Random* random) {
  EngineConfig config;
  config.block_tokens = 1 + random->Below(6);
  config.model_tokens_max = 10 + random->Below(60);
  const uint32_t least = (config.model_tokens_max + config.block_tokens - 1) / config.block_tokens;
  config.kv_blocks = least + random->Below(3 * least);
  config.sequences_max = 1 + random->Below(8);
  config.waiting_max = random->Below(20);
  config.batched_tokens_max = 1 + random->Below(50);
  config.prefix_caching = random->Below(5) != 0;
  config.hash_seed = random->Next();
  config.frontend_delay = Duration(random->Below(3) * 1000);
  config.cache_changes = random->Below(2) == 0;
  if (random->Below(2) == 0) {
    config.wire_hash =
        random->Below(2) == 0 ? WireHashKind::kSha256Cbor : WireHashKind::kXxhashCbor;
    if (random->Below(2) == 0) config.wire_seed = "7";
  }
  if (random->Below(2) == 0) {
    config.offload_blocks = 1 + random->Below(3 * config.kv_blocks);
    config.offload_load_token = Duration(random->Below(2) * 150);
  }
  if (random->Below(3) == 0) {
    config.timing = Pace{.first_token = Duration(random->Below(2) * 2500),
                         .prefill_overhead = Duration(random->Below(2) * 700),
                         .prefill_token = Duration(random->Below(100)),
                         .inter_token = Duration(random->Below(2) * 900)};
  } else {
    config.timing = StepCost{.base_ns = static_cast<double>(random->Below(2000)),
                             .prefill_token_ns = random->Uniform() * 100,
                             .prefill_pair_ns = random->Uniform(),
                             .sequence_ns = random->Uniform() * 50,
                             .context_token_ns = random->Uniform() * 3};
  }
  return config;
}

void ExpectSame(const StepResult& fast, const TwinResult& slow) {
  ASSERT_EQ(fast.at, slow.at);
  ASSERT_EQ(fast.tokens.size(), slow.tokens.size());
  for (size_t i = 0; i < slow.tokens.size(); ++i) {
    ASSERT_EQ(fast.tokens[i].tag, slow.tokens[i].tag);
    ASSERT_EQ(fast.tokens[i].index, slow.tokens[i].index);
    ASSERT_EQ(fast.tokens[i].token, slow.tokens[i].token);
  }
  ASSERT_EQ(fast.finished.size(), slow.finished.size());
  for (size_t i = 0; i < slow.finished.size(); ++i) {
    const RequestReport &f = fast.finished[i], &s = slow.finished[i];
    ASSERT_EQ(f.tag, s.tag);
    ASSERT_EQ(f.reason, s.reason);
    ASSERT_EQ(f.prompt_tokens, s.prompt_tokens);
    ASSERT_EQ(f.cached_tokens, s.cached_tokens);
    ASSERT_EQ(f.offload_tokens, s.offload_tokens);
    ASSERT_EQ(f.output_tokens, s.output_tokens);
    ASSERT_EQ(f.preemptions, s.preemptions);
    ASSERT_EQ(f.arrived_at, s.arrived_at);
    ASSERT_EQ(f.queued_at, s.queued_at);
    ASSERT_EQ(f.scheduled_at, s.scheduled_at);
    ASSERT_EQ(f.first_token_at, s.first_token_at);
    ASSERT_EQ(f.finished_at, s.finished_at);
  }
  ASSERT_TRUE(std::ranges::equal(fast.scheduled_tags, slow.scheduled));
  ASSERT_TRUE(std::ranges::equal(fast.preempted_tags, slow.preempted));
}

class TwinRun {
 public:
  explicit TwinRun(uint64_t seed)
      : random_(seed), config_(RandomConfig(&random_)), engine_(*Engine::Create(config_)),
        twin_(config_), replica_(config_) {
    for (int i = 0; i < 4; ++i) {
      auto& prefix = prefixes_.emplace_back(random_.Below(config_.model_tokens_max));
      for (Token& t : prefix) t = static_cast<Token>(random_.Below(3));
    }
  }

  void Run(Seen* seen) {
    for (int i = 0; i < 60 && !testing::Test::HasFatalFailure(); ++i) {
      now_ += Duration(random_.Below(4) == 0 ? 0 : random_.Below(5000));
      StepUntil(now_, seen);
      if (random_.Below(6) == 0) {
        AbortOne(seen);
      } else if (random_.Below(8) == 0) {
        Reset(seen);
      } else {
        SubmitOne(seen);
      }
    }
    StepUntil(Engine::kNever - Duration(1), seen);
    EXPECT_EQ(engine_->next_step_at(), Engine::kNever);
    EXPECT_EQ(engine_->stats().kv_blocks_used, 0u);
    EXPECT_EQ(engine_->stats().waiting, 0u);
    EXPECT_EQ(finished_ + engine_->stats().aborted, ids_.size());
    seen->hits += engine_->stats().prefix_hit_tokens;
    seen->preemptions += engine_->stats().preemptions;
    seen->finished += finished_;
    seen->aborted += engine_->stats().aborted;
    seen->stored += replica_.stored;
    seen->offload_hits += engine_->stats().offload_hit_tokens;
  }

 private:
  void StepUntil(TimePoint until, Seen* seen) {
    while (engine_->next_step_at() <= until) {
      // The engine may take an empty step where the twin sees no need, never the reverse.
      ASSERT_LE(engine_->next_step_at(), std::max(twin_.NextAt(), last_step_));
      const StepResult fast = engine_->Step();
      last_step_ = fast.at;
      ExpectSame(fast, twin_.StepAt(fast.at));
      if (testing::Test::HasFatalFailure()) return;
      engine_->VerifyForTest();
      CheckChanges(fast);
      finished_ += fast.finished.size();
      seen->chunked += fast.computed_tokens > 0 && fast.tokens.empty();
      ASSERT_EQ(engine_->stats().running, twin_.running());
      ASSERT_EQ(engine_->stats().waiting, twin_.waiting());
      ASSERT_EQ(engine_->stats().kv_blocks_used, twin_.used());
    }
  }

  void CheckChanges(const StepResult& step) {
    ASSERT_EQ(engine_->CachedHashes(CacheTier::kGpu).size(), twin_.named());
    ASSERT_EQ(engine_->CachedHashes(CacheTier::kCpu).size(), twin_.offloaded());
    if (!config_.cache_changes) {
      ASSERT_TRUE(step.cache_changes.empty());
      return;
    }
    for (const CacheChange& change : step.cache_changes) {
      replica_.Apply(change);
      if (testing::Test::HasFatalFailure()) return;
    }
    replica_.ExpectSame(*engine_);
  }

  void Reset(Seen* seen) {
    const bool offload_too = random_.Below(2) == 0;
    const bool done = engine_->ResetPrefixCache(offload_too);
    ASSERT_EQ(done, twin_.ResetPrefixCache(offload_too));
    ++(done ? seen->resets : seen->resets_refused);
  }

  void SubmitOne(Seen* seen) {
    std::vector<Token> prompt = prefixes_[random_.Below(prefixes_.size())];
    prompt.resize(std::min<size_t>(prompt.size(), 1 + random_.Below(prompt.size() + 1)));
    for (uint64_t n = random_.Below(4); n > 0; --n) prompt.push_back(100 + random_.Below(2));
    RequestSpec spec{.prompt = prompt,
                     .output_tokens = static_cast<uint32_t>(
                         random_.Below(config_.model_tokens_max + 2 - std::min<size_t>(
                             prompt.size(), config_.model_tokens_max))),
                     .reason = random_.Below(2) ? FinishReason::kStop : FinishReason::kLength,
                     .output_offset = random_.Below(3),
                     .cache_salt = random_.Below(2) == 0 ? "" : "tenant",
                     .tag = next_tag_++};
    const auto id = engine_->Submit(spec, now_);
    ASSERT_EQ(id.has_value(), twin_.Submit(spec, now_));
    if (id) ids_.push_back({*id, spec.tag});
    if (!id) ++seen->refused;
  }

  void AbortOne(Seen* seen) {
    if (ids_.empty()) return;
    const auto [id, tag] = ids_[random_.Below(ids_.size())];
    ASSERT_EQ(engine_->Abort(id, now_), twin_.Abort(tag, now_));
    engine_->VerifyForTest();
  }

  base::Random random_;
  EngineConfig config_;
  std::unique_ptr<Engine> engine_;
  Twin twin_;
  Replica replica_;
  std::vector<std::vector<Token>> prefixes_;
  std::vector<std::pair<RequestId, uint64_t>> ids_;
  TimePoint now_{};
  TimePoint last_step_{};
  uint64_t next_tag_ = 1;
  uint64_t finished_ = 0;
};

TEST(EngineTwinTest, SameEventsAtTheSameTimes) {
  Seen seen;
  for (uint64_t seed = 1; seed <= 1500; ++seed) {
    TwinRun run(seed);
    run.Run(&seen);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
  // The workloads reached what they are meant to reach.
  EXPECT_GT(seen.hits, 10000u);
  EXPECT_GT(seen.preemptions, 1000u);
  EXPECT_GT(seen.finished, 10000u);
  EXPECT_GT(seen.aborted, 1000u);
  EXPECT_GT(seen.refused, 1000u);
  EXPECT_GT(seen.chunked, 1000u);
  EXPECT_GT(seen.stored, 10000u);
  EXPECT_GT(seen.offload_hits, 10000u);
  EXPECT_GT(seen.resets, 100u);
  EXPECT_GT(seen.resets_refused, 100u);
}

}  // namespace
}  // namespace llmd::engine
