// A snapshot of an index together with what feeds it: taken between messages, put back before them.
//
//   KvSnapshotTaker taker(header);
//   while (taker.Next(index, feed, &bytes)) {}   // one publisher each; messages may come between
//
//   LLMD_ASSIGN_OR_RETURN(KvSnapshot snapshot, KvSnapshot::Open(bytes));
//   LLMD_RETURN_IF_ERROR(FitsKvSnapshot(snapshot.header(), own_header));
//   RestoreKvSnapshot(snapshot, &index, &feed, now);
//
// Thread safety: the ingest thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "base/time.h"
#include "prefix/kv_feed.h"
#include "prefix/kv_snapshot.h"

namespace llmd::prefix {

// After it an engine's replay buffer has lost what a snapshot lacks, and its cache has turned over.
inline constexpr uint64_t kKvSnapshotAgeMaxSeconds = 3600;

class KvSnapshotTaker {
 public:
  explicit KvSnapshotTaker(const KvSnapshotHeader& header) : writer_(header) {}
  // Appends the next publisher as of now. False: there was none left, and the end was appended;
  // the taker has done its work. Publishers that cannot be resumed (KvFeed::Save) are left out.
  bool Next(const KvIndex& index, const KvFeed& feed, std::string* out);

 private:
  KvSnapshotWriter writer_;
  size_t next_ = 0;
};

// FailedPrecondition says in what `taken` differs from `own`: chain, block size, tiers, or age by
// own.unix_seconds.
base::Status FitsKvSnapshot(const KvSnapshotHeader& taken, const KvSnapshotHeader& own);

struct KvRestored {
  uint64_t publishers = 0;
  uint64_t blocks = 0;
  uint64_t skipped = 0;  // publishers that found no place
};
// Into an index and a feed that are empty. Publishers are added without replay (KvFeed::OfferReplay
// tells of it).
KvRestored RestoreKvSnapshot(const KvSnapshot& snapshot, KvIndex* index, KvFeed* feed,
                             base::TimePoint now);

}  // namespace llmd::prefix
