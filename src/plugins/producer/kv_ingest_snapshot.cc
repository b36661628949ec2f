// What of KvIngest has to do with snapshots of the index.
#include "plugins/producer/kv_ingest.h"

namespace llmd::plugins {
namespace {

// In which a restored publisher has to turn up in the fleet.
constexpr base::Duration kRestoredWait = std::chrono::seconds(60);

uint64_t SecondsOf(base::WallTime wall) { return static_cast<uint64_t>(wall.unix_ns) / 1000000000; }

}  // namespace

prefix::KvSnapshotHeader KvIngest::HeaderOf(const PreciseOptions& options) {
  const prefix::KvApplyOptions& apply = options.feed.apply;
  prefix::KvSnapshotHeader header{.chain = apply.chain->kind(),
                                  .chain_seed = options.own_seed,
                                  .fingerprint = apply.chain->fingerprint(),
                                  .block_tokens = apply.block_tokens};
  for (size_t i = 0; i < apply.tiers.weights().size(); ++i) {
    header.tiers.emplace_back(apply.tiers.name(static_cast<prefix::Tier>(i)));
  }
  return header;
}

void KvIngest::BeginSnapshot(base::WallTime now) {
  snapshot_header_.unix_seconds = SecondsOf(now);
  taker_.emplace(snapshot_header_);
}

bool KvIngest::NextPiece(std::string* out) { return taker_->Next(index_, feed_, out); }

base::Result<plugin::EventSnapshots::Loaded> KvIngest::LoadSnapshot(std::string_view bytes,
                                                                    base::WallTime wall,
                                                                    base::TimePoint now) {
  snapshot_header_.unix_seconds = SecondsOf(wall);
  LLMD_ASSIGN_OR_RETURN(const prefix::KvSnapshot snapshot, prefix::KvSnapshot::Open(bytes));
  LLMD_RETURN_IF_ERROR(prefix::FitsKvSnapshot(snapshot.header(), snapshot_header_));
  const prefix::KvRestored restored = prefix::RestoreKvSnapshot(snapshot, &index_, &feed_, now);
  restored_ = *feed_.holders().Current();
  restored_until_ = now + kRestoredWait;
  return Loaded{.publishers = restored.publishers, .blocks = restored.blocks};
}

// Who is listened to is who OnMembers told of.
void KvIngest::ForgetRestored() {
  for (const prefix::KvHolder& holder : std::exchange(restored_, {})) {
    const auto member = members_.find(holder.address);
    if (member != members_.end() && (!connects_ || member->second.rank == holder.rank)) continue;
    if (const auto id = feed_.Find(holder.address, holder.rank)) feed_.RemovePublisher(*id);
  }
}

}  // namespace llmd::plugins
