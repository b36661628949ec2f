// Any bytes are refused or restored. Frames are hashed, so the interesting inputs come of a
// snapshot that was written here and of which some bytes were changed before its hashes were made
// anew.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/check.h"
#include "base/hash.h"
#include "prefix/kv_snapshot.h"

namespace {

using namespace llmd;
using namespace llmd::prefix;

// Makes the hashes of the frames right, as far as their sizes make sense.
void Rehash(std::string* bytes) {
  uint64_t chained = 0;
  for (size_t at = 16; bytes->size() - at >= 24 && at <= bytes->size();) {
    uint32_t type;
    uint64_t size;
    std::memcpy(&type, &(*bytes)[at], sizeof(type));
    std::memcpy(&size, &(*bytes)[at + 8], sizeof(size));
    if (size > bytes->size() - at - 24) return;
    chained = base::Mix64(chained + type, base::Hash64({bytes->data() + at + 24, size}));
    std::memcpy(&(*bytes)[at + 16], &chained, sizeof(chained));
    at += 24 + size;
  }
}

std::string Example() {
  KvIndex index;
  const uint64_t keys[] = {1, 2, 3};
  index.Store(0, 0, 0, nullptr, keys, keys);
  index.Store(0, 0, 0, nullptr, keys, keys);
  index.Store(1, 1, 2, nullptr, keys, keys);
  KvSnapshotWriter writer({.chain_seed = "s", .tiers = {"gpu"}});
  writer.AddHolder(index, 0, {.address = "a", .model = "m", .state = "s"});
  writer.AddHolder(index, 1, {.address = "b"});
  return std::move(writer).Finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string example = Example();
  std::string bytes = example;
  for (size_t i = 0; i + 3 <= size; i += 3) {
    bytes[(data[i] << 8 | data[i + 1]) % bytes.size()] = static_cast<char>(data[i + 2]);
  }
  Rehash(&bytes);
  const auto snapshot = KvSnapshot::Open(bytes);
  if (!snapshot) return 0;
  KvIndex index({.bytes_max = KvIndex::kBytesMaxSmallest});
  HolderId number = 0;
  for (const KvSnapshot::Holder& holder : snapshot->holders()) {
    snapshot->Restore(holder, &index, number++);
  }
  LLMD_CHECK(index.CheckForTest(), "a restored index is broken");
  return 0;
}
