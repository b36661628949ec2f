#include "prefix/kv_feed_parked.h"

#include <iterator>

#include "base/hash.h"

namespace llmd::prefix {

size_t KvParked::Store::bytes() const {
  // Two index entries a hash, about.
  return sizeof(Store) + hashes.size() * (sizeof(EngineKey) + 96) +
         tokens.size() * sizeof(uint32_t) + lora_name.size() + extras.size() * sizeof(KvExtra) +
         texts.size();
}

void KvParked::Store::ViewTexts() {
  size_t at = 0;
  for (KvExtra& extra : extras) {
    extra.text = std::string_view(texts).substr(at, extra.text.size());
    at += extra.text.size();
  }
}

KvEvent KvParked::Store::event() const {
  KvEvent event;
  event.hashes = hashes;
  event.parent = parent;
  event.tokens = tokens;
  event.lora_name = lora_name;
  event.extras = extras;
  return event;
}

size_t KvParked::KeyHash::operator()(const Key& key) const {
  return base::Mix64(key.hash, key.group);
}

size_t KvParked::Add(Group group, Tier tier, const KvEvent& event, base::TimePoint now) {
  Store store{.group = group,
              .tier = tier,
              .parent = *event.parent,
              .hashes{event.hashes.begin(), event.hashes.end()},
              .tokens{event.tokens.begin(), event.tokens.end()},
              .lora_name = std::string(event.lora_name),
              .extras{event.extras.begin(), event.extras.end()},
              .since = now};
  for (const KvExtra& extra : store.extras) store.texts.append(extra.text);
  const size_t bytes = store.bytes();
  if (bytes > limits_.bytes || limits_.stores == 0) return 1;
  size_t dropped = 0;
  while (stores_.size() >= limits_.stores || bytes_ + bytes > limits_.bytes) {
    Drop(stores_.begin());
    ++dropped;
  }
  bytes_ += bytes;
  const auto it = stores_.insert(stores_.end(), std::move(store));
  it->ViewTexts();
  by_parent_.emplace(Key{group, it->parent}, it);
  for (const EngineKey hash : it->hashes) by_hash_.emplace(Key{group, hash}, it);
  return dropped;
}

// All entries of the store under this key: one pass even when an event repeats a hash.
void KvParked::Unlist(Places* places, const Key& key, Stores::iterator store) {
  const auto [begin, end] = places->equal_range(key);
  for (auto it = begin; it != end;) it = it->second == store ? places->erase(it) : std::next(it);
}

KvParked::Store KvParked::Drop(Stores::iterator store) {
  Unlist(&by_parent_, {store->group, store->parent}, store);
  for (const EngineKey hash : store->hashes) Unlist(&by_hash_, {store->group, hash}, store);
  bytes_ -= store->bytes();
  Store out = std::move(*store);
  out.ViewTexts();
  stores_.erase(store);
  return out;
}

std::optional<KvParked::Store> KvParked::Take(Group group, EngineKey parent) {
  const auto [begin, end] = by_parent_.equal_range(Key{group, parent});
  if (begin == end) return std::nullopt;
  auto oldest = begin->second;
  for (auto it = begin; it != end; ++it) {
    if (it->second->since < oldest->since) oldest = it->second;
  }
  return Drop(oldest);
}

bool KvParked::Remove(Group group, Tier tier, EngineKey hash) {
  const auto [begin, end] = by_hash_.equal_range(Key{group, hash});
  for (auto it = begin; it != end; ++it) {
    Store& store = *it->second;
    if (store.tier != tier || !store.removed.insert(hash).second) continue;
    if (store.removed.size() == store.hashes.size()) Drop(it->second);
    return true;
  }
  return false;
}

size_t KvParked::DropOlder(base::TimePoint then) {
  size_t dropped = 0;
  while (!stores_.empty() && stores_.front().since < then) {
    Drop(stores_.begin());
    ++dropped;
  }
  return dropped;
}

}  // namespace llmd::prefix
