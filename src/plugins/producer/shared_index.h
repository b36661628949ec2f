// The shared index: what of precise-prefix-cache-producer has to do with Redis (prefix/kv_redis.h).
// SharedIndexWriter copies there what the engines tell, SharedIndexReader asks it for requests.
//
// Pods are endpoints by "ip:port", as upstream names them. The layout knows no ranks: those behind
// one address share their entries, and one that loses a block or clears its cache takes the others'
// entries with it until they store again. Tiers of equal weight share the name listed first.
#pragma once

#include <memory>
#include <string>

#include "base/snapshot.h"
#include "fleet/fleet.h"
#include "plugin/redis.h"
#include "prefix/kv_feed.h"
#include "prefix/kv_redis.h"
#include "prefix/kv_redis_mirror.h"

namespace llmd::plugins {

// Belongs to the ingest thread.
class SharedIndexWriter final : public prefix::KvApplySink {
 public:
  // `feed` may begin to call when its holders can be asked for; both outlive it.
  SharedIndexWriter(prefix::KvTiers tiers, const base::Snapshot<prefix::KvHolders>& holders)
      : tiers_(std::move(tiers)), holders_(holders) {}

  void OnStored(prefix::HolderId holder, prefix::Tier tier, std::optional<uint32_t> engine_group,
                std::span<const prefix::EngineKey> engine_keys,
                std::span<const prefix::BlockKey> blocks) override;
  void OnRemoved(prefix::HolderId holder, prefix::Tier tier, std::optional<uint32_t> engine_group,
                 std::span<const prefix::EngineKey> engine_keys) override;
  void OnCleared(prefix::HolderId holder) override;

  prefix::KvRedisMirror& mirror() { return mirror_; }

 private:
  // nullptr: nobody any more.
  const prefix::KvHolder* Holder(prefix::HolderId holder);

  const prefix::KvTiers tiers_;
  base::Snapshot<prefix::KvHolders>::Reader holders_;
  prefix::KvRedisMirror mirror_;
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
