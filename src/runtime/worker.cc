#include "runtime/worker.h"

#include <pthread.h>

#include <future>

#include "base/check.h"

namespace llmd::runtime {

WorkerPool::WorkerPool(size_t count, std::string name, IoEngine engine)
    : name_(std::move(name)) {
  LLMD_CHECK(count > 0, "a WorkerPool needs at least one worker");
  for (size_t i = 0; i < count; ++i) loops_.push_back(std::make_unique<EventLoop>(engine));
}

WorkerPool::~WorkerPool() { Stop(); }

void WorkerPool::Start() {
  LLMD_CHECK(threads_.empty(), "a WorkerPool was started twice");
  for (size_t i = 0; i < loops_.size(); ++i) {
    threads_.emplace_back([this, i] {
      const std::string name = (name_ + "-" + std::to_string(i)).substr(0, 15);
      pthread_setname_np(pthread_self(), name.c_str());
      loops_[i]->Run();
    });
  }
}

void WorkerPool::Stop() {
  for (auto& loop : loops_) {
    if (!threads_.empty()) loop->Stop();
  }
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

void WorkerPool::Post(size_t index, std::move_only_function<void()> task) {
  loops_[index]->Post(std::move(task));
}

void WorkerPool::ForEach(const std::function<void(size_t, EventLoop&)>& fn) {
  for (size_t i = 0; i < loops_.size(); ++i) {
    if (threads_.empty()) {
      fn(i, *loops_[i]);
      continue;
    }
    std::promise<void> done;
    loops_[i]->Post([&] {
      fn(i, *loops_[i]);
      done.set_value();
    });
    done.get_future().wait();
  }
}

}  // namespace llmd::runtime
