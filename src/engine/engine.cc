#include "engine/engine.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/hash.h"
#include "base/strings.h"

namespace llmd::engine {
namespace {

using base::TimePoint;

// Keeps one block's bookkeeping (about 40 bytes with its table entry) under 2.7 GB in the worst
// case; the largest real cache, 27 M tokens in blocks of 16, needs 1.7 M.
constexpr uint32_t kBlocksMax = 1u << 26;
// A slot's vectors above this many entries go back to the heap when its request ends.
constexpr size_t kKeptEntriesMax = 8192;

base::Status OutOfBounds(std::string_view field, uint64_t value, std::string_view allowed) {
  return base::InvalidArgument(
      base::Concat(field, " is ", std::to_string(value), ", allowed: ", allowed));
}

}  // namespace

base::Status EngineConfig::Validate() const {
  if (block_tokens < 1 || block_tokens > 4096) {
    return OutOfBounds("block size", block_tokens, "1 to 4096 tokens");
  }
  if (kv_blocks < 1 || kv_blocks > kBlocksMax) {
    return OutOfBounds("KV cache size", kv_blocks, "1 to 67108864 blocks");
  }
  if (sequences_max < 1 || sequences_max > 65536) {
    return OutOfBounds("maximum of running sequences", sequences_max, "1 to 65536");
  }
  if (waiting_max > 1000000) {
    return OutOfBounds("maximum of waiting requests", waiting_max, "0 to 1000000");
  }
  if (batched_tokens_max < 1) {
    return OutOfBounds("token budget of a step", batched_tokens_max, "1 or more");
  }
  if (model_tokens_max < 2) {
    return OutOfBounds("maximum model length", model_tokens_max, "2 or more tokens");
  }
  const uint64_t capacity = uint64_t{kv_blocks} * block_tokens;
  if (capacity < model_tokens_max) {
    return base::InvalidArgument(base::Concat(
        "the KV cache holds ", std::to_string(capacity), " tokens (", std::to_string(kv_blocks),
        " blocks of ", std::to_string(block_tokens),
        "), less than one request of the maximum model length ",
        std::to_string(model_tokens_max), "; raise the first or lower the second"));
  }
  if (frontend_delay.count() < 0) return base::InvalidArgument("front-end delay is negative");
  if (offload_blocks > kBlocksMax) {
    return OutOfBounds("CPU memory for KV", offload_blocks, "0 to 67108864 blocks");
  }
  if (offload_load_token.count() < 0) return base::InvalidArgument("a load time is negative");
  return base::OkStatus();
}

base::Result<std::unique_ptr<Engine>> Engine::Create(const EngineConfig& config) {
  LLMD_RETURN_IF_ERROR(config.Validate());
  return std::unique_ptr<Engine>(new Engine(config));
}

Engine::Engine(const EngineConfig& config)
    : config_(config),
      paced_(std::holds_alternative<Pace>(config.timing)),
      cost_(paced_ ? StepCost{} : std::get<StepCost>(config.timing)),
      pace_(paced_ ? std::get<Pace>(config.timing) : Pace{}),
      root_seed_(config.hash_seed),
      pool_(config.kv_blocks) {
  running_.reserve(config.sequences_max);
  if (config.wire_hash) {
    hasher_ = std::make_unique<WireHasher>(*config.wire_hash, config.wire_seed, config.hash_seed);
    digests_.resize(config.kv_blocks);
    offload_digests_.resize(config.offload_blocks);
  }
  if (config.offload_blocks > 0) offload_.emplace(config.offload_blocks);
}

// --- requests come and go ------------------------------------------------------------------------

base::Result<RequestId> Engine::Submit(const RequestSpec& spec, TimePoint now) {
  const uint64_t prompt = spec.prompt.empty() ? spec.prompt_tokens : spec.prompt.size();
  if (prompt == 0) return std::unexpected(base::InvalidArgument("the prompt has no tokens"));
  if (spec.output_tokens == 0) {
    return std::unexpected(base::InvalidArgument("the output has no tokens"));
  }
  if (prompt + spec.output_tokens > config_.model_tokens_max) {
    return std::unexpected(base::InvalidArgument(base::Concat(
        "prompt and output have ", std::to_string(prompt + spec.output_tokens),
        " tokens, the limit is ", std::to_string(config_.model_tokens_max))));
  }
  const uint32_t seats = config_.sequences_max - static_cast<uint32_t>(running_.size());
  if (arriving_.size + waiting_.size >= seats + config_.waiting_max) {
    return std::unexpected(base::ResourceExhausted("the waiting queue is full"));
  }

  const uint32_t slot = NewSlot();
  Sequence& s = slots_[slot];
  s.state = State::kArriving;
  s.reason = spec.reason;
  s.cacheable = config_.prefix_caching && !spec.prompt.empty();
  s.admitted_before = false;
  s.prompt = static_cast<uint32_t>(prompt);
  s.output = spec.output_tokens;
  s.generated = s.computed = s.scheduled = s.registered = s.cached = s.preemptions = 0;
  s.offload_hits = s.offload_cached = 0;
  s.tag = spec.tag;
  s.output_cycle = spec.output_cycle;
  s.output_offset = spec.output_offset;
  s.arrived_at = now;
  s.queued_at = now + config_.frontend_delay;
  if (s.cacheable) {
    s.salt = spec.cache_salt;
    s.chain = RootHash(root_seed_, s.salt.empty() ? 0 : base::Hash64(s.salt));
    if (hasher_) s.digest = hasher_->root();
    if (config_.cache_changes) s.tokens.assign(spec.prompt.begin(), spec.prompt.end());
    auto rest = spec.prompt;
    for (; rest.size() >= config_.block_tokens; rest = rest.subspan(config_.block_tokens)) {
      AppendBlockHash(&s, rest.first(config_.block_tokens));
    }
    s.tail.assign(rest.begin(), rest.end());
  }
  PushBack(&arriving_, slot);
  return IdOf(slot);
}

bool Engine::Abort(RequestId id, TimePoint now) {
  uint32_t slot;
  Sequence* s = Find(id, &slot);
  if (s == nullptr) return false;
  switch (s->state) {
    case State::kArriving: Remove(&arriving_, slot); break;
    case State::kWaiting: Remove(&waiting_, slot); break;
    case State::kRunning:
      running_.erase(std::find(running_.begin(), running_.end(), slot));
      pool_.Release(s->blocks);
      break;
    case State::kUnused: break;
  }
  FreeSlot(slot);
  ++totals_.aborted;
  if (waiting_.size > 0) wake_at_ = std::max(now, now_);
  // With a pace nothing is in flight once nobody runs; a step, once begun, runs to its end.
  if (paced_ && running_.empty()) step_ends_at_ = kNever;
  return true;
}

RequestId Engine::IdOf(uint32_t slot) const {
  return RequestId{uint64_t{slots_[slot].generation} << 32 | slot};
}

Engine::Sequence* Engine::Find(RequestId id, uint32_t* slot) {
  const uint64_t raw = static_cast<uint64_t>(id);
  *slot = static_cast<uint32_t>(raw);
  if (*slot >= slots_.size()) return nullptr;
  Sequence& s = slots_[*slot];
  return s.state != State::kUnused && s.generation == raw >> 32 ? &s : nullptr;
}

uint32_t Engine::NewSlot() {
  if (free_slots_.empty()) {
    slots_.emplace_back();
    return static_cast<uint32_t>(slots_.size()) - 1;
  }
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  return slot;
}

void Engine::FreeSlot(uint32_t slot) {
  Sequence& s = slots_[slot];
  s.state = State::kUnused;
  ++s.generation;
  s.hashes.clear();
  s.digests.clear();
  s.tokens.clear();
  s.tail.clear();
  s.blocks.clear();
  if (s.hashes.capacity() > kKeptEntriesMax) s.hashes = {};
  if (s.digests.capacity() > kKeptEntriesMax) s.digests = {};
  if (s.tokens.capacity() > kKeptEntriesMax) s.tokens = {};
  if (s.blocks.capacity() > kKeptEntriesMax) s.blocks = {};
  free_slots_.push_back(slot);
}

void Engine::PushBack(List* list, uint32_t slot) {
  slots_[slot].previous = list->last;
  slots_[slot].next = kNone;
  (list->last == kNone ? list->first : slots_[list->last].next) = slot;
  list->last = slot;
  ++list->size;
}

void Engine::PushFront(List* list, uint32_t slot) {
  slots_[slot].previous = kNone;
  slots_[slot].next = list->first;
  (list->first == kNone ? list->last : slots_[list->first].previous) = slot;
  list->first = slot;
  ++list->size;
}

void Engine::Remove(List* list, uint32_t slot) {
  const Sequence& s = slots_[slot];
  (s.previous == kNone ? list->first : slots_[s.previous].next) = s.next;
  (s.next == kNone ? list->last : slots_[s.next].previous) = s.previous;
  --list->size;
}

// --- a step --------------------------------------------------------------------------------------

TimePoint Engine::next_step_at() const {
  TimePoint at = step_ends_at_;
  if (paced_ || at == kNever) {
    at = std::min(at, wake_at_);
    if (arriving_.size > 0) at = std::min(at, slots_[arriving_.first].queued_at);
  }
  return at == kNever ? at : std::max(at, now_);
}

StepResult Engine::Step() {
  const TimePoint now = next_step_at();
  LLMD_CHECK(now != kNever, "a step needs work: next_step_at() says there is none");
  now_ = now;
  wake_at_ = kNever;
  token_events_.clear();
  finished_.clear();
  scheduled_tags_.clear();
  preempted_tags_.clear();
  if (std::exchange(log_taken_, true)) log_.Clear();
  const uint64_t computed_before = totals_.computed_tokens;

  if (step_ends_at_ <= now) Deliver(now);
  // From here on nothing that was due is in flight, and the blocks of finished requests are free.
  MoveArrived(now);
  Schedule(now);

  return StepResult{.at = now,
                    .computed_tokens = totals_.computed_tokens - computed_before,
                    .tokens = token_events_,
                    .finished = finished_,
                    .scheduled_tags = scheduled_tags_,
                    .preempted_tags = preempted_tags_,
                    .cache_changes = log_.changes()};
}

void Engine::Deliver(TimePoint now) {
  size_t kept = 0;
  for (const uint32_t slot : running_) {
    Sequence& s = slots_[slot];
    if (s.scheduled > 0 && s.due_at <= now) {
      s.computed += s.scheduled;
      totals_.computed_tokens += s.scheduled;
      s.scheduled = 0;
      if (s.computed == s.known()) DeliverToken(slot, now);
      if (s.generated == s.output) {
        pool_.Release(s.blocks);
        FreeSlot(slot);
        continue;
      }
    }
    running_[kept++] = slot;
  }
  running_.resize(kept);
}

void Engine::DeliverToken(uint32_t slot, TimePoint now) {
  Sequence& s = slots_[slot];
  const Token token =
      s.output_cycle.empty()
          ? static_cast<Token>(base::Mix64(s.output_offset, s.generated))
          : s.output_cycle[(s.output_offset + s.generated) % s.output_cycle.size()];
  if (s.generated == 0) {
    s.first_token_at = now;
    totals_.prompt_tokens += s.prompt;
  }
  token_events_.push_back({s.tag, IdOf(slot), s.generated, token});
  ++totals_.generated_tokens;
  if (s.cacheable) AppendKnown(&s, token);
  ++s.generated;
  if (s.generated < s.output) return;
  finished_.push_back({.tag = s.tag,
                       .id = IdOf(slot),
                       .reason = s.reason,
                       .prompt_tokens = s.prompt,
                       .cached_tokens = s.cached,
                       .offload_tokens = s.offload_cached,
                       .output_tokens = s.output,
                       .preemptions = s.preemptions,
                       .arrived_at = s.arrived_at,
                       .queued_at = s.queued_at,
                       .scheduled_at = s.scheduled_at,
                       .first_token_at = s.first_token_at,
                       .finished_at = now});
}

void Engine::AppendKnown(Sequence* s, Token token) {
  if (config_.cache_changes) s->tokens.push_back(token);
  s->tail.push_back(token);
  if (s->tail.size() < config_.block_tokens) return;
  AppendBlockHash(s, s->tail);
  s->tail.clear();
}

void Engine::AppendBlockHash(Sequence* s, std::span<const Token> block) {
  if (!hasher_) {
    s->chain = ChainHash(s->chain, block);
  } else {
    s->digest = hasher_->Chain(s->digest, block, s->hashes.empty() ? s->salt : "");
    s->digests.push_back(s->digest);
    s->chain = hasher_->KeyOf(s->digest);
  }
  s->hashes.push_back(s->chain);
}

void Engine::MoveArrived(TimePoint now) {
  while (arriving_.size > 0 && slots_[arriving_.first].queued_at <= now) {
    const uint32_t slot = arriving_.first;
    Remove(&arriving_, slot);
    slots_[slot].state = State::kWaiting;
    PushBack(&waiting_, slot);
  }
}

void Engine::Schedule(TimePoint now) {
  BatchShape batch;
  loading_tokens_ = 0;
  uint64_t budget = paced_ ? UINT64_MAX : config_.batched_tokens_max;
  if (ScheduleRunning(now, &budget, &batch)) ScheduleWaiting(now, &budget, &batch);

  step_ends_at_ = kNever;
  if (batch.tokens() > 0) ++totals_.steps;
  if (!paced_) {
    if (batch.tokens() == 0) return;
    step_ends_at_ = now + cost_.Of(batch) +
                    config_.offload_load_token * static_cast<int64_t>(loading_tokens_);
    for (const uint32_t slot : running_) slots_[slot].due_at = step_ends_at_;
    return;
  }
  for (const uint32_t slot : running_) step_ends_at_ = std::min(step_ends_at_, slots_[slot].due_at);
}

// False if someone had to be pushed back: then no newcomer may take the room.
bool Engine::ScheduleRunning(TimePoint now, uint64_t* budget, BatchShape* batch) {
  const uint64_t preemptions_before = totals_.preemptions;
  for (size_t i = 0; i < running_.size() && *budget > 0; ++i) {
    Sequence& s = slots_[running_[i]];
    if (s.scheduled > 0) continue;
    const uint32_t tokens =
        static_cast<uint32_t>(std::min<uint64_t>(s.known() - s.computed, *budget));
    while (!Reserve(&s, tokens)) {
      PreemptLast();
      if (i == running_.size()) return false;  // it was this one
    }
    Launch(&s, tokens, now, batch);
    *budget -= tokens;
  }
  return totals_.preemptions == preemptions_before;
}

void Engine::ScheduleWaiting(TimePoint now, uint64_t* budget, BatchShape* batch) {
  while (waiting_.size > 0 && *budget > 0 && running_.size() < config_.sequences_max) {
    const uint32_t slot = waiting_.first;
    if (!Admit(slot, *budget)) return;
    Remove(&waiting_, slot);
    running_.push_back(slot);
    Sequence& s = slots_[slot];
    s.state = State::kRunning;
    if (!s.admitted_before) {
      s.admitted_before = true;
      s.scheduled_at = now;
      s.cached = s.computed;
      s.offload_cached = s.offload_hits * config_.block_tokens;
      totals_.prefix_queried_tokens += s.prompt;
      totals_.prefix_hit_tokens += s.cached - s.offload_cached;
      if (offload_) totals_.offload_queried_tokens += s.prompt - (s.cached - s.offload_cached);
      totals_.offload_hit_tokens += s.offload_cached;
    }
    const uint32_t tokens =
        static_cast<uint32_t>(std::min<uint64_t>(s.known() - s.computed, *budget));
    Launch(&s, tokens, now, batch);
    scheduled_tags_.push_back(s.tag);
    *budget -= tokens;
  }
}

// Takes the cached prefix and the blocks for the first chunk, or nothing at all.
bool Engine::Admit(uint32_t slot, uint64_t budget) {
  Sequence& s = slots_[slot];
  const uint32_t hits_max = s.cacheable ? (s.known() - 1) / config_.block_tokens : 0;
  hit_blocks_.clear();
  uint32_t hits_free = 0;
  while (hit_blocks_.size() < hits_max) {
    const BlockId block = pool_.Find(s.hashes[hit_blocks_.size()]);
    if (block == kNoBlock) break;
    hits_free += pool_.IsFree(block);
    hit_blocks_.push_back(block);
  }
  const uint32_t hits = static_cast<uint32_t>(hit_blocks_.size());
  s.offload_hits = FindOffloaded(s, hits, hits_max);
  const uint32_t cached = (hits + s.offload_hits) * config_.block_tokens;
  const uint32_t tokens = static_cast<uint32_t>(std::min<uint64_t>(s.known() - cached, budget));
  // A hit that nobody holds leaves the free list too.
  const uint32_t fresh = BlocksFor(cached + tokens) - hits;
  if (fresh + hits_free > pool_.free_count()) return false;

  for (const BlockId block : hit_blocks_) pool_.Hold(block);
  s.blocks.assign(hit_blocks_.begin(), hit_blocks_.end());
  s.registered = hits;
  s.computed = cached;
  AllocateBlocks(fresh, &s);
  TouchOffloaded(s, hits + s.offload_hits);
  return true;
}

bool Engine::Reserve(Sequence* s, uint32_t tokens) {
  const uint32_t blocks = BlocksFor(s->computed + tokens);
  const uint32_t held = static_cast<uint32_t>(s->blocks.size());
  if (blocks <= held) return true;
  if (blocks - held > pool_.free_count()) return false;
  AllocateBlocks(blocks - held, s);
  return true;
}

void Engine::PreemptLast() {
  const uint32_t slot = running_.back();
  running_.pop_back();
  Sequence& s = slots_[slot];
  pool_.Release(s.blocks);
  s.blocks.clear();
  s.computed = s.scheduled = s.registered = s.offload_hits = 0;
  s.state = State::kWaiting;
  ++s.preemptions;
  ++totals_.preemptions;
  PushFront(&waiting_, slot);
  preempted_tags_.push_back(s.tag);
}

void Engine::Launch(Sequence* s, uint32_t tokens, TimePoint now, BatchShape* batch) {
  batch->Add(tokens, s->computed);
  s->scheduled = tokens;
  const uint64_t loading = uint64_t{std::exchange(s->offload_hits, 0)} * config_.block_tokens;
  loading_tokens_ += loading;
  if (paced_) {
    const bool decode = s->generated > 0 && tokens == 1;
    s->due_at = now + (decode ? pace_.inter_token : pace_.Prefill(tokens)) +
                config_.offload_load_token * static_cast<int64_t>(loading);
  }
  if (s->cacheable) RegisterBlocks(s);
}

uint32_t Engine::BlocksFor(uint32_t tokens) const {
  return (tokens + config_.block_tokens - 1) / config_.block_tokens;
}

// --- observation ---------------------------------------------------------------------------------

EngineStats Engine::stats() const {
  EngineStats stats = totals_;
  stats.running = static_cast<uint32_t>(running_.size());
  stats.waiting = waiting_.size;
  stats.kv_blocks_used = pool_.size() - pool_.free_count();
  stats.kv_evictions = pool_.evictions();
  return stats;
}

double Engine::kv_usage() const {
  return static_cast<double>(pool_.size() - pool_.free_count()) / pool_.size();
}

void Engine::VerifyForTest() const {
  pool_.VerifyForTest();
  if (offload_) offload_->VerifyForTest();
  std::vector<uint32_t> references(pool_.size());
  TimePoint latest_running{};
  for (const uint32_t slot : running_) {
    const Sequence& s = slots_[slot];
    LLMD_CHECK(s.state == State::kRunning, "running list and state disagree");
    LLMD_CHECK(s.blocks.size() == BlocksFor(s.computed + s.scheduled), "blocks do not fit tokens");
    LLMD_CHECK(s.known() <= config_.model_tokens_max, "longer than the model allows");
    LLMD_CHECK(s.queued_at >= latest_running, "running sequences out of order of arrival");
    latest_running = s.queued_at;
    for (const BlockId block : s.blocks) ++references[block];
  }
  for (BlockId block = 0; block < pool_.size(); ++block) {
    LLMD_CHECK(references[block] == pool_.references(block), "reference count is wrong");
  }
  LLMD_CHECK(running_.size() <= config_.sequences_max, "too many running");
  uint32_t waiting = 0;
  for (uint32_t slot = waiting_.first; slot != kNone; slot = slots_[slot].next, ++waiting) {
    LLMD_CHECK(slots_[slot].state == State::kWaiting, "waiting list and state disagree");
    LLMD_CHECK(slots_[slot].blocks.empty(), "a waiting sequence holds blocks");
    LLMD_CHECK(slots_[slot].queued_at >= latest_running, "someone overtook");
  }
  LLMD_CHECK(waiting == waiting_.size, "waiting list length is wrong");
}

}  // namespace llmd::engine
