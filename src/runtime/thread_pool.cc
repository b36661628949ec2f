#include "runtime/thread_pool.h"

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace llmd::runtime {

struct ThreadPool::Impl {
  size_t queue_max;
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::deque<std::move_only_function<void()>> queue;  // guarded by mutex, like all below
  uint64_t refused = 0;
  bool stop = false;
  std::vector<std::thread> threads;

  void Work() {
    std::unique_lock lock(mutex);
    while (true) {
      wake.wait(lock, [&] { return stop || !queue.empty(); });
      if (stop) return;
      auto job = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      job();
      job = nullptr;
      lock.lock();
    }
  }
};

ThreadPool::ThreadPool(size_t thread_count, size_t queue_max, std::string name)
    : impl_(std::make_unique<Impl>()) {
  impl_->queue_max = queue_max;
  for (size_t i = 0; i < thread_count; ++i) {
    impl_->threads.emplace_back([impl = impl_.get(), name, i] {
      pthread_setname_np(pthread_self(), (name + "-" + std::to_string(i)).substr(0, 15).c_str());
      impl->Work();
    });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stop = true;
  }
  impl_->wake.notify_all();
  for (auto& thread : impl_->threads) thread.join();
}

bool ThreadPool::TrySubmit(std::move_only_function<void()> job) {
  {
    std::lock_guard lock(impl_->mutex);
    if (impl_->queue.size() >= impl_->queue_max) {
      ++impl_->refused;
      return false;
    }
    impl_->queue.push_back(std::move(job));
  }
  impl_->wake.notify_one();
  return true;
}

uint64_t ThreadPool::refused_count() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->refused;
}

}  // namespace llmd::runtime
