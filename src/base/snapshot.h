// Snapshot<T>: the current one of a kind of immutable values, replaced by one thread, read by many.
//
//   base::Snapshot<Config> current;
//   current.Publish(std::make_shared<const Config>(...));
//   base::Snapshot<Config>::Reader reader(current);       // one per reading thread
//   if (const Config* config = reader.Get()) ...
//
// Thread safety: a Snapshot is thread-safe; a Reader belongs to one thread and is outlived by its
// Snapshot.
// Invariants: 1. Reading costs one atomic load while nothing new was published; only then is the
// mutex taken. 2. What Get returned lives until the next Get of the same Reader, longer for who
// copies the pointer. 3. Values are destroyed outside the lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

namespace llmd::base {

template <class T>
class Snapshot {
 public:
  // nullptr is a value like others, and the one before the first.
  void Publish(std::shared_ptr<const T> value) {
    const std::scoped_lock lock(mutex_);
    value_.swap(value);
    version_.fetch_add(1, std::memory_order_release);
  }

  // For those who look seldom: takes the mutex every time.
  std::shared_ptr<const T> Current() const {
    const std::scoped_lock lock(mutex_);
    return value_;
  }

  class Reader {
   public:
    explicit Reader(const Snapshot& source) : source_(source) {}
    const T* Get() { return GetShared().get(); }
    const std::shared_ptr<const T>& GetShared() {
      if (source_.version_.load(std::memory_order_acquire) != version_) Refresh();
      return value_;
    }

   private:
    void Refresh() {
      std::shared_ptr<const T> value;
      {
        const std::scoped_lock lock(source_.mutex_);
        value = source_.value_;
        version_ = source_.version_.load(std::memory_order_relaxed);
      }
      value_.swap(value);
    }

    const Snapshot& source_;
    std::shared_ptr<const T> value_;
    uint64_t version_ = 0;
  };

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const T> value_;
  std::atomic<uint64_t> version_{0};  // of value_, raised after it was set
};

}  // namespace llmd::base
