#include "runtime/ring.h"

#include <linux/io_uring.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace llmd::runtime {
namespace {

constexpr unsigned kSubmitEntries = 512;
constexpr unsigned kCompletionEntries = 4096;
constexpr uint64_t kIndexBits = 28;
constexpr uint64_t kOpBits = 4;
constexpr size_t kTableBytes = 4096;

int Setup(unsigned entries, io_uring_params* params) {
  return static_cast<int>(::syscall(__NR_io_uring_setup, entries, params));
}
int Register(int fd, unsigned op, void* arg, unsigned count) {
  return static_cast<int>(::syscall(__NR_io_uring_register, fd, op, arg, count));
}
unsigned Load(unsigned* p) { return std::atomic_ref<unsigned>(*p).load(std::memory_order_acquire); }
void Store(unsigned* p, unsigned v) {
  std::atomic_ref<unsigned>(*p).store(v, std::memory_order_release);
}
uint64_t Tag(uint64_t id, RingOp op) { return id << kOpBits | static_cast<uint64_t>(op); }
uint32_t IndexOf(uint64_t id) { return static_cast<uint32_t>(id & ((1u << kIndexBits) - 1)); }

char* Map(size_t bytes, int fd, uint64_t offset) {
  const int flags = fd >= 0 ? MAP_SHARED | MAP_POPULATE : MAP_PRIVATE | MAP_ANONYMOUS;
  void* map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, static_cast<off_t>(offset));
  return map == MAP_FAILED ? nullptr : static_cast<char*>(map);
}

// Takes note of what a probe's socket received and whether a send completed.
struct ProbeUser final : RingUser {
  void OnCompletion(RingOp op, int result, uint32_t flags) override {
    if (op == RingOp::kReceive && result > 0 && (flags & IORING_CQE_F_BUFFER)) received = result;
    if (op == RingOp::kSend) send_result = result;
  }
  void OnSent() override { sent = true; }
  void Prepare() override {}
  void Dispatch() override {}
  int received = 0;
  int send_result = 0;
  bool sent = false;
};

}  // namespace

Ring::Ring() = default;

Ring::~Ring() {
  kept_.clear();
  Close();
  if (memory_) ::munmap(memory_, memory_bytes_);
}

bool Ring::Probe() {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) return false;
  const int epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
  bool works = false;
  {
    Ring ring;
    ProbeUser user;
    if (epoll_fd >= 0 && ring.Open(epoll_fd)) {
      const uint64_t id = ring.Add(user);
      ring.Receive(id, pair[0]);
      ring.Send(id, user, pair[1], "?", 1);
      ring.Wait(base::Duration::zero());
      if (user.received == 0) ring.Wait(std::chrono::milliseconds(100));
      works = user.received == 1 && user.sent && user.send_result == 0;
      // A send that does not fit must say so at once.
      const int small = 4096;
      ::setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
      const std::vector<char> much(256 << 10);
      ring.Send(id, user, pair[0], much.data(), much.size());
      ring.Wait(base::Duration::zero());
      works = works && user.send_result > 0;
      ring.Remove(id, user);
      ring.Park();
    }
  }
  for (const int fd : {pair[0], pair[1], epoll_fd}) {
    if (fd >= 0) ::close(fd);
  }
  return works;
}

bool Ring::Open(int epoll_fd) {
  io_uring_params params{};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL |
                 IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  params.cq_entries = kCompletionEntries;
  ring_fd_ = Setup(kSubmitEntries, &params);
  if (ring_fd_ < 0) return false;
  constexpr unsigned kNeeded = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG |
                               IORING_FEAT_CQE_SKIP;
  rings_bytes_ = std::max<size_t>(params.sq_off.array + params.sq_entries * sizeof(unsigned),
                                  params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe));
  sqes_bytes_ = params.sq_entries * sizeof(io_uring_sqe);
  if ((params.features & kNeeded) != kNeeded || !MapRings()) {
    Close();
    return false;
  }
  const auto at = [this](uint32_t offset) { return reinterpret_cast<unsigned*>(rings_ + offset); };
  sq_head_ = at(params.sq_off.head);
  sq_tail_ = at(params.sq_off.tail);
  sq_mask_ = *at(params.sq_off.ring_mask);
  sq_entries_ = params.sq_entries;
  tail_ = *sq_tail_;
  for (unsigned i = 0; i < sq_entries_; ++i) at(params.sq_off.array)[i] = i;
  cq_head_ = at(params.cq_off.head);
  cq_tail_ = at(params.cq_off.tail);
  cq_mask_ = *at(params.cq_off.ring_mask);
  cqes_ = rings_ + params.cq_off.cqes;
  if (!ProvideBuffers()) {
    Close();
    return false;
  }
  // Spares each call the look-up of the ring's descriptor.
  enter_fd_ = ring_fd_;
  enter_flags_ = 0;
  io_uring_rsrc_update update{};
  update.offset = ~0u;
  update.data = static_cast<uint64_t>(ring_fd_);
  if (Register(ring_fd_, IORING_REGISTER_RING_FDS, &update, 1) == 1) {
    enter_fd_ = static_cast<int>(update.offset);
    enter_flags_ = IORING_ENTER_REGISTERED_RING;
  }
  epoll_fd_ = epoll_fd;
  thread_ = std::this_thread::get_id();
  return true;
}

bool Ring::MapRings() {
  rings_ = Map(rings_bytes_, ring_fd_, IORING_OFF_SQ_RING);
  sqes_ = reinterpret_cast<io_uring_sqe*>(Map(sqes_bytes_, ring_fd_, IORING_OFF_SQES));
  return rings_ && sqes_;
}

bool Ring::ProvideBuffers() {
  static_assert(kBufferCount * sizeof(io_uring_buf) <= kTableBytes);
  if (!memory_) {
    memory_bytes_ = kTableBytes + kBufferCount * kBufferBytes;
    memory_ = Map(memory_bytes_, -1, 0);
    if (!memory_) return false;
    buffers_ = memory_ + kTableBytes;
  }
  std::memset(memory_, 0, kTableBytes);
  io_uring_buf_reg table{};
  table.ring_addr = reinterpret_cast<uint64_t>(memory_);
  table.ring_entries = kBufferCount;
  if (Register(ring_fd_, IORING_REGISTER_PBUF_RING, &table, 1) != 0) return false;
  buffer_tail_ = 0;
  for (uint16_t i = 0; i < kBufferCount; ++i) {
    if (!taken_[i]) Provide(i);
  }
  return true;
}

void Ring::Close() {
  if (ring_fd_ < 0) return;
  if (enter_flags_ != 0 && is_here()) {
    // The registration is the thread's and would outlive the descriptor.
    io_uring_rsrc_update update{};
    update.offset = static_cast<uint32_t>(enter_fd_);
    Register(ring_fd_, IORING_UNREGISTER_RING_FDS, &update, 1);
  }
  enter_flags_ = 0;
  ::close(std::exchange(ring_fd_, -1));
  if (rings_) ::munmap(std::exchange(rings_, nullptr), rings_bytes_);
  if (sqes_) ::munmap(std::exchange(sqes_, nullptr), sqes_bytes_);
  thread_ = {};
  armed_count_ = 0;
  epoll_armed_ = false;
}

void Ring::Park() {
  Flush();  // what was queued to be sent
  io_uring_sqe* sqe = NextSqe();
  sqe->opcode = IORING_OP_ASYNC_CANCEL;
  sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
  sqe->cancel_flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY;
  sqe->user_data = Tag(0, RingOp::kCancel);
  Enter(0, IORING_ENTER_GETEVENTS, {});
  Reap();
  // Cancelled operations end in the call above. More rounds are for those that a full completion
  // queue held up.
  for (int round = 0; armed_count_ > 0 && round < 100; ++round) {
    Enter(1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, std::chrono::milliseconds(10));
    Reap();
  }
  if (armed_count_ > 0) LLMD_BUG("io_uring kept operations that were cancelled");
  Close();
}

void Ring::Provide(uint16_t index) {
  // Not through io_uring_buf_ring: in C++ the empty struct in its flexible array is a byte long and
  // moves the entries. The tail lies where the first entry has a reserved field.
  static_assert(offsetof(io_uring_buf, resv) == offsetof(io_uring_buf_ring, tail));
  auto* table = reinterpret_cast<io_uring_buf*>(memory_);
  io_uring_buf& entry = table[buffer_tail_ & (kBufferCount - 1)];
  entry.addr = reinterpret_cast<uint64_t>(buffers_ + index * kBufferBytes);
  entry.len = kBufferBytes;
  entry.bid = index;
  ++buffer_tail_;
  std::atomic_ref<uint16_t>(table[0].resv).store(buffer_tail_, std::memory_order_release);
}

void Ring::Recycle(uint16_t index) {
  taken_[index] = false;
  if (is_open()) Provide(index);
}

char* Ring::GetSendSlot() {
  if (free_send_slots_.empty()) {
    if (send_slots_.size() >= kSendSlotsMax) return nullptr;
    send_slots_.push_back(std::make_unique_for_overwrite<char[]>(kSendBytes));
    return send_slots_.back().get();
  }
  char* slot = free_send_slots_.back();
  free_send_slots_.pop_back();
  return slot;
}

bool Ring::Keep(std::unique_ptr<RingUser> user) {
  if (kept_.size() >= kKeptMax) return false;
  kept_.push_back(std::move(user));
  return true;
}

void Ring::Drop(const RingUser& user) {
  std::erase_if(kept_, [&](const auto& kept) { return kept.get() == &user; });
}

uint64_t Ring::Add(RingUser& user) {
  uint32_t index;
  if (free_slots_.empty()) {
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    index = free_slots_.back();
    free_slots_.pop_back();
  }
  slots_[index].user = &user;
  return static_cast<uint64_t>(slots_[index].generation) << kIndexBits | index;
}

void Ring::Remove(uint64_t id, RingUser& user) {
  Slot& slot = slots_[IndexOf(id)];
  slot.user = nullptr;
  ++slot.generation;
  free_slots_.push_back(IndexOf(id));
  if (user.dirty_index_ != RingUser::kNone) dirty_[user.dirty_index_] = nullptr;
  if (user.ready_index_ != RingUser::kNone) ready_[user.ready_index_] = nullptr;
}

void Ring::MarkDirty(RingUser& user) {
  if (user.dirty_index_ != RingUser::kNone) return;
  user.dirty_index_ = static_cast<uint32_t>(dirty_.size());
  dirty_.push_back(&user);
}

void Ring::MarkReady(RingUser& user) {
  if (user.ready_index_ != RingUser::kNone) return;
  user.ready_index_ = static_cast<uint32_t>(ready_.size());
  ready_.push_back(&user);
}

io_uring_sqe* Ring::NextSqe() {
  if (tail_ - Load(sq_head_) == sq_entries_) Enter(0, 0, {});
  io_uring_sqe* sqe = &sqes_[tail_++ & sq_mask_];
  std::memset(static_cast<void*>(sqe), 0, sizeof(*sqe));
  return sqe;
}

void Ring::Receive(uint64_t id, int fd) {
  io_uring_sqe* sqe = NextSqe();
  sqe->opcode = IORING_OP_RECV;
  sqe->flags = IOSQE_BUFFER_SELECT;
  sqe->ioprio = IORING_RECV_MULTISHOT;
  sqe->fd = fd;
  sqe->user_data = Tag(id, RingOp::kReceive);
  ++armed_count_;
}

void Ring::Poll(uint64_t id, RingOp op, int fd, uint32_t events, bool multishot) {
  io_uring_sqe* sqe = NextSqe();
  sqe->opcode = IORING_OP_POLL_ADD;
  sqe->fd = fd;
  sqe->poll32_events = events;
  sqe->len = multishot ? IORING_POLL_ADD_MULTI : 0;
  sqe->user_data = Tag(id, op);
  ++armed_count_;
}

void Ring::Send(uint64_t id, RingUser& user, int fd, const char* data, size_t size) {
  io_uring_sqe* sqe = NextSqe();
  sqe->opcode = IORING_OP_SEND;
  sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
  sqe->fd = fd;
  sqe->addr = reinterpret_cast<uint64_t>(data);
  sqe->len = static_cast<uint32_t>(size);
  // MSG_WAITALL makes a short send a failure that is reported, MSG_DONTWAIT keeps it from waiting.
  sqe->msg_flags = MSG_NOSIGNAL | MSG_DONTWAIT | MSG_WAITALL;
  sqe->user_data = Tag(id, RingOp::kSend);
  sends_.push_back(&user);
}

void Ring::Cancel(uint64_t id, RingOp op) {
  io_uring_sqe* sqe = NextSqe();
  sqe->opcode = IORING_OP_ASYNC_CANCEL;
  sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
  sqe->addr = Tag(id, op);
  sqe->user_data = Tag(0, RingOp::kCancel);
}

void Ring::FinishCancels() {
  if (!is_open() || !is_here()) return;
  Enter(0, IORING_ENTER_GETEVENTS, {});
  if (Reap()) epoll_waits_ = true;
}

int Ring::Enter(unsigned wait_for, unsigned flags, base::Duration wait) {
  Store(sq_tail_, tail_);
  const int64_t ns = wait.count();
  __kernel_timespec time{ns / 1'000'000'000, ns % 1'000'000'000};
  io_uring_getevents_arg arg{};
  arg.ts = reinterpret_cast<uint64_t>(&time);
  const bool timed = flags & IORING_ENTER_EXT_ARG;
  return static_cast<int>(::syscall(__NR_io_uring_enter, enter_fd_, tail_ - Load(sq_head_),
                                    wait_for, flags | enter_flags_, timed ? &arg : nullptr,
                                    timed ? sizeof(arg) : 0));
}

bool Ring::Wait(base::Duration wait) {
  if (!epoll_armed_) {
    epoll_armed_ = true;
    Poll(0, RingOp::kEpoll, epoll_fd_, EPOLLIN, true);
  }
  for (size_t i = 0; i < dirty_.size(); ++i) {
    if (!dirty_[i]) continue;
    dirty_[i]->dirty_index_ = RingUser::kNone;
    dirty_[i]->Prepare();
  }
  dirty_.clear();
  if (ready_.empty() && !epoll_waits_ && wait.count() > 0) {
    Enter(1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
          std::min<base::Duration>(wait, std::chrono::hours(1)));
  } else {
    Enter(0, IORING_ENTER_GETEVENTS, {});
  }
  bool epoll_ready = std::exchange(epoll_waits_, false);
  epoll_ready |= Reap();
  // A full completion queue or a lack of memory can leave submissions behind, with their slots.
  for (int round = 0; tail_ != Load(sq_head_); ++round) {
    LLMD_CHECK(round < 10'000, "io_uring takes no submissions");
    Enter(0, IORING_ENTER_GETEVENTS, {});
    epoll_ready |= Reap();
  }
  for (RingUser* user : sends_) user->OnSent();
  sends_.clear();
  return epoll_ready;
}

bool Ring::Reap() {
  bool epoll_ready = false;
  unsigned head = *cq_head_;
  const unsigned tail = Load(cq_tail_);
  for (; head != tail; ++head) {
    const io_uring_cqe& cqe = reinterpret_cast<io_uring_cqe*>(cqes_)[head & cq_mask_];
    const RingOp op = static_cast<RingOp>(cqe.user_data & ((1u << kOpBits) - 1));
    const bool ended = !(cqe.flags & IORING_CQE_F_MORE);
    if (op == RingOp::kCancel) continue;
    if (op != RingOp::kSend && ended) --armed_count_;
    if (op == RingOp::kEpoll) {
      epoll_ready = true;
      if (ended) epoll_armed_ = false;
      continue;
    }
    const bool has_buffer = cqe.flags & IORING_CQE_F_BUFFER;
    const uint16_t buffer = static_cast<uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
    if (has_buffer) taken_[buffer] = true;
    const uint64_t id = cqe.user_data >> kOpBits;
    const Slot slot = slots_[IndexOf(id)];
    if (slot.user && id >> kIndexBits == slot.generation) {
      slot.user->OnCompletion(op, cqe.res, cqe.flags);
    } else if (has_buffer) {
      Recycle(buffer);
    }
  }
  Store(cq_head_, head);
  return epoll_ready;
}

size_t Ring::DispatchReady() {
  const size_t count = ready_.size();
  size_t dispatched = 0;
  for (size_t i = 0; i < count; ++i) {
    RingUser* user = std::exchange(ready_[i], nullptr);
    if (!user) continue;
    user->ready_index_ = RingUser::kNone;
    user->Dispatch();
    ++dispatched;
  }
  ready_.erase(ready_.begin(), ready_.begin() + static_cast<ptrdiff_t>(count));
  for (size_t i = 0; i < ready_.size(); ++i) {
    if (ready_[i]) ready_[i]->ready_index_ = static_cast<uint32_t>(i);
  }
  return dispatched;
}

}  // namespace llmd::runtime
