// A fixed set of threads, each running one EventLoop. Connections, pools and counters live on one
// of them; what they share is an immutable snapshot or a message (Post).
//
// Thread safety: all methods from the owner's thread; Post also from any thread.
// Invariants: 1. Loops exist from construction to destruction, so their BufferPools outlive what
// runs on them. 2. After Stop returned no loop runs, and the owner may destroy what lived on the
// loops from its own thread. Order on shutdown: Stop the pool, destroy the servers and clients,
// destroy the pool.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/loop.h"

namespace llmd::runtime {

class WorkerPool {
 public:
  // `name` becomes the thread name with "-<index>" (15 bytes in total are kept).
  WorkerPool(size_t count, std::string name, IoEngine engine = IoEngine::kAuto);
  ~WorkerPool();  // stops
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void Start();
  void Stop();
  size_t size() const { return loops_.size(); }
  EventLoop& loop(size_t index) { return *loops_[index]; }
  void Post(size_t index, std::move_only_function<void()> task);
  // Runs fn(index, loop) on every worker, one after the other, and waits for each. Before Start and
  // after Stop it runs on the caller's thread. Not from a worker.
  void ForEach(const std::function<void(size_t, EventLoop&)>& fn);

 private:
  std::string name_;
  std::vector<std::unique_ptr<EventLoop>> loops_;
  std::vector<std::thread> threads_;
};

}  // namespace llmd::runtime
