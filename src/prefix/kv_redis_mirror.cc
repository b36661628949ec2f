#include "prefix/kv_redis_mirror.h"

#include <utility>

namespace llmd::prefix {

KvRedisMirror::KvRedisMirror() : KvRedisMirror(Limits{}) {}

template <class Append>
void KvRedisMirror::Put(std::string_view pod, bool is_again, Append append) {
  const auto walk = walks_.find(pod);
  std::deque<Chunk>& chunks = walk == walks_.end() ? ready_ : walk->second.waiting;
  if (chunks.empty() || chunks.back().bytes.size() >= kChunkBytes ||
      chunks.back().is_again != is_again) {
    chunks.push_back({.bytes = {}, .commands = 0, .is_again = is_again});
  }
  Chunk& chunk = chunks.back();
  const size_t before = chunk.bytes.size();
  chunk.commands += append(&chunk.bytes);
  if (!is_again) pending_bytes_ += chunk.bytes.size() - before;
  if (chunk.commands == 0) chunks.pop_back();
  if (pending_bytes_ > limits_.pending_bytes) DropAll();
}

void KvRedisMirror::Store(const KvRedisEntry& entry, std::span<const EngineKey> engine_keys,
                          std::span<const BlockKey> blocks) {
  Put(entry.pod, false,
      [&](std::string* out) { return AppendKvRedisStore(entry, engine_keys, blocks, out); });
}

void KvRedisMirror::StoreAgain(const KvRedisEntry& entry, std::span<const EngineKey> engine_keys,
                               std::span<const BlockKey> blocks) {
  stats_.told_again += blocks.size();
  Put(entry.pod, true,
      [&](std::string* out) { return AppendKvRedisStore(entry, engine_keys, blocks, out); });
}

void KvRedisMirror::Remove(const KvRedisEntry& entry, std::span<const EngineKey> engine_keys) {
  Put(entry.pod, false,
      [&](std::string* out) { return AppendKvRedisRemove(entry, engine_keys, out); });
}

void KvRedisMirror::RemoveBlocks(const KvRedisEntry& entry, std::span<const BlockKey> blocks) {
  Put(entry.pod, false,
      [&](std::string* out) { return AppendKvRedisRemoveBlocks(entry, blocks, out); });
}

void KvRedisMirror::Clear(std::string_view pod) {
  const auto [it, is_new] = walks_.try_emplace(std::string(pod), std::string(pod));
  Walk& walk = it->second;
  if (is_new) {
    walk.begin_after = chunks_out_ + ready_.size();
    // What others are told from now on must not count as told before.
    if (!ready_.empty()) ready_.emplace_back();
    return;
  }
  walk.again = true;
  for (const Chunk& chunk : walk.waiting) Forget(chunk);
  walk.waiting.clear();
}

void KvRedisMirror::DropAll() {
  const auto drop = [&](std::deque<Chunk>* chunks) {
    for (const Chunk& chunk : *chunks) stats_.dropped += chunk.commands;
    chunks->clear();
  };
  // Chunks that will never go out count as out, for walks that wait for them.
  chunks_out_ += ready_.size();
  drop(&ready_);
  for (auto& [pod, walk] : walks_) drop(&walk.waiting);
  pending_bytes_ = 0;
  was_dropped_ = true;
}

size_t KvRedisMirror::NextRound(std::string* commands) {
  round_.clear();
  under_way_.clear();
  part_ = answered_ = 0;
  if (rounds_++ == kRunRounds) return 0;
  size_t count = 0;
  if (std::exchange(asks_server_, false)) {
    wire::AppendRespCommand({"INFO", "server"}, commands);
    round_.push_back({.kind = Part::Kind::kServer, .walk = nullptr, .commands = 1});
    ++count;
  }
  const auto take = [&] {
    Part part;
    while (!ready_.empty() && commands->size() < limits_.round_bytes) {
      Chunk& chunk = ready_.front();
      commands->append(chunk.bytes);
      Forget(chunk);
      part.commands += chunk.commands;
      under_way_.push_back(std::move(chunk));
      ready_.pop_front();
      ++chunks_out_;
    }
    if (part.commands > 0) round_.push_back(part);
    count += part.commands;
  };
  take();
  for (auto it = walks_.begin(); it != walks_.end();) {
    Walk& walk = it->second;
    if (walk.begin_after > chunks_out_) {
      ++it;
      continue;
    }
    const size_t asked = walk.clear.NextRound(commands);
    if (asked > 0) {
      round_.push_back({.kind = Part::Kind::kWalk, .walk = &walk, .commands = asked});
      count += asked;
      ++it;
      continue;
    }
    Finish(&walk);
    if (walk.again) {
      walk.again = false;
      walk.clear = KvRedisClear(it->first);
      continue;
    }
    for (Chunk& chunk : walk.waiting) ready_.push_back(std::move(chunk));
    it = walks_.erase(it);
  }
  take();  // what waited for the end of a walk
  stats_.commands += count;
  return count;
}

void KvRedisMirror::Finish(Walk* walk) {
  ++stats_.cleared;
  if (walk->clear.error().empty()) return;
  error_ = walk->clear.error();
  ++stats_.errors;
}

void KvRedisMirror::OnReply(size_t, const wire::RespValue& reply) {
  if (part_ == round_.size()) return;
  const Part part = round_[part_];
  const size_t index = answered_++;
  if (answered_ == part.commands) {
    ++part_;
    answered_ = 0;
  }
  if (part.kind == Part::Kind::kServer) {
    OnServer(reply);
  } else if (part.kind == Part::Kind::kWalk) {
    part.walk->clear.OnReply(index, reply);
  } else if (reply.type == wire::RespValue::Type::kError) {
    ++stats_.errors;
    error_ = reply.text;
  }
}

void KvRedisMirror::OnEnd(const base::Status& status) {
  rounds_ = 0;
  if (status.ok()) return;
  for (const Part& part : round_) asks_server_ |= part.kind == Part::Kind::kServer;
  for (; !under_way_.empty(); under_way_.pop_back()) {
    Chunk& chunk = under_way_.back();
    stats_.sent_again += chunk.commands;
    if (!chunk.is_again) pending_bytes_ += chunk.bytes.size();
    ready_.push_front(std::move(chunk));
    --chunks_out_;
  }
  round_.clear();
  part_ = answered_ = 0;
  // Walks begin anew.
  for (auto& [pod, walk] : walks_) walk.clear = KvRedisClear(pod);
}

// Who may not ask (an ACL) has to take every connection for one to another server.
void KvRedisMirror::OnServer(const wire::RespValue& reply) {
  constexpr std::string_view kName = "run_id:";
  std::string_view id;
  if (reply.type == wire::RespValue::Type::kText) {
    const size_t at = reply.text.find(kName);
    if (at != reply.text.npos) {
      id = reply.text.substr(at + kName.size());
      id = id.substr(0, id.find_first_of("\r\n"));
    }
  }
  server_changed_ |= id.empty() || id != server_;
  server_ = id;
}

KvRedisMirror::Stats KvRedisMirror::stats() const {
  Stats stats = stats_;
  stats.pending_bytes = pending_bytes_;
  return stats;
}

}  // namespace llmd::prefix
