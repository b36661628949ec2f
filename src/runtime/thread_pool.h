// A bounded pool of threads for jobs that block: name lookups, file reads, tokenizers.
//
// Thread-safe.
// Invariants: 1. At most `queue_max` jobs wait; TrySubmit refuses beyond and counts it. 2. The
// destructor drops waiting jobs (destroyed without running) and joins running ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace llmd::runtime {

class ThreadPool {
 public:
  ThreadPool(size_t thread_count, size_t queue_max, std::string name);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // False when the queue is full; `job` is then destroyed.
  [[nodiscard]] bool TrySubmit(std::move_only_function<void()> job);
  uint64_t refused_count() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::runtime
