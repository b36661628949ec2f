// KvParked: stores of one holder whose parent is not known yet, found again by that parent.
//
// A block may come before its parent when events were lost, or when a picker joins late and a
// replay fills in from behind. Removals reach parked blocks too: they are marked, and taken out
// when their store is applied.
//
// Thread safety: none. Invariants: 1. size() and bytes() never exceed the limits after Add; the
// oldest go first. 2. A parked store is given out once, by Take, or dropped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/time.h"
#include "prefix/kv_events.h"
#include "prefix/kv_index.h"

namespace llmd::prefix {

class KvParked {
 public:
  // A copy of what a store needs besides its root, which it has through its parent.
  struct Store {
    Group group = 0;
    Tier tier = 0;
    EngineKey parent = 0;
    std::vector<EngineKey> hashes;
    std::vector<uint32_t> tokens;
    std::string lora_name;
    std::vector<KvExtra> extras;
    std::string texts;                      // those of extras, one behind the other
    std::unordered_set<EngineKey> removed;  // of hashes
    base::TimePoint since;

    size_t bytes() const;
    // Views of this store as the event it was.
    KvEvent event() const;
    // A short `texts` lies inside this object, so after each move extras must look anew.
    void ViewTexts();
  };

  struct Limits {
    size_t stores = 1024;
    size_t bytes = 8u << 20;
  };
  explicit KvParked(const Limits& limits) : limits_(limits) {}

  // Copies `event`, which has a parent. Returns how many older stores (or this one, if it is larger
  // than all the room) had to go.
  size_t Add(Group group, Tier tier, const KvEvent& event, base::TimePoint now);
  // The oldest store that waits for `parent`.
  std::optional<Store> Take(Group group, EngineKey parent);
  // Marks a block that is removed before its store could be applied; false: it is not parked.
  bool Remove(Group group, Tier tier, EngineKey hash);
  // Drops what is parked since before `then`.
  size_t DropOlder(base::TimePoint then);

  size_t size() const { return stores_.size(); }
  size_t bytes() const { return bytes_; }

 private:
  using Stores = std::list<Store>;
  struct Key {
    Group group;
    EngineKey hash;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  using Places = std::unordered_multimap<Key, Stores::iterator, KeyHash>;

  static void Unlist(Places* places, const Key& key, Stores::iterator store);
  Store Drop(Stores::iterator store);

  Limits limits_;
  Stores stores_;  // oldest first
  Places by_parent_;
  Places by_hash_;
  size_t bytes_ = 0;
};

}  // namespace llmd::prefix
