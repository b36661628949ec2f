// The shared index: what of precise-prefix-cache-producer has to do with Redis (prefix/kv_redis.h).
// SharedIndexWriter copies there what the engines tell, SharedIndexReader asks it for requests.
//
// Pods are endpoints by "ip:port", as upstream names them. The layout knows no ranks: those behind
// one address share their entries, and one that loses a block or clears its cache takes the others'
// entries with it until they store again. Tiers of equal weight share the name listed first.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/snapshot.h"
#include "fleet/fleet.h"
#include "plugin/redis.h"
#include "prefix/kv_feed.h"
#include "prefix/kv_redis.h"
#include "prefix/kv_redis_mirror.h"

namespace llmd::plugins {

struct SharedIndexOptions {
  std::string address;  // wire/redis_address.h
  base::Duration timeout = std::chrono::milliseconds(100);  // of a lookup
};

// Belongs to the ingest thread. Set up in two steps, because the feed is made with its sink: it is
// made, the feed is, and Begin comes before the feed's first event.
//
// Whenever the server may have forgotten or missed something (prefix/kv_redis_mirror.h), all that
// the feed knows is told again, one endpoint after the other. Where operations were dropped, what
// the server lists of the endpoint goes first.
class SharedIndexWriter final : public prefix::KvApplySink {
 public:
  explicit SharedIndexWriter(prefix::KvTiers tiers) : tiers_(std::move(tiers)) {}
  // `feed` outlives it.
  void Begin(prefix::KvFeed* feed) {
    feed_ = feed;
    holders_.emplace(feed->holders());
  }

  void OnStored(prefix::HolderId holder, prefix::Tier tier, std::optional<uint32_t> engine_group,
                std::span<const prefix::EngineKey> engine_keys,
                std::span<const prefix::BlockKey> blocks) override;
  void OnRemoved(prefix::HolderId holder, prefix::Tier tier, std::optional<uint32_t> engine_group,
                 std::span<const prefix::EngineKey> engine_keys) override;
  void OnCleared(prefix::HolderId holder) override;

  // What is to be run now, nullptr: nothing.
  wire::RespProgram* Next();
  prefix::KvRedisMirror& mirror() { return mirror_; }
  const prefix::KvRedisMirror& mirror() const { return mirror_; }

 private:
  void TellAgain(prefix::HolderId first);
  // nullptr: nobody any more.
  const prefix::KvHolder* Holder(prefix::HolderId holder);

  const prefix::KvTiers tiers_;
  prefix::KvFeed* feed_ = nullptr;
  std::optional<base::Snapshot<prefix::KvHolders>::Reader> holders_;
  prefix::KvRedisMirror mirror_;
  bool is_again_ = false;             // what comes was told before
  std::optional<size_t> tell_again_;  // holder that is next
  bool clears_ = false;               // before it is told again
};

// A lookup for one request.
class SharedLookup final : public plugin::OutsideRedis {
 public:
  SharedLookup(std::string address, base::Duration limit,
               std::shared_ptr<const prefix::KvRedisPods> pods,
               std::shared_ptr<const prefix::KvTiers> tiers,
               std::span<const std::span<const prefix::BlockKey>> chains);

  wire::RespProgram& program() override { return lookup_; }
  // Of an ended one: the server answered all of it.
  bool usable() const { return status().ok() && lookup_.error().empty(); }
  const std::string& error() const { return lookup_.error(); }
  // Of a usable one: what the best has.
  uint64_t best() const { return lookup_.best(); }
  // Of a usable one; 0 for who was no member when it was asked.
  uint32_t blocks(fleet::EndpointNumber n) const {
    return n < lookup_.blocks().size() ? lookup_.blocks()[n] : 0;
  }
  float weight(fleet::EndpointNumber n) const {
    return n < lookup_.weights().size() ? lookup_.weights()[n] : 0;
  }

 private:
  std::shared_ptr<const prefix::KvTiers> tiers_;
  prefix::KvRedisLookup lookup_;
};

// Belongs to one worker.
class SharedIndexReader {
 public:
  SharedIndexReader(std::string address, std::shared_ptr<const prefix::KvTiers> tiers)
      : address_(std::move(address)), tiers_(std::move(tiers)) {}

  // The task that asks which members hold how much of the chains.
  std::shared_ptr<SharedLookup> Ask(const fleet::View& view, base::Duration limit,
                                    std::span<const std::span<const prefix::BlockKey>> chains);

 private:
  const std::string address_;
  const std::shared_ptr<const prefix::KvTiers> tiers_;
  uint64_t version_ = ~uint64_t{0};
  std::shared_ptr<const prefix::KvRedisPods> pods_;  // members by EndpointNumber
};

}  // namespace llmd::plugins
