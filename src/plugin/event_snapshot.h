// EventSnapshots: an EventConsumer (events.h) that can hand what it knows on to the process after
// it. control/kv_snapshots.h keeps the bytes.
//
// Threads: the ingest thread.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "base/time.h"

namespace llmd::plugin {

class EventSnapshots {
 public:
  virtual ~EventSnapshots() = default;
  // A new snapshot begins; one that was under way is forgotten.
  virtual void BeginSnapshot(base::WallTime now) = 0;
  // Appends its next piece, as of now; events may come between two pieces. False: that was the
  // last.
  virtual bool NextPiece(std::string* out) = 0;

  struct Loaded {
    uint64_t publishers = 0;
    uint64_t blocks = 0;
  };
  // Goes on from a snapshot. Before the first OnMembers. An error: nothing has changed.
  virtual base::Result<Loaded> LoadSnapshot(std::string_view bytes, base::WallTime wall,
                                            base::TimePoint now) = 0;
};

}  // namespace llmd::plugin
