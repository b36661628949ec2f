#include "prefix/kv_snapshot_feed.h"

#include "base/strings.h"

namespace llmd::prefix {

bool KvSnapshotTaker::Next(const KvIndex& index, const KvFeed& feed, std::string* out) {
  const std::shared_ptr<const KvHolders> holders = feed.holders().Current();
  while (next_ < holders->size()) {
    const auto id = static_cast<PublisherId>(next_++);
    std::optional<std::string> state = feed.Save(id);
    if (!state) continue;
    const KvPublisherSpec& spec = *feed.spec(id);
    writer_.AddHolder(index, id,
                      {.address = spec.address,
                       .rank = spec.rank,
                       .model = spec.model,
                       .state = *std::move(state)});
    out->append(writer_.Take());
    return true;
  }
  out->append(std::move(writer_).Finish());
  return false;
}

base::Status FitsKvSnapshot(const KvSnapshotHeader& taken, const KvSnapshotHeader& own) {
  const auto other = [](std::string_view what) {
    return base::FailedPrecondition(base::Concat("the snapshot is of an index with ", what));
  };
  if (taken.chain != own.chain || taken.fingerprint != own.fingerprint) {
    return other("another hashAlgorithm or hashSeed");
  }
  if (taken.block_tokens != own.block_tokens) {
    return other(base::Concat("blocks of ", std::to_string(taken.block_tokens), " tokens"));
  }
  if (taken.tiers != own.tiers) return other("other tiers (kvCacheBackendConfigs)");
  if (own.unix_seconds > taken.unix_seconds + kKvSnapshotAgeMaxSeconds) {
    return base::FailedPrecondition(
        base::Concat("the snapshot is ", std::to_string(own.unix_seconds - taken.unix_seconds),
                     " seconds old, more than ", std::to_string(kKvSnapshotAgeMaxSeconds)));
  }
  return base::OkStatus();
}

KvRestored RestoreKvSnapshot(const KvSnapshot& snapshot, KvIndex* index, KvFeed* feed,
                             base::TimePoint now) {
  KvRestored restored;
  for (const KvSnapshot::Holder& h : snapshot.holders()) {
    const auto id = feed->AddPublisher(
        {.address = h.holder.address, .rank = h.holder.rank, .model = h.holder.model}, now);
    if (!id) {
      ++restored.skipped;
    } else if (!feed->Resume(*id, h.holder.state, now)) {
      feed->RemovePublisher(*id);
      ++restored.skipped;
    } else {
      ++restored.publishers;
      restored.blocks += snapshot.Restore(h, index, *id);
    }
  }
  return restored;
}

}  // namespace llmd::prefix
