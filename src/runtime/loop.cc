#include "runtime/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "runtime/clock.h"
#include "runtime/ring.h"

namespace llmd::runtime {

bool IoEvents::readable() const { return bits & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR); }
bool IoEvents::writable() const { return bits & (EPOLLOUT | EPOLLHUP | EPOLLERR); }
bool IoEvents::peer_closed() const { return bits & (EPOLLRDHUP | EPOLLHUP | EPOLLERR); }
bool IoEvents::failed() const { return bits & (EPOLLHUP | EPOLLERR); }

struct EventLoop::Impl {
  struct HeapEntry {
    base::TimePoint at;
    Timer* timer;
  };
  // A 4-ary heap: as deep as half a binary one, and the four children share a cache line.
  std::vector<HeapEntry> heap;

  int epoll_fd = -1;
  int wake_fd = -1;
  bool has_pwait2 = true;
  std::unique_ptr<Ring> ring;
  epoll_event events[kTurnEventsMax];
  int event_index = 0;
  int event_count = 0;

  std::mutex mutex;
  std::vector<std::move_only_function<void()>> posted;  // guarded by mutex
  std::vector<std::move_only_function<void()>> running;
  std::atomic<bool> has_posted{false};
  std::atomic<bool> stop{false};
  std::atomic<std::thread::id> thread{};

  void Place(uint32_t index, HeapEntry entry) {
    heap[index] = entry;
    entry.timer->heap_index_ = index;
  }
  void SiftUp(uint32_t index, HeapEntry entry) {
    while (index > 0) {
      uint32_t parent = (index - 1) / 4;
      if (heap[parent].at <= entry.at) break;
      Place(index, heap[parent]);
      index = parent;
    }
    Place(index, entry);
  }
  void SiftDown(uint32_t index, HeapEntry entry) {
    const uint32_t count = static_cast<uint32_t>(heap.size());
    while (true) {
      uint32_t child = index * 4 + 1;
      if (child >= count) break;
      uint32_t least = child;
      for (uint32_t c = child + 1; c < std::min(child + 4, count); ++c) {
        if (heap[c].at < heap[least].at) least = c;
      }
      if (heap[least].at >= entry.at) break;
      Place(index, heap[least]);
      index = least;
    }
    Place(index, entry);
  }
  void RemoveAt(uint32_t index) {
    heap[index].timer->heap_index_ = Timer::kNotQueued;
    HeapEntry last = heap.back();
    heap.pop_back();
    if (index == heap.size()) return;
    if (index > 0 && last.at < heap[(index - 1) / 4].at) {
      SiftUp(index, last);
    } else {
      SiftDown(index, last);
    }
  }
  int Wait(base::Duration wait);
  int WaitByRing(base::Duration wait);
};

int EventLoop::Impl::WaitByRing(base::Duration wait) {
  if (!ring->is_open()) {
    LLMD_CHECK(ring->Open(epoll_fd), "io_uring_setup failed: out of file descriptors or memory?");
  }
  LLMD_CHECK(ring->is_here(), "two threads made turns of one EventLoop");
  if (!ring->Wait(wait)) return 0;
  const int count = Wait(base::Duration::zero());
  if (count == kTurnEventsMax) ring->LookAgain();
  return count;
}

int EventLoop::Impl::Wait(base::Duration wait) {
  const int64_t ns = std::clamp<int64_t>(wait.count(), 0, 3'600'000'000'000);
  if (has_pwait2) {
    timespec t{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
    int n = epoll_pwait2(epoll_fd, events, kTurnEventsMax, &t, nullptr);
    if (n >= 0 || errno != ENOSYS) return std::max(n, 0);
    has_pwait2 = false;
  }
  int n =
      epoll_wait(epoll_fd, events, kTurnEventsMax, static_cast<int>((ns + 999'999) / 1'000'000));
  return std::max(n, 0);
}

std::string_view IoEngineText() {
  static const std::string_view text = [] {
    const char* wanted = std::getenv("LLMD_IO_ENGINE");
    if (wanted && std::string_view(wanted) == "epoll") return "epoll (LLMD_IO_ENGINE)";
    // On a thread that ends: the kernel interrupts the one that made a ring some time after the
    // ring was closed, and whoever asks may sit in a system call that does not expect EINTR.
    bool works = false;
    std::thread([&] { works = Ring::Probe(); }).join();
    return works ? "io_uring" : "epoll (io_uring does not work here)";
  }();
  return text;
}

bool UringWorks() { return IoEngineText() == "io_uring"; }

EventLoop::EventLoop(IoEngine engine) : impl_(std::make_unique<Impl>()) {
  impl_->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  impl_->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  LLMD_CHECK(impl_->epoll_fd >= 0, "epoll_create1 failed: out of file descriptors?");
  LLMD_CHECK(impl_->wake_fd >= 0, "eventfd failed: out of file descriptors?");
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.ptr = nullptr}};
  epoll_ctl(impl_->epoll_fd, EPOLL_CTL_ADD, impl_->wake_fd, &event);
  if (engine == IoEngine::kUring || (engine == IoEngine::kAuto && UringWorks())) {
    impl_->ring = std::make_unique<Ring>();
  }
  now_ = Now();
}

EventLoop::~EventLoop() {
  LLMD_CHECK(InLoopThread(), "an EventLoop was destroyed while it runs");
  // Tasks may own Slices, which must go before the buffer pool.
  impl_->posted.clear();
  ::close(impl_->wake_fd);
  ::close(impl_->epoll_fd);
}

void EventLoop::Run() {
  impl_->thread.store(std::this_thread::get_id());
  now_ = Now();  // the time before Run was not spent in turns
  while (!impl_->stop.exchange(false)) Turn(std::chrono::hours(1));
  if (impl_->ring && impl_->ring->is_open()) impl_->ring->Park();
  impl_->thread.store(std::thread::id());
}

Ring* EventLoop::ring() const { return impl_->ring.get(); }

void EventLoop::Stop() {
  impl_->stop.store(true);
  uint64_t one = 1;
  [[maybe_unused]] ssize_t n = ::write(impl_->wake_fd, &one, sizeof(one));
}

bool EventLoop::InLoopThread() const {
  const std::thread::id id = impl_->thread.load(std::memory_order_relaxed);
  return id == std::thread::id() || id == std::this_thread::get_id();
}

base::WallTime EventLoop::wall_now() const { return WallNow(); }

void EventLoop::Turn(base::Duration wait_max) {
  Impl& impl = *impl_;
  const base::TimePoint worked_until = Now();
  const base::Duration worked = worked_until - now_;
  stats_.turn_max = std::max(stats_.turn_max, worked);
  // The only writer is this thread: no need for an atomic addition.
  busy_ns_.store(busy_ns_.load(std::memory_order_relaxed) + worked.count(),
                 std::memory_order_relaxed);
  if (hooks_.next != &hooks_ || impl.has_posted.load(std::memory_order_relaxed)) {
    wait_max = base::Duration::zero();
  } else if (!impl.heap.empty()) {
    wait_max = std::min(wait_max, impl.heap[0].at - worked_until);
  }
  impl.event_count = impl.ring ? impl.WaitByRing(wait_max) : impl.Wait(wait_max);
  now_ = Now();
  ++stats_.turns;
  stats_.events += static_cast<uint64_t>(impl.event_count);
  for (impl.event_index = 0; impl.event_index < impl.event_count; ++impl.event_index) {
    const epoll_event& event = impl.events[impl.event_index];
    // The eventfd has no handler: it is never read, each write is a new edge.
    if (event.data.ptr) static_cast<IoHandler*>(event.data.ptr)->OnIo({event.events});
  }
  impl.event_count = 0;
  if (impl.ring) stats_.events += impl.ring->DispatchReady();
  RunTimers();
  RunTasks();
  RunHooks();
  // In Run the next wait sends what was queued.
  if (impl.ring && impl.thread.load(std::memory_order_relaxed) == std::thread::id()) {
    impl.ring->Flush();
  }
}

void EventLoop::RunTimers() {
  Impl& impl = *impl_;
  // Timers that re-arm themselves for now or earlier wait for the next turn.
  for (size_t left = impl.heap.size(); left > 0 && !impl.heap.empty(); --left) {
    if (impl.heap[0].at > now_) return;
    Timer* timer = impl.heap[0].timer;
    if (timer->deadline_ > now_ && timer->armed()) {
      timer->queued_at_ = timer->deadline_;
      impl.SiftDown(0, {timer->deadline_, timer});
      continue;
    }
    impl.RemoveAt(0);
    if (!timer->armed()) continue;
    timer->Disarm();
    ++stats_.timers;
    timer->fire_();
  }
}

void EventLoop::RunTasks() {
  Impl& impl = *impl_;
  if (!impl.has_posted.load(std::memory_order_acquire)) return;
  {
    std::lock_guard lock(impl.mutex);
    impl.running.swap(impl.posted);
    impl.has_posted.store(false, std::memory_order_relaxed);
  }
  stats_.tasks += impl.running.size();
  for (auto& task : impl.running) std::exchange(task, nullptr)();
  impl.running.clear();
}

void EventLoop::RunHooks() {
  for (int round = 0; round < kTurnHookRoundsMax && hooks_.next != &hooks_; ++round) {
    // Moves the list to a head of its own, so that hooks queued meanwhile belong to the next round.
    HookLink batch = hooks_;
    batch.next->previous = &batch;
    batch.previous->next = &batch;
    hooks_ = {&hooks_, &hooks_};
    while (batch.next != &batch) {
      TurnHook* hook = static_cast<TurnHook*>(batch.next);
      hook->Unqueue();
      hook->OnTurnEnd();
    }
  }
}

void EventLoop::Post(std::move_only_function<void()> task) {
  bool wake;
  {
    std::lock_guard lock(impl_->mutex);
    impl_->posted.push_back(std::move(task));
    wake = !impl_->has_posted.exchange(true, std::memory_order_release);
  }
  if (!wake || impl_->thread.load(std::memory_order_relaxed) == std::this_thread::get_id()) return;
  uint64_t one = 1;
  [[maybe_unused]] ssize_t n = ::write(impl_->wake_fd, &one, sizeof(one));
}

base::Status EventLoop::WatchEvents(int fd, IoHandler& handler, uint32_t events) {
  epoll_event event{.events = events | EPOLLET, .data = {.ptr = &handler}};
  if (epoll_ctl(impl_->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
    return base::ErrnoStatus(errno, "epoll_ctl");
  }
  return {};
}

base::Status EventLoop::Watch(int fd, IoHandler& handler) {
  return WatchEvents(fd, handler, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
}

base::Status EventLoop::WatchReadable(int fd, IoHandler& handler) {
  return WatchEvents(fd, handler, EPOLLIN | EPOLLRDHUP);
}

void EventLoop::Unwatch(int fd, IoHandler& handler) {
  epoll_ctl(impl_->epoll_fd, EPOLL_CTL_DEL, fd, nullptr);
  for (int i = impl_->event_index; i < impl_->event_count; ++i) {
    if (impl_->events[i].data.ptr == &handler) impl_->events[i].data.ptr = nullptr;
  }
}

void Timer::ArmAfter(base::Duration delay) { ArmAt(loop_.now() + delay); }

void Timer::Queue() {
  EventLoop::Impl& impl = *loop_.impl_;
  queued_at_ = deadline_;
  uint32_t index = heap_index_;
  if (index == kNotQueued) {
    index = static_cast<uint32_t>(impl.heap.size());
    impl.heap.push_back({});
  }
  impl.SiftUp(index, {deadline_, this});
}

void Timer::Remove() {
  if (heap_index_ != kNotQueued) loop_.impl_->RemoveAt(heap_index_);
}

}  // namespace llmd::runtime
