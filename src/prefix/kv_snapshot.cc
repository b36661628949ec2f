#include "prefix/kv_snapshot.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/hash.h"
#include "base/strings.h"

namespace llmd::prefix {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "llmdKVix";
constexpr uint32_t kVersion = 1;
constexpr size_t kFrameHeadBytes = 24;
constexpr size_t kBlocksMax = KvIndex::kRunBlocksMax;

enum FrameType : uint32_t { kHeader = 1, kHolder = 2, kEnd = 3 };

template <class T>
void Put(std::string* out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out->append(bytes, sizeof(T));
}

template <class T>
void PutAll(std::string* out, std::span<const T> values) {
  out->append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

void PutText(std::string* out, std::string_view text) {
  text = text.substr(0, KvSnapshot::kTextBytesMax);
  Put<uint32_t>(out, static_cast<uint32_t>(text.size()));
  out->append(text);
}

// Takes pieces off the front; after the first one that is not there, everything is missing.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  std::string_view Bytes(uint64_t count) {
    if (count > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  template <class T>
  T Get() {
    T value{};
    const std::string_view bytes = Bytes(sizeof(T));
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  std::string Text() {
    const auto size = Get<uint32_t>();
    if (size > KvSnapshot::kTextBytesMax) ok_ = false;
    return std::string(ok_ ? Bytes(size) : std::string_view());
  }
  // `out` holds `count`.
  template <class T>
  void GetAll(T* out, size_t count) {
    const std::string_view bytes = Bytes(count * sizeof(T));
    if (!bytes.empty()) std::memcpy(out, bytes.data(), bytes.size());
  }

  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

base::Status Damaged(std::string_view what) {
  return {base::StatusCode::kDataLoss, base::Concat("not a whole snapshot of an index: ", what)};
}

uint64_t ChainedHash(uint64_t before, uint32_t type, std::string_view payload) {
  return base::Mix64(before + type, base::Hash64(payload));
}

// One stretch, aligned copies of what the bytes say.
struct StretchCopy {
  Tier tier = 0;
  Group group = 0;
  uint32_t count = 0;
  std::array<EngineKey, kBlocksMax> engine_keys;
  std::array<BlockKey, kBlocksMax> block_keys;
  std::array<uint32_t, kBlocksMax> references;

  KvIndex::Stretch View() const {
    return {.tier = tier,
            .group = group,
            .engine_keys = {engine_keys.data(), count},
            .block_keys = {block_keys.data(), count},
            .references = {references.data(), count}};
  }
};

// Layout: u8 tier, u8 group, u8 blocks, u8 1 when references follow (else all are 1), the keys.
void PutStretch(std::string* out, const KvIndex::Stretch& s) {
  const bool counted = std::ranges::any_of(s.references, [](uint32_t r) { return r != 1; });
  Put<uint8_t>(out, s.tier);
  Put<uint8_t>(out, s.group);
  Put<uint8_t>(out, static_cast<uint8_t>(s.block_keys.size()));
  Put<uint8_t>(out, counted);
  PutAll(out, s.engine_keys);
  PutAll(out, s.block_keys);
  if (!counted) return;
  for (const uint32_t r : s.references) {
    Put<uint32_t>(out, std::min(r, KvSnapshot::kReferencesMax));
  }
}

// False when it is none that PutStretch writes.
bool GetStretch(Reader& in, StretchCopy* out) {
  out->tier = in.Get<uint8_t>();
  out->group = in.Get<uint8_t>();
  out->count = in.Get<uint8_t>();
  const auto counted = in.Get<uint8_t>();
  if (out->count == 0 || out->count > kBlocksMax || counted > 1) return false;
  if (out->tier >= KvIndex::kTiersMax || out->group >= KvIndex::kGroupsMax) return false;
  in.GetAll(out->engine_keys.data(), out->count);
  in.GetAll(out->block_keys.data(), out->count);
  std::fill_n(out->references.begin(), out->count, 1u);
  if (counted) in.GetAll(out->references.data(), out->count);
  const KvIndex::Stretch view = out->View();
  return in.ok() && std::ranges::none_of(view.block_keys, [](BlockKey key) { return key == 0; }) &&
         std::ranges::none_of(view.references,
                              [](uint32_t r) { return r > KvSnapshot::kReferencesMax; });
}

bool ReadHeader(std::string_view payload, KvSnapshotHeader* out) {
  Reader in(payload);
  const auto chain = in.Get<uint8_t>();
  out->chain = static_cast<ChainKind>(chain);
  out->chain_seed = in.Text();
  out->fingerprint = in.Get<uint64_t>();
  out->block_tokens = in.Get<uint32_t>();
  out->unix_seconds = in.Get<uint64_t>();
  const auto tiers = in.Get<uint8_t>();
  for (uint8_t i = 0; i < tiers; ++i) out->tiers.push_back(in.Text());
  return in.at_end() && chain <= static_cast<uint8_t>(ChainKind::kXxh64) &&
         out->block_tokens > 0 && tiers <= KvIndex::kTiersMax;
}

bool ReadHolder(std::string_view payload, KvSnapshot::Holder* out) {
  Reader in(payload);
  KvSnapshotHolder& h = out->holder;
  h.address = in.Text();
  h.rank = in.Get<uint32_t>();
  h.model = in.Text();
  h.state = in.Text();
  const auto bytes = in.Get<uint64_t>();
  out->stretches = in.Bytes(bytes);
  Reader stretches(out->stretches);
  StretchCopy stretch;
  while (in.ok() && !stretches.at_end()) {
    if (!GetStretch(stretches, &stretch)) return false;
    // Blocks without references only lead to others.
    for (uint32_t i = 0; i < stretch.count; ++i) out->blocks += stretch.references[i] > 0 ? 1 : 0;
  }
  return in.at_end();
}

}  // namespace

KvSnapshotWriter::KvSnapshotWriter(const KvSnapshotHeader& header) {
  bytes_.append(kMagic);
  Put<uint32_t>(&bytes_, kVersion);
  Put<uint32_t>(&bytes_, 0);
  BeginFrame(kHeader);
  Put<uint8_t>(&bytes_, static_cast<uint8_t>(header.chain));
  PutText(&bytes_, header.chain_seed);
  Put<uint64_t>(&bytes_, header.fingerprint);
  Put<uint32_t>(&bytes_, header.block_tokens);
  Put<uint64_t>(&bytes_, header.unix_seconds);
  Put<uint8_t>(&bytes_, static_cast<uint8_t>(header.tiers.size()));
  for (const std::string& tier : header.tiers) PutText(&bytes_, tier);
  EndFrame();
}

void KvSnapshotWriter::BeginFrame(uint32_t type) {
  frame_begin_ = bytes_.size();
  Put<uint32_t>(&bytes_, type);
  Put<uint32_t>(&bytes_, 0);
  bytes_.append(16, '\0');  // size and hash
}

void KvSnapshotWriter::EndFrame() {
  const std::string_view payload = std::string_view(bytes_).substr(frame_begin_ + kFrameHeadBytes);
  const uint64_t size = payload.size();
  uint32_t type;
  std::memcpy(&type, &bytes_[frame_begin_], sizeof(type));
  chained_ = ChainedHash(chained_, type, payload);
  std::memcpy(&bytes_[frame_begin_ + 8], &size, sizeof(size));
  std::memcpy(&bytes_[frame_begin_ + 16], &chained_, sizeof(chained_));
  ++frames_;
}

void KvSnapshotWriter::AddHolder(const KvIndex& index, HolderId number,
                                 const KvSnapshotHolder& holder) {
  BeginFrame(kHolder);
  PutText(&bytes_, holder.address);
  Put<uint32_t>(&bytes_, holder.rank);
  PutText(&bytes_, holder.model);
  PutText(&bytes_, holder.state);
  const size_t size_at = bytes_.size();
  Put<uint64_t>(&bytes_, 0);
  index.ForEach(number, [this](const KvIndex::Stretch& s) { PutStretch(&bytes_, s); });
  const uint64_t size = bytes_.size() - size_at - sizeof(uint64_t);
  std::memcpy(&bytes_[size_at], &size, sizeof(size));
  EndFrame();
}

std::string KvSnapshotWriter::Finish() && {
  const uint64_t frames = frames_;
  BeginFrame(kEnd);
  Put<uint64_t>(&bytes_, frames);
  EndFrame();
  return std::move(bytes_);
}

base::Result<KvSnapshot> KvSnapshot::Open(std::string_view bytes) {
  Reader in(bytes);
  if (in.Bytes(kMagic.size()) != kMagic) return std::unexpected(Damaged("it begins otherwise"));
  if (const auto version = in.Get<uint32_t>(); version != kVersion) {
    return std::unexpected(base::Unimplemented(
        base::Concat("snapshot of version ", std::to_string(version), "; this release reads ",
                     std::to_string(kVersion))));
  }
  bool zeros = in.Get<uint32_t>() == 0;
  KvSnapshot snapshot;
  uint64_t chained = 0;
  for (uint64_t frames = 0;; ++frames) {
    const auto type = in.Get<uint32_t>();
    zeros &= in.Get<uint32_t>() == 0;
    const auto size = in.Get<uint64_t>();
    const auto hash = in.Get<uint64_t>();
    const std::string_view payload = in.Bytes(size);
    if (!in.ok()) return std::unexpected(Damaged("it was cut off"));
    chained = ChainedHash(chained, type, payload);
    if (hash != chained || !zeros) {
      return std::unexpected(
          Damaged(base::Concat("part ", std::to_string(frames), " was changed")));
    }
    if ((frames == 0) != (type == kHeader)) return std::unexpected(Damaged("no header"));
    if (type == kEnd) {
      Reader end(payload);
      if (end.Get<uint64_t>() != frames || !end.at_end() || !in.at_end()) {
        return std::unexpected(Damaged("parts are missing"));
      }
      return snapshot;
    }
    Holder holder;
    const bool fits = type == kHeader ? ReadHeader(payload, &snapshot.header_)
                                      : type == kHolder && ReadHolder(payload, &holder);
    if (!fits || snapshot.holders_.size() == kHoldersMax) {
      return std::unexpected(
          Damaged(base::Concat("part ", std::to_string(frames), " makes no sense")));
    }
    if (type == kHolder) snapshot.holders_.push_back(std::move(holder));
  }
}

uint64_t KvSnapshot::Restore(const Holder& holder, KvIndex* index, HolderId number) const {
  Reader in(holder.stretches);
  StretchCopy stretch;
  uint64_t held = 0;
  while (!in.at_end() && GetStretch(in, &stretch)) held += index->Restore(number, stretch.View());
  return held;
}

}  // namespace llmd::prefix
