// The event loop of one worker: edge-triggered events, timers, posted tasks and end-of-turn hooks.
//
// Two engines bring the events: epoll everywhere, and io_uring (Linux 6.1 and where the sandbox
// allows it) for plain TCP streams, whose sends and receives of a turn then cost one system call.
// Other descriptors are watched by epoll with both.
//
// One turn: wait for events, run their handlers, run due timers, run posted tasks, run the turn-end
// hooks that all of these queued. A socket is registered once and for both directions, so there is
// no epoll_ctl per request; who writes in a turn queues a hook and gathers its bytes into one
// writev.
//
// Thread safety: a loop and everything registered with it belong to one thread. Only Post, Stop,
// InLoopThread and busy may be called from elsewhere. A loop that is not running (before Run, after
// Run returned) may be used by whoever owns it, but turns outside Run are all made by one thread,
// the same that calls Run later if it does.
// Invariants: 1. now() does not change within a turn. 2. After Unwatch returned, the handler is not
// called again, even for events already fetched. 3. A destroyed Timer or TurnHook is not called.
// 4. No handler, timer, task or hook is ever called from inside another one.
// Limits: kTurnEventsMax events per turn; timers and tasks are bounded by their owners.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "base/buffer.h"
#include "base/status.h"
#include "base/time.h"

namespace llmd::runtime {

class EventLoop;
class Ring;

// What happened to a descriptor since the last report (edge-triggered: reported once).
struct IoEvents {
  uint32_t bits = 0;  // EPOLL*
  bool readable() const;
  bool writable() const;
  bool peer_closed() const;  // the other side sent FIN (or more); data may still be readable
  bool failed() const;       // error or full hang-up
};

class IoHandler {
 public:
  virtual void OnIo(IoEvents events) = 0;

 protected:
  ~IoHandler() = default;
};

// A place in a circular list; a list head is a link that points to itself when empty.
struct HookLink {
  HookLink* next = nullptr;
  HookLink* previous = nullptr;
};

// Runs once at the end of the turn in which it was queued.
class TurnHook : private HookLink {
 public:
  TurnHook(const TurnHook&) = delete;
  TurnHook& operator=(const TurnHook&) = delete;
  bool queued() const { return next != nullptr; }
  void Unqueue() {
    if (!next) return;
    next->previous = previous;
    previous->next = next;
    next = previous = nullptr;
  }

 protected:
  TurnHook() = default;
  ~TurnHook() { Unqueue(); }
  virtual void OnTurnEnd() = 0;

 private:
  friend class EventLoop;
};

// A one-shot timer. Arming it to a later time than it is already armed for only stores the new time
// (the usual case of a timeout that is pushed out again and again); it is moved when the old time
// comes. Resolution is that of the kernel's high-resolution timers, about 60 microseconds.
class Timer {
 public:
  // `loop` outlives the timer. `fire` may re-arm the timer, and may destroy it as its last act.
  Timer(EventLoop& loop, std::move_only_function<void()> fire)
      : loop_(loop), fire_(std::move(fire)) {}
  ~Timer() { Remove(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void ArmAt(base::TimePoint deadline) {
    deadline_ = deadline;
    if (heap_index_ == kNotQueued || deadline < queued_at_) Queue();
  }
  void ArmAfter(base::Duration delay);
  // Cheap: the timer may stay queued but does not fire.
  void Disarm() { deadline_ = base::TimePoint::max(); }
  bool armed() const { return deadline_ != base::TimePoint::max(); }
  base::TimePoint deadline() const { return deadline_; }

 private:
  friend class EventLoop;
  static constexpr uint32_t kNotQueued = ~0u;
  void Queue();
  void Remove();

  EventLoop& loop_;
  base::TimePoint deadline_ = base::TimePoint::max();
  base::TimePoint queued_at_{};  // key in the heap, at most deadline_
  uint32_t heap_index_ = kNotQueued;
  std::move_only_function<void()> fire_;
};

enum class IoEngine : uint8_t {
  kAuto,   // io_uring where it works, unless the environment says LLMD_IO_ENGINE=epoll
  kEpoll,
  kUring,  // for tests: fails where it does not work
};
// What kAuto stands for: "io_uring", or "epoll" and why. Tried once for the process; thread-safe.
std::string_view IoEngineText();
bool UringWorks();  // whether kAuto is io_uring

struct LoopStats {
  uint64_t turns = 0;
  uint64_t events = 0;
  uint64_t tasks = 0;
  uint64_t timers = 0;
  base::Duration turn_max{};  // longest turn so far, without the wait
};

class EventLoop {
 public:
  static constexpr int kTurnEventsMax = 256;

  explicit EventLoop(IoEngine engine = IoEngine::kAuto);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Runs turns until Stop. Run may be called again after it returned.
  void Run();
  // One turn that waits at most `wait_max` for something to do.
  void Turn(base::Duration wait_max);
  // Thread-safe; the current turn is finished.
  void Stop();

  // Time at which the current turn began to work.
  base::TimePoint now() const { return now_; }
  base::WallTime wall_now() const;
  base::BufferPool& buffers() { return buffers_; }
  const LoopStats& stats() const { return stats_; }
  // Thread-safe: time spent in turns so far, waits left out; a turn counts once it is over.
  base::Duration busy() const {
    return base::Duration(busy_ns_.load(std::memory_order_relaxed));
  }

  // Thread-safe: runs `task` in a coming turn, in the order of posting per thread. Many posts cost
  // one wake-up. Tasks left when the loop is destroyed are destroyed without running.
  void Post(std::move_only_function<void()> task);
  // True on the thread that runs the loop, and on every thread while it does not run.
  bool InLoopThread() const;

  // Registers `fd` for reading, writing and hang-up, edge-triggered, until Unwatch. Call Unwatch
  // before closing the descriptor. A handler watches at most one descriptor.
  base::Status Watch(int fd, IoHandler& handler);
  // The same for reading only (listeners, eventfd, inotify).
  base::Status WatchReadable(int fd, IoHandler& handler);
  void Unwatch(int fd, IoHandler& handler);

  // Queues `hook` for the end of this turn (or of the next one when no turn is running); does
  // nothing when it is queued already. Hooks run in the order of queueing; those that hooks queue
  // run in the same turn too, up to kTurnHookRoundsMax rounds, then in the next one.
  void AtTurnEnd(TurnHook& hook) {
    if (hook.next) return;
    hook.next = &hooks_;
    hook.previous = hooks_.previous;
    hooks_.previous->next = &hook;
    hooks_.previous = &hook;
  }
  static constexpr int kTurnHookRoundsMax = 16;

  // The io_uring engine that streams use (runtime/ring.h), nullptr with epoll.
  Ring* ring() const;

 private:
  friend class Timer;
  struct Impl;

  base::Status WatchEvents(int fd, IoHandler& handler, uint32_t events);
  void RunTimers();
  void RunTasks();
  void RunHooks();

  base::BufferPool buffers_;
  base::TimePoint now_{};
  LoopStats stats_;
  std::atomic<int64_t> busy_ns_{0};
  HookLink hooks_{&hooks_, &hooks_};
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::runtime
