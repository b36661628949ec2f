// Match: walks the runs of a chain and keeps the set of holders that have had everything so far.
#include <algorithm>
#include <array>
#include <bit>
#include <memory>

#include "prefix/kv_index_hybrid.h"
#include "prefix/kv_index_impl.h"

namespace llmd::prefix {
namespace {

constexpr size_t kSetWords = KvIndex::kHoldersMax / 64;
constexpr uint32_t kAllTiers = (1u << KvIndex::kTiersMax) - 1;

void SpinPause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __builtin_arm_yield();
#endif
}

bool Has(const std::array<uint64_t, kSetWords>& set, uint32_t holder) {
  return (set[holder / 64] >> (holder % 64) & 1) != 0;
}

template <class Visit>
void ForEachBit(const std::array<uint64_t, kSetWords>& set, size_t words, Visit&& visit) {
  for (size_t w = 0; w < words; ++w) {
    for (uint64_t left = set[w]; left != 0; left &= left - 1) {
      visit(static_cast<uint32_t>(64 * w) + static_cast<uint32_t>(std::countr_zero(left)));
    }
  }
}

}  // namespace

struct KvIndex::Reader::State {
  using Set = std::array<uint64_t, kSetWords>;  // of holders
  using Masks = std::array<uint64_t, kTiersMax>;

  // What was read of one run.
  struct RunView {
    RunRef next = 0;
    uint32_t blocks = 0;  // of the chain, that the run has
    bool whole = false;   // the run has no others
    uint32_t crowd_tiers = 0;
  };
  enum class Found : uint8_t { kNo, kYes, kFailed };

  explicit State(const Impl& index_in)
      : index(index_in),
        masks(std::make_unique<Masks[]>(kHoldersMax)),
        touched_list(std::make_unique<HolderId[]>(kHoldersMax)) {}

  Found FindAt(std::span<const BlockKey> chain, size_t at, RunRef hint, RunView* view);
  Found Read(RunRef ref, std::span<const BlockKey> rest, RunView* view);
  bool Compare(const Run& run, std::span<const BlockKey> rest, RunView* view) const;
  void ReadHolders(const Run& run, RunView* view);
  void ReadCrowd(const ArrayRef& crowd, RunView* view);
  void ReadGroups(const Run& run, const RunView& view);
  // False of numbers that are no tier's, too.
  bool Wants(uint32_t tier) const { return (tiers >> tier & 1) != 0; }
  void Touch(uint32_t holder);
  void ForgetTouched();

  void MatchBlocks(std::span<const BlockKey> chain, std::span<const float> tier_weights,
                   uint32_t tiers_wanted, std::span<uint32_t> blocks, std::span<float> weighted);
  void Begin(std::span<const float> weights, std::span<uint32_t> blocks,
             std::span<float> weighted);
  void Walk(std::span<const BlockKey> chain);
  bool Narrow(const RunView& view, size_t at);
  float WeightBeyondFirstTier(const Masks& held, uint64_t wanted) const;
  void WeighCrowd(const RunView& view, const Set& keep);
  void Drop(uint32_t holder, size_t blocks);
  void WalkHybrid(std::span<const BlockKey> chain);
  void MergeSpeculative(std::span<const BlockKey> chain, base::TimePoint now);

  const Impl& index;
  std::atomic<uint64_t> since{0};  // epoch in which the match now running began; 0: none runs

  // Holders with records in the run that was just read, and what they have of it by tier.
  std::unique_ptr<Masks[]> masks;  // by holder; all 0 but for those touched
  std::unique_ptr<HolderId[]> touched_list;
  uint32_t touched_count = 0;
  Set touched{};
  std::array<Set, kTiersMax> crowd{};  // holders of the whole run, by tier
  Set in_crowd{};                      // in any tier

  uint32_t tiers = kAllTiers;  // that count, a bit each
  size_t words = 0;            // of the sets, that are in use
  Set countable{};   // holders that were asked for and count group 0 only
  Set active{};      // of these, who has had everything so far
  bool is_first = true;
  WeightTable weights;
  std::span<uint32_t> out_blocks;
  std::span<float> out_weighted;
  uint32_t longest = 0;
  std::unique_ptr<HybridMatch> hybrid;  // made when first needed
  bool reads_groups = false;            // the walk is that of hybrid holders
};

KvIndex::Reader::Reader(const KvIndex& index) : state_(std::make_unique<State>(*index.impl_)) {
  const std::scoped_lock lock(state_->index.readers_mutex);
  state_->index.readers.push_back(&state_->since);
}

KvIndex::Reader::~Reader() {
  const std::scoped_lock lock(state_->index.readers_mutex);
  std::erase(state_->index.readers, &state_->since);
}

uint32_t KvIndex::Reader::Match(std::span<const BlockKey> chain,
                                std::span<const float> tier_weights, base::TimePoint now,
                                std::span<uint32_t> blocks, std::span<float> weighted) {
  State& state = *state_;
  state.MatchBlocks(chain, tier_weights, kAllTiers, blocks, weighted);
  state.MergeSpeculative(chain, now);
  return state.longest;
}

uint32_t KvIndex::Reader::MatchTier(std::span<const BlockKey> chain, Tier tier,
                                    std::span<uint32_t> blocks) {
  state_->MatchBlocks(chain, {}, tier < kTiersMax ? 1u << tier : 0, blocks, {});
  return state_->longest;
}

void KvIndex::Reader::State::MatchBlocks(std::span<const BlockKey> chain,
                                         std::span<const float> tier_weights,
                                         uint32_t tiers_wanted, std::span<uint32_t> blocks,
                                         std::span<float> weighted) {
  tiers = tiers_wanted;
  // Either the writer that replaces an array sees that a match is running, or the match sees the
  // new array: hence the full fences here and in FreeRetired.
  since.store(index.epoch.load(std::memory_order_acquire), std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  Begin(tier_weights, blocks, weighted);
  Walk(chain);
  WalkHybrid(chain);
  since.store(0, std::memory_order_release);
}

// --- reading one run ----------------------------------------------------------------------------

// The run that begins with chain[at], if there is one. `hint` is likely to be it.
KvIndex::Reader::State::Found KvIndex::Reader::State::FindAt(std::span<const BlockKey> chain,
                                                             size_t at, RunRef hint,
                                                             RunView* view) {
  const auto rest = chain.subspan(at);
  if (hint != 0) {
    const Found found = Read(hint, rest, view);
    if (found != Found::kNo) return found;
  }
  Found found = Found::kNo;
  index.runs.Find(index.HashOf(rest[0]), [&](RunRef ref) {
    found = Read(ref, rest, view);
    return found != Found::kNo;
  });
  return found;
}

KvIndex::Reader::State::Found KvIndex::Reader::State::Read(RunRef ref,
                                                           std::span<const BlockKey> rest,
                                                           RunView* view) {
  const Run& run = index.run(ref);
  for (uint32_t attempt = 0; attempt < kReadAttemptsMax; ++attempt) {
    const uint32_t version = run.version.load(std::memory_order_acquire);
    if ((version & 1) == 0) {
      *view = {.next = run.next.load(std::memory_order_acquire)};
      if (view->next != 0) __builtin_prefetch(&index.run(view->next));
      const bool is_it = Compare(run, rest, view);
      if (is_it) ReadHolders(run, view);
      std::atomic_thread_fence(std::memory_order_acquire);
      if (run.version.load(std::memory_order_relaxed) == version) {
        if (!is_it) return Found::kNo;
        // Written only when it changes anything: the line is shared by all readers.
        if (run.touched.load(std::memory_order_relaxed) == 0) {
          index.run(ref).touched.store(1, std::memory_order_relaxed);
        }
        return Found::kYes;
      }
      ForgetTouched();
    }
    SpinPause();
  }
  return Found::kFailed;
}

// Whether the run begins as `rest` does, and for how many blocks. Equal keys mean equal prefixes,
// so one comparison settles everything before it.
bool KvIndex::Reader::State::Compare(const Run& run, std::span<const BlockKey> rest,
                                     RunView* view) const {
  const ArrayRef keys = ArrayRef::Unpack(run.keys.GetAcquire());
  if (keys.count == 0) return false;
  if (rest.size() >= keys.count && run.last_key.Get() == rest[keys.count - 1]) {
    view->blocks = keys.count;
    view->whole = true;
    return true;
  }
  const Word* words = index.arena.At(keys.ref);
  for (uint32_t i = 8; i < keys.count; i += 8) __builtin_prefetch(words + i);
  if (words[0].Get() != rest[0]) return false;
  // The first `equal` keys are equal, the first `different` ones are not.
  uint32_t equal = 1;
  auto different = static_cast<uint32_t>(std::min<size_t>(rest.size(), keys.count));
  if (words[different - 1].Get() == rest[different - 1]) equal = different;
  while (equal + 1 < different) {
    const uint32_t middle = (equal + different) / 2;
    (words[middle - 1].Get() == rest[middle - 1] ? equal : different) = middle;
  }
  view->blocks = equal;
  return true;
}

// Everybody who has anything of the run. May see things that do not fit together, which the version
// tells afterwards; stays inside of the arena and of the arrays here all the same.
void KvIndex::Reader::State::ReadHolders(const Run& run, RunView* view) {
  const ArrayRef crowd_ref = ArrayRef::Unpack(run.crowd.GetAcquire());
  if (crowd_ref.ref != 0) ReadCrowd(crowd_ref, view);
  if (reads_groups) {
    ReadGroups(run, *view);
    return;
  }
  const ArrayRef array = ArrayRef::Unpack(run.records.GetAcquire());
  const Word* records = index.Records(run, array);
  for (uint32_t i = 0; i < array.count; ++i) {
    const Record record{.who = records[2 * i].Get(), .mask = records[2 * i + 1].Get()};
    const uint32_t holder = record.holder();
    if (record.group() != 0 || holder >= kHoldersMax || !Wants(record.tier())) continue;
    Touch(holder);
    masks[holder][record.tier()] |= record.mask;
  }
}

void KvIndex::Reader::State::ReadCrowd(const ArrayRef& crowd_ref, RunView* view) {
  const Word* bits = index.arena.At(crowd_ref.ref);
  const size_t per_tier = std::min(words, size_t{1} << crowd_ref.count);
  view->crowd_tiers = std::min((1u << crowd_ref.order) >> crowd_ref.count, kTiersMax);
  std::fill_n(in_crowd.begin(), words, 0);
  for (size_t tier = 0; tier < view->crowd_tiers; ++tier) {
    if (!Wants(static_cast<uint32_t>(tier))) {
      std::fill_n(crowd[tier].begin(), words, 0);
      continue;
    }
    std::fill(crowd[tier].begin() + per_tier, crowd[tier].begin() + words, 0);
    for (size_t w = 0; w < per_tier; ++w) {
      crowd[tier][w] = bits[(tier << crowd_ref.count) + w].Get();
      in_crowd[w] |= crowd[tier][w];
    }
  }
}

// The same for holders of several groups, and for no others.
void KvIndex::Reader::State::ReadGroups(const Run& run, const RunView& view) {
  const ArrayRef array = ArrayRef::Unpack(run.records.GetAcquire());
  const Word* records = index.Records(run, array);
  const auto add = [&](uint32_t holder, uint32_t tier, uint32_t group, uint64_t mask) {
    if (holder >= out_blocks.size() || !index.IsHybrid(holder)) return;
    if (!Has(touched, holder)) {
      Touch(holder);
      hybrid->Open(holder, index.WindowsOf(holder));
    }
    if (hybrid->AddBlocks(holder, group, mask)) masks[holder][tier] |= mask;
  };
  for (uint32_t i = 0; i < array.count; ++i) {
    const Record record{.who = records[2 * i].Get(), .mask = records[2 * i + 1].Get()};
    if (record.group() >= kGroupsMax || !Wants(record.tier())) continue;
    add(record.holder(), record.tier(), record.group(), record.mask);
  }
  for (uint32_t tier = 0; tier < view.crowd_tiers; ++tier) {
    ForEachBit(crowd[tier], words, [&](uint32_t holder) { add(holder, tier, 0, ~uint64_t{0}); });
  }
}

void KvIndex::Reader::State::Touch(uint32_t holder) {
  uint64_t& word = touched[holder / 64];
  const uint64_t bit = uint64_t{1} << (holder % 64);
  if ((word & bit) != 0) return;
  word |= bit;
  touched_list[touched_count++] = static_cast<HolderId>(holder);
}

void KvIndex::Reader::State::ForgetTouched() {
  for (uint32_t i = 0; i < touched_count; ++i) {
    masks[touched_list[i]] = {};
    touched[touched_list[i] / 64] = 0;
  }
  touched_count = 0;
}

// --- walking ------------------------------------------------------------------------------------

void KvIndex::Reader::State::Begin(std::span<const float> tier_weights,
                                   std::span<uint32_t> blocks, std::span<float> weighted) {
  out_blocks = blocks.first(std::min<size_t>(blocks.size(), kHoldersMax));
  out_weighted = weighted.size() < out_blocks.size() ? std::span<float>() : weighted;
  std::fill(blocks.begin(), blocks.end(), 0);
  std::fill(weighted.begin(), weighted.end(), 0.0f);
  weights = WeightTable(tier_weights);
  longest = 0;
  words = (out_blocks.size() + 63) / 64;
  for (size_t w = 0; w < words; ++w) {
    const uint64_t asked = LowBits(static_cast<uint32_t>(out_blocks.size() - 64 * w));
    countable[w] = asked & ~index.hybrid[w].load(std::memory_order_acquire);
    active[w] = 0;
  }
}

void KvIndex::Reader::State::Walk(std::span<const BlockKey> chain) {
  reads_groups = false;
  is_first = true;
  RunRef hint = 0;
  size_t at = 0;
  for (RunView view; at < chain.size(); at += view.blocks) {
    const Found found = FindAt(chain, at, hint, &view);
    if (found == Found::kFailed) index.read_failures.fetch_add(1, std::memory_order_relaxed);
    if (found != Found::kYes) break;
    const bool anybody = Narrow(view, at);
    ForgetTouched();
    is_first = false;
    if (!anybody) return;
    hint = view.whole ? view.next : 0;
  }
  ForEachBit(active, words, [&](uint32_t holder) { Drop(holder, at); });
}

// Leaves in `active` who has all of what the run has of the chain, and settles the others.
bool KvIndex::Reader::State::Narrow(const RunView& view, size_t at) {
  Set keep;
  for (size_t w = 0; w < words; ++w) {
    const uint64_t in = view.crowd_tiers > 0 ? in_crowd[w] : 0;
    if (is_first) active[w] = countable[w] & (in | touched[w]);
    keep[w] = active[w] & in;
  }
  const uint64_t wanted = LowBits(view.blocks);
  for (uint32_t i = 0; i < touched_count; ++i) {
    const uint32_t holder = touched_list[i];
    if (holder >= out_blocks.size() || !Has(active, holder)) continue;
    Masks& held = masks[holder];
    for (uint32_t tier = 0; tier < view.crowd_tiers; ++tier) {
      if (Has(crowd[tier], holder)) held[tier] = ~uint64_t{0};
    }
    const uint64_t any = held[0] | held[1] | held[2] | held[3];
    const auto depth = static_cast<uint32_t>(std::countr_one(any & wanted));
    if (!out_weighted.empty()) {
      out_weighted[holder] += WeightBeyondFirstTier(held, LowBits(depth) & wanted);
    }
    if (depth == view.blocks) {
      keep[holder / 64] |= uint64_t{1} << (holder % 64);
    } else {
      Drop(holder, at + depth);
      active[holder / 64] &= ~(uint64_t{1} << (holder % 64));
    }
  }
  if (view.crowd_tiers > 0 && !out_weighted.empty()) WeighCrowd(view, keep);
  uint64_t anybody = 0;
  for (size_t w = 0; w < words; ++w) {
    for (uint64_t gone = active[w] & ~keep[w]; gone != 0; gone &= gone - 1) {
      Drop(static_cast<uint32_t>(64 * w) + static_cast<uint32_t>(std::countr_zero(gone)), at);
    }
    active[w] = keep[w];
    anybody |= keep[w];
  }
  return anybody != 0;
}

// Blocks count as of tier 0 when a holder drops out; here is what they weigh more or less than
// that.
float KvIndex::Reader::State::WeightBeyondFirstTier(const Masks& held, uint64_t wanted) const {
  if (weights.first_is_best && (held[0] & wanted) == wanted) return 0;
  float sum = 0;
  for (const Tier tier : weights.by_weight) {
    const auto count = static_cast<float>(std::popcount(held[tier] & wanted));
    sum += count * (weights.of[tier] - weights.of[0]);
    wanted &= ~held[tier];
  }
  return sum;
}

// The same for those who have the whole run and no records in it.
void KvIndex::Reader::State::WeighCrowd(const RunView& view, const Set& keep) {
  if (view.crowd_tiers == 1) return;
  for (size_t w = 0; w < words; ++w) {
    uint64_t left = keep[w] & ~touched[w];
    for (const Tier tier : weights.by_weight) {
      if (tier >= view.crowd_tiers) continue;
      uint64_t best = left & crowd[tier][w];
      left &= ~best;
      if (tier == 0) continue;
      for (; best != 0; best &= best - 1) {
        const size_t holder = 64 * w + static_cast<size_t>(std::countr_zero(best));
        out_weighted[holder] +=
            static_cast<float>(view.blocks) * (weights.of[tier] - weights.of[0]);
      }
    }
  }
}

void KvIndex::Reader::State::Drop(uint32_t holder, size_t blocks) {
  out_blocks[holder] = static_cast<uint32_t>(blocks);
  if (!out_weighted.empty()) out_weighted[holder] += static_cast<float>(blocks) * weights.of[0];
  longest = std::max(longest, static_cast<uint32_t>(blocks));
}

void KvIndex::Reader::State::WalkHybrid(std::span<const BlockKey> chain) {
  uint64_t any = 0;
  for (size_t w = 0; w < words; ++w) any |= index.hybrid[w].load(std::memory_order_acquire);
  if (any == 0) return;
  if (!hybrid) hybrid = std::make_unique<HybridMatch>();
  reads_groups = true;
  hybrid->Begin(weights);
  // A holder of nothing but windows can use a prefix whose beginning nobody has any more.
  const bool skips = index.without_full_attention.load(std::memory_order_relaxed) > 0;
  RunRef hint = 0;
  RunView view;
  for (size_t at = 0; at < chain.size(); at += view.blocks) {
    const Found found = FindAt(chain, at, hint, &view);
    if (found == Found::kFailed) index.read_failures.fetch_add(1, std::memory_order_relaxed);
    if (found == Found::kYes) {
      for (uint32_t i = 0; i < touched_count; ++i) {
        hybrid->Close(touched_list[i], static_cast<uint32_t>(at), view.blocks,
                      masks[touched_list[i]]);
      }
      ForgetTouched();
    } else {
      if (!skips) break;
      view = {.blocks = 1};
    }
    hint = view.whole ? view.next : 0;
  }
  hybrid->ForEach([&](uint32_t holder, uint32_t blocks, float weight) {
    out_blocks[holder] = blocks;
    if (!out_weighted.empty()) out_weighted[holder] = weight;
    longest = std::max(longest, blocks);
  });
}

void KvIndex::Reader::State::MergeSpeculative(std::span<const BlockKey> chain,
                                              base::TimePoint now) {
  index.speculative.Match(chain, now, [&](uint32_t holder, uint32_t blocks) {
    if (holder >= out_blocks.size() || blocks <= out_blocks[holder]) return;
    if (!out_weighted.empty()) {
      out_weighted[holder] += static_cast<float>(blocks - out_blocks[holder]) * weights.of[0];
    }
    out_blocks[holder] = blocks;
    longest = std::max(longest, blocks);
  });
}

}  // namespace llmd::prefix
