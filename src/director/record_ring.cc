#include "director/record_ring.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace llmd::director {
namespace {

constexpr size_t kWords = sizeof(DecisionRecord) / sizeof(uint64_t);
constexpr size_t kHeaderBytes = offsetof(DecisionRecord, candidates);

// Words that hold the record with `shown` candidates.
size_t WordsOf(const DecisionRecord& record) {
  const size_t bytes = kHeaderBytes + record.shown * sizeof(RecordCandidate);
  return (bytes + sizeof(uint64_t) - 1) / sizeof(uint64_t);
}

}  // namespace

// The record as words, so that a reader that races with the writer reads old or new words and no
// undefined ones; the sequence (odd while written) tells whether they belong together.
struct RecordRing::Slot {
  std::atomic<uint64_t> sequence{0};
  std::atomic<uint64_t> words[kWords] = {};
};

struct alignas(64) RecordRing::Lane {
  std::unique_ptr<Slot[]> slots;
  std::atomic<uint64_t> pushed{0};
};

RecordRing::RecordRing(size_t workers, size_t records_per_worker)
    : workers_(workers), records_per_worker_(records_per_worker), lanes_(new Lane[workers]) {
  LLMD_CHECK(records_per_worker > 0, "a ring needs room");
  for (size_t w = 0; w < workers; ++w) lanes_[w].slots.reset(new Slot[records_per_worker]);
}

RecordRing::~RecordRing() = default;

bool RecordRing::Push(size_t worker, DecisionRecord* record) {
  Lane& lane = lanes_[worker];
  const uint64_t number = lane.pushed.load(std::memory_order_relaxed) + 1;
  Slot& slot = lane.slots[(number - 1) % records_per_worker_];
  record->sequence = number;
  record->shown = static_cast<uint8_t>(std::min<size_t>(record->shown, kRecordCandidatesMax));
  const uint64_t s = slot.sequence.load(std::memory_order_relaxed);
  // Release stores of the words carry the odd number to every reader that sees one of them.
  slot.sequence.store(s + 1, std::memory_order_relaxed);
  const char* bytes = reinterpret_cast<const char*>(record);
  for (size_t i = 0, n = WordsOf(*record); i < n; ++i) {
    uint64_t word;
    std::memcpy(&word, bytes + i * sizeof(word), sizeof(word));
    slot.words[i].store(word, std::memory_order_release);
  }
  slot.sequence.store(s + 2, std::memory_order_release);
  lane.pushed.store(number, std::memory_order_release);
  return number > records_per_worker_;
}

// False when the writer was there: the record is being replaced, so it is no longer wanted.
bool RecordRing::Read(const Slot& slot, DecisionRecord* out) const {
  const uint64_t before = slot.sequence.load(std::memory_order_acquire);
  if (before == 0 || before % 2 == 1) return false;
  char* bytes = reinterpret_cast<char*>(out);
  const auto copy = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const uint64_t word = slot.words[i].load(std::memory_order_acquire);
      std::memcpy(bytes + i * sizeof(word), &word, sizeof(word));
    }
  };
  constexpr size_t kHeaderWords = (kHeaderBytes + sizeof(uint64_t) - 1) / sizeof(uint64_t);
  copy(0, kHeaderWords);
  out->shown = static_cast<uint8_t>(std::min<size_t>(out->shown, kRecordCandidatesMax));
  copy(kHeaderWords, WordsOf(*out));
  return slot.sequence.load(std::memory_order_relaxed) == before;
}

std::vector<DecisionRecord> RecordRing::LastOf(const Lane& lane, size_t n) const {
  std::vector<DecisionRecord> out;
  const uint64_t pushed = lane.pushed.load(std::memory_order_acquire);
  for (uint64_t i = 0; i < std::min<uint64_t>({n, pushed, records_per_worker_}); ++i) {
    DecisionRecord record;
    if (!Read(lane.slots[(pushed - 1 - i) % records_per_worker_], &record)) continue;
    if (record.sequence == pushed - i) out.push_back(record);
  }
  return out;
}

std::vector<DecisionRecord> RecordRing::Last(size_t n) const {
  std::vector<DecisionRecord> all;
  for (size_t w = 0; w < workers_; ++w) {
    const std::vector<DecisionRecord> some = LastOf(lanes_[w], n);
    all.insert(all.end(), some.begin(), some.end());
  }
  std::sort(all.begin(), all.end(), [](const DecisionRecord& a, const DecisionRecord& b) {
    return a.received_unix_ns != b.received_unix_ns ? a.received_unix_ns > b.received_unix_ns
                                                    : a.sequence > b.sequence;
  });
  if (all.size() > n) all.resize(n);
  return all;
}

std::optional<DecisionRecord> RecordRing::Find(std::string_view request_id) const {
  request_id = request_id.substr(0, kRecordIdBytes - 1);
  std::optional<DecisionRecord> found;
  for (size_t w = 0; w < workers_; ++w) {
    for (const DecisionRecord& record : LastOf(lanes_[w], records_per_worker_)) {
      if (std::string_view(record.request_id) != request_id) continue;
      if (!found || record.received_unix_ns > found->received_unix_ns) found = record;
      break;
    }
  }
  return found;
}

}  // namespace llmd::director
