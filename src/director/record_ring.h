// RecordRing: the last decision records of every worker, for /debug/decisions, the dashboard and
// replay.
//
// Thread safety: Push(worker, ...) belongs to that worker; everything else may be called from any
// thread. A writer never waits: each slot has a sequence lock, and a reader that meets a writer
// reads the slot again. Invariants: 1. A record is read whole or not at all. 2. The ring of a
// worker holds its last `records_per_worker` records. Limits: kRecordsPerWorker records of at
// most 1.6 KiB are 1.6 MiB per worker: a second of full load, minutes of what a person debugs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "director/record.h"

namespace llmd::director {

inline constexpr size_t kRecordsPerWorker = 1024;

class RecordRing {
 public:
  explicit RecordRing(size_t workers, size_t records_per_worker = kRecordsPerWorker);
  ~RecordRing();
  RecordRing(const RecordRing&) = delete;
  RecordRing& operator=(const RecordRing&) = delete;

  // Stores a copy and numbers it: `record->sequence` grows by one per worker, from 1 on. True when
  // an older record was overwritten.
  bool Push(size_t worker, DecisionRecord* record);
  // The `n` latest of all workers, newest first by time of arrival.
  std::vector<DecisionRecord> Last(size_t n) const;
  // The latest record of the request id (cut as records cut it).
  std::optional<DecisionRecord> Find(std::string_view request_id) const;

 private:
  struct Slot;
  struct Lane;

  bool Read(const Slot& slot, DecisionRecord* out) const;
  std::vector<DecisionRecord> LastOf(const Lane& lane, size_t n) const;

  const size_t workers_;
  const size_t records_per_worker_;
  std::unique_ptr<Lane[]> lanes_;
};

}  // namespace llmd::director
