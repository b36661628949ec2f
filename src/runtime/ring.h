// io_uring below an EventLoop: what plain TCP streams use instead of epoll where the kernel and the
// sandbox allow it. Raw system calls; Linux 6.1 has all that is needed.
//
// Users (streams) queue what they want by MarkDirty; the wait of a turn asks each for its
// submissions (Prepare), hands all of them to the kernel and waits, in one system call. Completions
// are first noted (OnCompletion, OnSent: no handler runs) and then dispatched, so that a handler
// sees all that had come when the wait ended.
//
// What the design rests on: with IORING_SETUP_DEFER_TASKRUN the kernel moves data only inside
// io_uring_enter, so between two waits a stream may take bytes with recv(2) without disorder. Sends
// are made without waiting (MSG_DONTWAIT | MSG_WAITALL) and complete inside the same call, silently
// when all went well; their buffers never outlive it.
//
// Thread safety: none. While open, a ring belongs to the thread that opened it; only Remove,
// Recycle and the send slots may be used elsewhere, and only while no turn runs. Invariants: 1.
// After Remove no method of the user is called. 2. After Park every operation has ended and every
// byte received is with its stream; Open takes up where it ended. Limits: kBufferCount buffers of
// kBufferBytes to receive into (when they run out, streams read by themselves), kSendSlotsMax slots
// of kSendBytes to send from (then streams write by themselves), kKeptMax streams that outlive
// their owner until their last bytes are out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "base/time.h"

struct io_uring_sqe;

namespace llmd::runtime {

class IoHandler;
class Ring;
class Stream;

enum class RingOp : uint8_t { kStart, kReceive, kReadable, kWritable, kSend, kCancel, kEpoll };

class RingUser {
 public:
  virtual ~RingUser() = default;
  // `result` and `flags` as in io_uring_cqe. Sends complete only when they fail or fall short.
  virtual void OnCompletion(RingOp op, int result, uint32_t flags) = 0;
  // Follows the completions of the wait in which the user queued a send.
  virtual void OnSent() = 0;
  virtual void Prepare() = 0;
  virtual void Dispatch() = 0;

 private:
  friend class Ring;
  static constexpr uint32_t kNone = ~0u;
  uint32_t dirty_index_ = kNone;
  uint32_t ready_index_ = kNone;
};

class Ring {
 public:
  static constexpr size_t kBufferBytes = 8 << 10;
  static constexpr uint32_t kBufferCount = 64;
  static constexpr size_t kSendBytes = 4096;
  static constexpr size_t kSendSlotsMax = 1024;
  static constexpr size_t kKeptMax = 64;
  static constexpr uint16_t kNoBuffer = 0xffff;

  Ring();
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Creates the kernel's side for this thread. False with errno when that fails.
  bool Open(int epoll_fd);
  // Ends every operation and lets the kernel's side go; users are asked again after the next Open.
  void Park();
  bool is_open() const { return ring_fd_ >= 0; }
  bool is_here() const { return thread_ == std::this_thread::get_id(); }
  // Tries what streams need on a pair of sockets.
  static bool Probe();

  uint64_t Add(RingUser& user);
  void Remove(uint64_t id, RingUser& user);
  void MarkDirty(RingUser& user);
  void MarkReady(RingUser& user);

  // For Prepare.
  void Receive(uint64_t id, int fd);
  void Poll(uint64_t id, RingOp op, int fd, uint32_t events, bool multishot);
  void Send(uint64_t id, RingUser& user, int fd, const char* data, size_t size);
  void Cancel(uint64_t id, RingOp op);
  // Submits the cancellations at once: the kernel then no longer holds the descriptor.
  void FinishCancels();

  // One system call for submissions and wait. True when the epoll descriptor has events.
  bool Wait(base::Duration wait);
  // The epoll descriptor had more events than were taken.
  void LookAgain() { epoll_waits_ = true; }
  // Submits without waiting; for turns after which no other may come.
  void Flush() {
    if (Wait(base::Duration::zero())) epoll_waits_ = true;
  }
  // Calls Dispatch of those that MarkReady has named; returns how many.
  size_t DispatchReady();

  const char* buffer(uint16_t index) const { return buffers_ + index * kBufferBytes; }
  // A list that the stream which holds the buffer may use.
  uint16_t& next(uint16_t index) { return next_[index]; }
  uint32_t& size(uint16_t index) { return size_[index]; }
  void Recycle(uint16_t index);
  char* GetSendSlot();  // nullptr at the limit
  void PutSendSlot(char* slot) { free_send_slots_.push_back(slot); }

  // Keeps `user` until Drop or the end of the ring; false at the limit.
  bool Keep(std::unique_ptr<RingUser> user);
  void Drop(const RingUser& user);

 private:
  struct Slot {
    RingUser* user = nullptr;
    uint32_t generation = 0;
  };
  bool MapRings();
  bool ProvideBuffers();
  void Close();
  void Provide(uint16_t index);
  io_uring_sqe* NextSqe();
  int Enter(unsigned wait_for, unsigned flags, base::Duration wait);
  bool Reap();

  std::thread::id thread_;
  int ring_fd_ = -1;
  int enter_fd_ = -1;
  unsigned enter_flags_ = 0;
  char* rings_ = nullptr;  // both rings, shared with the kernel
  size_t rings_bytes_ = 0;
  io_uring_sqe* sqes_ = nullptr;
  size_t sqes_bytes_ = 0;
  unsigned* sq_head_ = nullptr;
  unsigned* sq_tail_ = nullptr;
  unsigned sq_mask_ = 0;
  unsigned sq_entries_ = 0;
  unsigned tail_ = 0;  // of the submissions written so far
  unsigned* cq_head_ = nullptr;
  unsigned* cq_tail_ = nullptr;
  unsigned cq_mask_ = 0;
  char* cqes_ = nullptr;
  uint32_t armed_count_ = 0;  // operations whose last completion is still to come

  char* memory_ = nullptr;  // the table of provided buffers and the buffers
  size_t memory_bytes_ = 0;
  char* buffers_ = nullptr;
  uint16_t buffer_tail_ = 0;
  bool taken_[kBufferCount] = {};
  uint16_t next_[kBufferCount] = {};
  uint32_t size_[kBufferCount] = {};

  int epoll_fd_ = -1;
  bool epoll_armed_ = false;
  bool epoll_waits_ = false;  // has events that no Wait has reported
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  std::vector<RingUser*> dirty_;
  std::vector<RingUser*> ready_;
  std::vector<RingUser*> sends_;
  std::vector<std::unique_ptr<char[]>> send_slots_;
  std::vector<char*> free_send_slots_;
  std::vector<std::unique_ptr<RingUser>> kept_;
};

// Takes `fd`; `handler` gets its events as if the loop watched it.
std::unique_ptr<Stream> NewRingStream(Ring& ring, int fd, IoHandler& handler);

}  // namespace llmd::runtime
