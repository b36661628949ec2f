// Attributes: what data producers leave for filters, scorers and others in one request.
//
// A key is a type name plus a producer instance name, as upstream's DataKey. Keys are resolved to
// slot numbers once, when a config is loaded; at run time a consumer reads an array index. A value
// is a trivially destructible struct in the request's arena. A slot may be missing: no producer
// ran, it failed, or it was late. That is a state every consumer handles, not an error.
#pragma once

#include <cstdint>
#include <span>

#include "base/check.h"

namespace llmd::plugin {

inline constexpr uint32_t kNoSlot = ~uint32_t{0};

template <class T>
struct Slot {
  uint32_t index = kNoSlot;
};

class Attributes {
 public:
  Attributes() = default;
  // One pointer per slot of the config generation, all nullptr at first.
  explicit Attributes(std::span<const void*> cells) : cells_(cells) {}

  template <class T>
  const T* Get(Slot<T> slot) const {
    return slot.index < cells_.size() ? static_cast<const T*>(cells_[slot.index]) : nullptr;
  }
  // `value` must live in the request's arena.
  template <class T>
  void Set(Slot<T> slot, const T* value) {
    if (slot.index >= cells_.size()) {
      LLMD_BUG("an attribute was written to a slot that its plugin did not declare");
      return;
    }
    cells_[slot.index] = value;
  }

 private:
  std::span<const void*> cells_;
};

}  // namespace llmd::plugin
