// A mutex for critical sections of a microsecond or two: a thread that finds it taken spins for a
// moment before it sleeps, because the sleep and the wake-up cost more than the wait.
//
// Thread-safe. Not recursive. Meets the standard's Lockable.
#pragma once

#include <pthread.h>

#include "base/check.h"

namespace llmd::base {

class __attribute__((capability("mutex"))) AdaptiveMutex {
 public:
  AdaptiveMutex() {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    LLMD_CHECK(pthread_mutex_init(&mutex_, &attributes) == 0, "no mutex");
    pthread_mutexattr_destroy(&attributes);
  }
  ~AdaptiveMutex() { pthread_mutex_destroy(&mutex_); }
  AdaptiveMutex(const AdaptiveMutex&) = delete;
  AdaptiveMutex& operator=(const AdaptiveMutex&) = delete;

  void lock() __attribute__((acquire_capability())) { pthread_mutex_lock(&mutex_); }
  bool try_lock() __attribute__((try_acquire_capability(true))) {
    return pthread_mutex_trylock(&mutex_) == 0;
  }
  void unlock() __attribute__((release_capability())) { pthread_mutex_unlock(&mutex_); }

 private:
  pthread_mutex_t mutex_;
};

}  // namespace llmd::base
