// The KV block index as bytes: for a picker that restarts, and for a peer that starts.
//
//   KvSnapshotWriter writer(header);
//   for (...) writer.AddHolder(index, number, holder);   // the ingest thread, between two messages
//   std::string bytes = std::move(writer).Finish();
//
//   LLMD_ASSIGN_OR_RETURN(KvSnapshot snapshot, KvSnapshot::Open(bytes));   // checks every byte
//   for (const KvSnapshot::Holder& h : snapshot.holders()) snapshot.Restore(h, &index, number);
//
// A snapshot is taken holder by holder, each as of one moment and with the number of the event that
// moment corresponds to: what came later is asked of the engine again. So writing it never stops
// ingest for longer than one holder takes, and a restored holder is exact as soon as its engine has
// sent what it missed.
//
// Format (little endian; version 1): magic "llmdKVix", u32 version, u32 zero, then frames of u32
// type, u32 zero, u64 size, u64 XXH3 of the payload mixed with the type and with the frames before,
// payload.
// The first frame is the header, the last says how many there were: a file that was cut, mixed from
// two or written by somebody else is refused as a whole.
//
// Secrets: the header carries the seed of the key chain. Whoever has it can construct collisions,
// so files are for their owner's eyes only.
// Thread safety: none; views into the bytes that were opened, which outlive the KvSnapshot.
// Limits: kHoldersMax holders, kTextBytesMax per text, kReferencesMax references of a block (more
// are written as so many).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "prefix/kv_index.h"
#include "prefix/token_chain.h"

namespace llmd::prefix {

// What block keys mean. Restored into an index of other keys, blocks would never match.
struct KvSnapshotHeader {
  ChainKind chain = ChainKind::kOwn;
  std::string chain_seed;    // of a chain whose seed is the process' own; "": the config has it
  uint64_t fingerprint = 0;  // TokenChain's
  uint32_t block_tokens = 16;
  std::vector<std::string> tiers;  // names by number
  uint64_t unix_seconds = 0;       // when it was taken

  friend bool operator==(const KvSnapshotHeader&, const KvSnapshotHeader&) = default;
};

// A publisher whose blocks are in the snapshot.
struct KvSnapshotHolder {
  std::string address;  // "ip:port"
  uint32_t rank = 0;
  std::string model;
  std::string state;  // KvFeed::Save's

  friend bool operator==(const KvSnapshotHolder&, const KvSnapshotHolder&) = default;
};

class KvSnapshotWriter {
 public:
  explicit KvSnapshotWriter(const KvSnapshotHeader& header);
  // All that `number` holds now, under `holder`.
  void AddHolder(const KvIndex& index, HolderId number, const KvSnapshotHolder& holder);
  // What was written since the last call; the pieces together are the snapshot.
  std::string Take() { return std::exchange(bytes_, {}); }
  // The rest.
  std::string Finish() &&;

 private:
  void BeginFrame(uint32_t type);
  void EndFrame();

  std::string bytes_;
  size_t frame_begin_ = 0;
  uint64_t chained_ = 0;
  uint64_t frames_ = 0;
};

class KvSnapshot {
 public:
  static constexpr size_t kHoldersMax = KvIndex::kHoldersMax;
  static constexpr size_t kTextBytesMax = 4096;
  // Engines store a block again for each copy that they make of it: a handful.
  static constexpr uint32_t kReferencesMax = 1024;

  struct Holder {
    KvSnapshotHolder holder;
    uint64_t blocks = 0;
    std::string_view stretches;  // encoded
  };

  // DataLoss: cut, changed or not a snapshot; Unimplemented: of another version.
  static base::Result<KvSnapshot> Open(std::string_view bytes);

  const KvSnapshotHeader& header() const { return header_; }
  std::span<const Holder> holders() const { return holders_; }
  // Puts a holder's blocks into the index under `number`; returns how many found room.
  uint64_t Restore(const Holder& holder, KvIndex* index, HolderId number) const;

 private:
  KvSnapshotHeader header_;
  std::vector<Holder> holders_;
};

}  // namespace llmd::prefix
