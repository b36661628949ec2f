// A trace of real traffic through the KV block index: how a lookup and the index grow with the
// fleet.
//
// The trace is Mooncake's conversation trace or one like it (JSON lines with timestamp in ms,
// input_length in tokens and hash_ids of 512-token blocks; equal ids mean equal prefixes), named by
// LLMD_MOONCAKE_TRACE; without it a few made-up conversations. Requests go where backlog and
// uncached tokens are least together (every prompt of that trace begins alike, so that the longest
// match alone would send all of it to one server). Each server computes 16,000 tokens a second and
// keeps 20,000 blocks of 512 tokens, the least recently used go; what it stores and evicts is told
// to the index. Time is compressed so that fleets of all sizes are equally loaded.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/hash.h"
#include "prefix/kv_index.h"

namespace llmd::prefix {
namespace {

constexpr uint32_t kTraceBlockTokens = 512;
constexpr size_t kServerBlocks = 20'000;  // of the trace's
constexpr double kTokensPerSecond = 16'000;
constexpr double kServersAtRealTime = 4;  // that the trace at its own speed keeps busy

struct Request {
  double seconds;
  uint32_t tokens;
  std::vector<uint32_t> blocks;
};

std::vector<Request> Load(const char* path) {
  std::vector<Request> requests;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto row = nlohmann::json::parse(line, nullptr, false);
    LLMD_CHECK(!row.is_discarded(), "the trace is not JSON lines");
    requests.push_back({.seconds = row.value("timestamp", 0.0) / 1000,
                        .tokens = row.value("input_length", 0u),
                        .blocks = row.value("hash_ids", std::vector<uint32_t>{})});
  }
  return requests;
}

// Conversations of three turns that begin alike, to show that everything works.
std::vector<Request> MadeUp() {
  std::vector<Request> requests;
  for (uint32_t i = 0; i < 300; ++i) {
    Request request{.seconds = i * 0.1, .tokens = 0, .blocks = {0}};
    const uint32_t conversation = i % 100;
    for (uint32_t block = 0; block < 4 * (i / 100 + 1); ++block) {
      request.blocks.push_back(1 + 12 * conversation + block);
    }
    request.tokens = static_cast<uint32_t>(request.blocks.size()) * kTraceBlockTokens;
    requests.push_back(std::move(request));
  }
  return requests;
}

const std::vector<Request>& Trace() {
  static const std::vector<Request> trace = [] {
    const char* path = std::getenv("LLMD_MOONCAKE_TRACE");
    return path == nullptr ? MadeUp() : Load(path);
  }();
  return trace;
}

// One server's cache, in blocks of the trace.
class Server {
 public:
  bool Has(uint32_t block) const { return places_.contains(block); }
  void Use(uint32_t block) {
    const auto [entry, is_new] = places_.try_emplace(block);
    if (!is_new) order_.erase(entry->second);
    order_.push_front(block);
    entry->second = order_.begin();
  }
  bool is_over() const { return order_.size() > kServerBlocks; }
  uint32_t Evict() {
    const uint32_t block = order_.back();
    places_.erase(block);
    order_.pop_back();
    return block;
  }

  double busy_until = 0;

 private:
  std::list<uint32_t> order_;
  std::unordered_map<uint32_t, std::list<uint32_t>::iterator> places_;
};

class Replay {
 public:
  Replay(uint32_t servers, uint32_t block_tokens)
      : per_block_(kTraceBlockTokens / block_tokens),
        block_tokens_(block_tokens),
        speed_(servers / kServersAtRealTime),
        index_({.bytes_max = KvIndex::kBytesMaxDefault, .seed = 1}),
        reader_(index_),
        servers_(servers),
        matched_(servers) {}

  void Take(const Request& request) {
    Chain(request);
    const auto begin = std::chrono::steady_clock::now();
    reader_.Match(chain_, {}, {}, matched_, {});
    nanoseconds_.push_back((std::chrono::steady_clock::now() - begin).count());

    const double now = request.seconds / speed_;
    const auto cost = [&](size_t s) {
      const double cached = matched_[s] * double{1} * block_tokens_;
      return std::max(servers_[s].busy_until - now, 0.0) +
             std::max(request.tokens - cached, 0.0) / kTokensPerSecond;
    };
    size_t best = 0;
    for (size_t s = 1; s < servers_.size(); ++s) {
      if (cost(s) < cost(best)) best = s;
    }
    hit_ += std::min<uint64_t>(uint64_t{matched_[best]} * block_tokens_, request.tokens);
    asked_ += request.tokens;
    servers_[best].busy_until = now + cost(best);
    Serve(static_cast<HolderId>(best), request);
  }

  void Report(benchmark::State& state) {
    std::sort(nanoseconds_.begin(), nanoseconds_.end());
    const auto at = [&](double share) {
      const auto last = static_cast<double>(nanoseconds_.size() - 1);
      return static_cast<double>(nanoseconds_[static_cast<size_t>(share * last)]) / 1000;
    };
    const KvIndex::Stats stats = index_.stats();
    state.counters["p50_us"] = at(0.5);
    state.counters["p99_us"] = at(0.99);
    state.counters["hit_rate"] = static_cast<double>(hit_) / static_cast<double>(asked_);
    state.counters["blocks"] = static_cast<double>(stats.blocks);
    state.counters["pairs"] = static_cast<double>(stats.pairs);
    state.counters["bytes_per_block"] =
        static_cast<double>(stats.bytes) / static_cast<double>(stats.blocks);
    state.counters["operations_per_s"] = static_cast<double>(operations_) / write_seconds_;
  }

 private:
  void Keys(uint32_t block, std::vector<BlockKey>* out) const {
    for (uint32_t i = 0; i < per_block_; ++i) out->push_back(base::Mix64(block, i) | 1);
  }
  void Chain(const Request& request) {
    chain_.clear();
    for (const uint32_t block : request.blocks) Keys(block, &chain_);
  }

  // What is not there is stored in one event, what goes is removed in one event a trace block.
  void Serve(HolderId holder, const Request& request) {
    Server& server = servers_[holder];
    size_t known = 0;
    while (known < request.blocks.size() && server.Has(request.blocks[known])) ++known;
    // The first block last: tails go first, as engines evict, and what is held stays a prefix.
    for (size_t i = request.blocks.size(); i-- > 0;) server.Use(request.blocks[i]);
    const auto begin = std::chrono::steady_clock::now();
    if (known < request.blocks.size()) {
      const std::span<const BlockKey> fresh = std::span(chain_).subspan(known * per_block_);
      std::optional<KvIndex::BlockRef> parent;
      if (known > 0) parent = index_.Find(holder, 0, chain_[known * per_block_ - 1]);
      index_.Store(holder, 0, 0, parent ? &*parent : nullptr, fresh, fresh);
      operations_ += fresh.size();
    }
    while (server.is_over()) {
      gone_.clear();
      Keys(server.Evict(), &gone_);
      index_.Remove(holder, 0, 0, gone_);
      operations_ += gone_.size();
    }
    write_seconds_ +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  const uint32_t per_block_;
  const uint32_t block_tokens_;
  const double speed_;
  KvIndex index_;
  KvIndex::Reader reader_;
  std::vector<Server> servers_;
  std::vector<uint32_t> matched_;
  std::vector<BlockKey> chain_;
  std::vector<BlockKey> gone_;
  std::vector<int64_t> nanoseconds_;
  uint64_t hit_ = 0;
  uint64_t asked_ = 0;
  uint64_t operations_ = 0;
  double write_seconds_ = 0;
};

void BM_Replay(benchmark::State& state) {
  for (auto _ : state) {
    Replay replay(static_cast<uint32_t>(state.range(0)), static_cast<uint32_t>(state.range(1)));
    for (const Request& request : Trace()) replay.Take(request);
    replay.Report(state);
  }
}
BENCHMARK(BM_Replay)
    ->ArgsProduct({{8, 128, 1000}, {16, 64}})
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace llmd::prefix
