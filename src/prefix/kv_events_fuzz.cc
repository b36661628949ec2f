// Any payload: reading ends, shows only what lies inside, and what was read, written and read
// again, is the same. The first byte picks the dialect.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "prefix/kv_events.h"

namespace {

using namespace llmd::prefix;

std::string Rewrite(KvEventReader* reader, KvEventForm form, std::vector<EngineKey>* all) {
  KvEventWriter writer(form);
  all->clear();
  for (KvEventType type; (type = reader->Next()) != KvEventType::kEnd;) {
    const KvEvent& e = reader->event();
    all->insert(all->end(), e.hashes.begin(), e.hashes.end());
    std::vector<KvWireHash> hashes;
    for (const EngineKey hash : e.hashes) hashes.push_back({.value = hash});
    if (type == KvEventType::kCleared) {
      writer.Cleared();
    } else if (type == KvEventType::kRemoved) {
      writer.Removed(hashes, e.medium, e.group);
    } else {
      std::vector<KvExtra> extras;
      for (const KvExtra& extra : e.extras) {
        if (extra.block >= hashes.size()) continue;
        extras.push_back(extra);
        if (extra.offset) extras.back().is_bytes = false;
      }
      std::optional<KvWireHash> parent;
      if (e.parent) parent = KvWireHash{.value = *e.parent};
      writer.Stored({.hashes = hashes,
                     .parent = parent,
                     .tokens = e.tokens,
                     .block_size = e.block_size,
                     .lora_id = e.lora_id,
                     .medium = e.medium,
                     .lora_name = e.lora_name,
                     .extras = extras,
                     .group = e.group,
                     .kind = e.kind,
                     .sliding_window = e.sliding_window});
    }
  }
  return writer.Finish(reader->timestamp(), reader->rank());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto dialect = static_cast<KvDialect>(data[0] % 3);
  const std::vector<char> exact(data + 1, data + size);
  KvEventReader reader(dialect);
  if (!reader.Begin({exact.data(), exact.size()})) return 0;
  std::vector<EngineKey> hashes, again;
  const std::string once = Rewrite(&reader, KvEventForm::kMap, &hashes);
  LLMD_CHECK(hashes.size() + reader.malformed() <= std::max<size_t>(size * 8, 1),
             "events out of nothing");

  KvEventReader second(KvDialect::kVllm);
  LLMD_CHECK(second.Begin(once), "a written batch is refused");
  const std::string merged = Rewrite(&second, KvEventForm::kMap, &again);
  LLMD_CHECK(again == hashes && second.malformed() == 0, "a written event is refused");
  for (const KvEventForm form : {KvEventForm::kMap, KvEventForm::kArray}) {
    KvEventReader third(KvDialect::kVllm), fourth(KvDialect::kVllm);
    LLMD_CHECK(third.Begin(merged), "a batch written twice is refused");
    const std::string other = Rewrite(&third, form, &again);
    LLMD_CHECK(fourth.Begin(other), "a batch in another form is refused");
    LLMD_CHECK(Rewrite(&fourth, KvEventForm::kMap, &again) == merged, "writing changed an event");
    LLMD_CHECK(again == hashes, "writing changed a hash");
  }
  return 0;
}
