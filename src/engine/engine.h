// Engine: one model server in virtual time. After vLLM V1 (v1/core/sched/scheduler.py,
// kv_cache_manager.py) with first-come-first-served scheduling.
//
// The driver owns the clock. It calls Submit and Abort when something happens and Step when the
// time next_step_at() has come; a Step ends what was in flight, reports what came of it, and starts
// the next batch:
//
//   engine->Submit(spec, now);
//   while (auto at = engine->next_step_at(); at <= until) Handle(engine->Step());
//
// The scheduling of a step: running sequences first, in order of arrival (so decodes come before
// the newest sequences' prefill chunks), each with its next tokens until the token budget is spent;
// a sequence that finds no free block pushes the latest arrival back to the front of the queue, its
// KV given up and computed again later. Then, unless someone was pushed back, waiting sequences in
// order of arrival while seats, budget and blocks last, each starting behind the longest prefix of
// its blocks that the cache holds (never the whole prompt: the last token has to be computed). Full
// blocks, of generated tokens too, can be found by others from the moment they are scheduled.
//
// With an offload tier (vLLM's OffloadingConnector) every full block is copied to CPU memory when
// it is scheduled; a prompt whose prefix goes on there behind what the GPU holds has it loaded
// instead of computed, which takes offload_load_token per token. That tier is one LRU list: what is
// used is made warm from its tail to its head, so tails go first.
//
// Thread safety: none.
// Invariants:
//  1. Time does not go back: `now` of Submit and Abort is at least the time of the last Step, and
//     all Steps due before `now` were taken first.
//  2. Every submitted request is reported finished exactly once, unless it is aborted.
//  3. A block is referenced exactly by the sequences that list it; after the last request ends all
//     blocks are free.
//  4. Running sequences all arrived before waiting ones.
//  5. The same calls give the same results: chance enters only as seeds.
// Limits: EngineConfig, checked by Create. A step costs time linear in the running sequences plus
// the blocks of the first waiting one, and allocates nothing once the slots have grown to size.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/time.h"
#include "engine/block_hash.h"
#include "engine/block_pool.h"
#include "engine/cache_log.h"
#include "engine/timing.h"
#include "engine/wire_hash.h"

namespace llmd::engine {

struct EngineConfig {
  uint32_t block_tokens = 16;
  uint32_t kv_blocks = 1024;
  uint32_t model_tokens_max = 1024;    // prompt + output of one request (max-model-len)
  uint32_t sequences_max = 5;          // running at once (max-num-seqs)
  uint32_t waiting_max = 1000;         // beyond the free seats (max-waiting-queue-length)
  uint32_t batched_tokens_max = 8192;  // per step (max_num_batched_tokens); not used with a Pace
  bool prefix_caching = true;
  uint64_t hash_seed = 0;
  // Report what the caches come to hold and lose (StepResult::cache_changes). Costs a copy of each
  // running request's tokens.
  bool cache_changes = false;
  // Hash blocks as vLLM does, which costs more than the private hash; none: private. `wire_seed` is
  // vLLM's PYTHONHASHSEED; none: the root is drawn from hash_seed.
  std::optional<WireHashKind> wire_hash;
  std::optional<std::string> wire_seed;
  uint32_t offload_blocks = 0;  // of CPU memory; 0: no such tier
  base::Duration offload_load_token{0};
  // Between Submit and the queue: HTTP, tokenisation, process hops of the real server.
  base::Duration frontend_delay{0};
  Timing timing = Pace{};

  // Names the field that is out of bounds.
  base::Status Validate() const;
};

enum class RequestId : uint64_t {};
enum class FinishReason : uint8_t { kStop, kLength };

struct RequestSpec {
  // The prompt's tokens; may be empty if only their number is known, then nothing is cached or hit.
  std::span<const Token> prompt;
  uint32_t prompt_tokens = 0;  // only read if `prompt` is empty
  // How many tokens will be generated, and what then is said to be the reason: real servers find
  // out on the way, a model knows.
  uint32_t output_tokens = 1;
  FinishReason reason = FinishReason::kLength;
  // Token i of the output is output_cycle[(output_offset + i) % size]; it must outlive the request.
  // Empty: tokens drawn from `output_offset` as the seed.
  std::span<const Token> output_cycle;
  uint64_t output_offset = 0;
  std::string_view cache_salt;  // who gives another one shares no blocks
  uint64_t tag = 0;  // the driver's own, comes back with every event
};

struct TokenEvent {
  uint64_t tag;
  RequestId id;
  uint32_t index;  // of the output, from 0
  Token token;
};

// Everything known of a finished request. Times are the engine's.
struct RequestReport {
  uint64_t tag;
  RequestId id;
  FinishReason reason;
  uint32_t prompt_tokens;
  uint32_t cached_tokens;   // of the prompt, found at the first scheduling, in whatever tier
  uint32_t offload_tokens;  // of them in the offload tier
  uint32_t output_tokens;
  uint32_t preemptions;
  base::TimePoint arrived_at;    // Submit
  base::TimePoint queued_at;     // after the front-end delay
  base::TimePoint scheduled_at;  // first time
  base::TimePoint first_token_at;
  base::TimePoint finished_at;   // last token
};

// Valid until the next call on the engine.
struct StepResult {
  base::TimePoint at{};
  uint64_t computed_tokens = 0;  // of the sequences whose computation ended now
  std::span<const TokenEvent> tokens;
  std::span<const RequestReport> finished;
  std::span<const uint64_t> scheduled_tags;  // started, or started again, now
  std::span<const uint64_t> preempted_tags;
  // Of this step, and of ResetPrefixCache before it.
  std::span<const CacheChange> cache_changes;
};

struct EngineStats {
  uint32_t running = 0;
  uint32_t waiting = 0;     // in the queue; requests within the front-end delay are not
  uint32_t kv_blocks_used = 0;
  uint64_t steps = 0;
  uint64_t prefix_queried_tokens = 0;  // at the first scheduling of each request
  uint64_t prefix_hit_tokens = 0;      // on the GPU
  uint64_t offload_queried_tokens = 0;  // what the GPU did not have
  uint64_t offload_hit_tokens = 0;
  uint64_t prompt_tokens = 0;          // of requests that gave their first token
  uint64_t generated_tokens = 0;
  uint64_t computed_tokens = 0;
  uint64_t preemptions = 0;
  uint64_t aborted = 0;
  uint64_t kv_evictions = 0;
};

class Engine {
 public:
  static constexpr base::TimePoint kNever = base::TimePoint::max();

  static base::Result<std::unique_ptr<Engine>> Create(const EngineConfig& config);

  // InvalidArgument: empty prompt or output, or longer than model_tokens_max.
  // ResourceExhausted: the queue is full.
  base::Result<RequestId> Submit(const RequestSpec& spec, base::TimePoint now);
  // False if the request is not (or no longer) known. It is gone at once, with its KV; the step in
  // flight takes as long as it takes.
  bool Abort(RequestId id, base::TimePoint now);

  // Forgets all cached blocks of the GPU, and of the offload tier too if asked to. False, and
  // nothing happens, while requests hold blocks. Events tell of it with the next step.
  bool ResetPrefixCache(bool offload_too);

  // kNever when there is nothing to do.
  base::TimePoint next_step_at() const;
  // Takes the step due at next_step_at(), which must not be kNever.
  StepResult Step();

  EngineStats stats() const;
  // Share of the KV blocks that running requests hold, 0 to 1.
  double kv_usage() const;
  const EngineConfig& config() const { return config_; }
  // Of the wire hash; 8 with the private one.
  size_t digest_bytes() const { return hasher_ ? hasher_->digest_bytes() : 8; }
  // The hashes that can be found in a tier, one for each block that has it, in no order.
  std::vector<uint64_t> CachedHashes(CacheTier tier) const;
  // CHECKs the invariants that can be seen at rest.
  void VerifyForTest() const;

 private:
  enum class State : uint8_t { kUnused, kArriving, kWaiting, kRunning };
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Sequence {
    State state = State::kUnused;
    FinishReason reason = FinishReason::kLength;
    bool cacheable = false;
    bool admitted_before = false;
    uint32_t generation = 0;
    uint32_t prompt = 0;      // tokens
    uint32_t output = 0;      // tokens to generate
    uint32_t generated = 0;   // of them done
    uint32_t computed = 0;    // tokens in KV
    uint32_t scheduled = 0;   // tokens in flight; 0 means not in flight
    uint32_t registered = 0;  // leading blocks that are in the hash table
    uint32_t cached = 0;
    uint32_t offload_hits = 0;  // blocks to load from the offload tier
    uint32_t offload_cached = 0;  // tokens, at the first scheduling
    uint32_t preemptions = 0;
    uint32_t previous = kNone;  // neighbours in the arriving or waiting list
    uint32_t next = kNone;
    uint64_t tag = 0;
    std::span<const Token> output_cycle;
    uint64_t output_offset = 0;
    base::TimePoint arrived_at, queued_at, scheduled_at, first_token_at, due_at;
    uint64_t chain = 0;            // hash of the last full block of known tokens
    std::vector<uint64_t> hashes;  // of all full blocks of known tokens
    std::vector<Token> tail;       // known tokens behind the last full block
    Digest digest{};               // the chain and the hashes with a wire hash
    std::vector<Digest> digests;
    std::vector<Token> tokens;     // all known ones, if changes are reported
    std::string salt;
    std::vector<BlockId> blocks;

    uint32_t known() const { return prompt + generated; }
  };
  struct List {
    uint32_t first = kNone;
    uint32_t last = kNone;
    uint32_t size = 0;
  };

  explicit Engine(const EngineConfig& config);

  RequestId IdOf(uint32_t slot) const;
  Sequence* Find(RequestId id, uint32_t* slot);
  void PushBack(List* list, uint32_t slot);
  void PushFront(List* list, uint32_t slot);
  void Remove(List* list, uint32_t slot);
  uint32_t NewSlot();
  void FreeSlot(uint32_t slot);

  void Deliver(base::TimePoint now);
  void DeliverToken(uint32_t slot, base::TimePoint now);
  void AppendKnown(Sequence* s, Token token);
  void MoveArrived(base::TimePoint now);
  void Schedule(base::TimePoint now);
  bool ScheduleRunning(base::TimePoint now, uint64_t* budget, BatchShape* batch);
  void ScheduleWaiting(base::TimePoint now, uint64_t* budget, BatchShape* batch);
  bool Admit(uint32_t slot, uint64_t budget);
  bool Reserve(Sequence* s, uint32_t tokens);
  void AppendBlockHash(Sequence* s, std::span<const Token> block);
  void RegisterBlocks(Sequence* s);
  void AllocateBlocks(uint32_t n, Sequence* s);
  void LogStored(const Sequence& s, uint32_t begin, uint32_t end);
  void LogRemoved(const BlockPool& pool, CacheTier tier, std::span<const BlockId> blocks);
  uint32_t FindOffloaded(const Sequence& s, uint32_t begin, uint32_t end) const;
  void TouchOffloaded(const Sequence& s, uint32_t end);
  void Offload(const Sequence& s, uint32_t begin, uint32_t end);
  void PreemptLast();
  void Launch(Sequence* s, uint32_t tokens, base::TimePoint now, BatchShape* batch);
  uint32_t BlocksFor(uint32_t tokens) const;

  const EngineConfig config_;
  const bool paced_;
  const StepCost cost_;
  const Pace pace_;
  const uint64_t root_seed_;
  std::unique_ptr<WireHasher> hasher_;  // of the wire hash, if that is used
  BlockPool pool_;
  std::vector<Digest> digests_;  // by block, with a wire hash
  std::optional<BlockPool> offload_;
  std::vector<Digest> offload_digests_;
  std::vector<Sequence> slots_;
  std::vector<uint32_t> free_slots_;
  List arriving_;
  List waiting_;
  std::vector<uint32_t> running_;  // slots, by arrival
  base::TimePoint now_{};
  base::TimePoint step_ends_at_ = kNever;  // earliest due time of what is in flight
  base::TimePoint wake_at_ = kNever;       // an abort made room
  EngineStats totals_;
  uint64_t loading_tokens_ = 0;      // from the offload tier, by the step that is being scheduled
  bool log_taken_ = false;           // a step's result pointed to what is in log_
  CacheLog log_;
  std::vector<BlockId> hit_blocks_;  // scratch of Admit
  std::vector<BlockId> evicted_;     // scratch
  std::vector<BlockId> offloaded_;   // scratch
  std::vector<TokenEvent> token_events_;
  std::vector<RequestReport> finished_;
  std::vector<uint64_t> scheduled_tags_;
  std::vector<uint64_t> preempted_tags_;
};

}  // namespace llmd::engine
