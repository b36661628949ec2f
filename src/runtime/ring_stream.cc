// The plain TCP stream on io_uring.
//
// Receiving: while messages are small, one multishot receive takes them into buffers of the ring,
// and Read copies them out. Once bytes come in bulk, or the owner does not keep up, a multishot
// poll takes its place and Read receives straight into the owner's room, as with epoll; the owner's
// pauses then hold the sender back. Sending: a small write is gathered in a slot that the next wait
// sends; a large one, or any beside bulk that is received, takes what the slot holds along and
// leaves at once.
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "runtime/ring.h"
#include "runtime/socket.h"
#include "runtime/stream.h"

namespace llmd::runtime {
namespace {

// So many bytes that wait for the owner show that they come in bulk.
constexpr size_t kBulkBytes = 2 * Ring::kBufferBytes;
// After so many reads of so little the multishot receive is used again.
constexpr size_t kSmallReadBytes = 4096;
constexpr int kSmallReads = 4;
// How long the peer of a closed stream may take to make room for its last bytes.
constexpr unsigned kLastBytesMs = 30'000;

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK; }

// The bytes that a closed stream had taken and the kernel had not.
class LastBytes final : public RingUser {
 public:
  LastBytes(Ring& ring, int fd, char* slot, size_t begin, size_t end)
      : ring_(ring), fd_(fd), slot_(slot), begin_(begin), end_(end), id_(ring.Add(*this)) {
    ring_.MarkDirty(*this);
    ::setsockopt(fd_, IPPROTO_TCP, TCP_USER_TIMEOUT, &kLastBytesMs, sizeof(kLastBytesMs));
  }
  ~LastBytes() override {
    ring_.PutSendSlot(slot_);
    ring_.Remove(id_, *this);
    ::close(fd_);
  }

  void OnCompletion(RingOp, int result, uint32_t) override {
    ring_.MarkDirty(*this);
    if (result == -ECANCELED) return;
    const ssize_t n = ::send(fd_, slot_ + begin_, end_ - begin_, MSG_NOSIGNAL);
    if (n > 0) begin_ += static_cast<size_t>(n);
    if (begin_ == end_ || (n < 0 && !WouldBlock())) ring_.Drop(*this);
  }
  void OnSent() override {}
  void Prepare() override { ring_.Poll(id_, RingOp::kWritable, fd_, EPOLLOUT, false); }
  void Dispatch() override {}

 private:
  Ring& ring_;
  int fd_;
  char* slot_;
  size_t begin_, end_;
  uint64_t id_;
};

class RingStream final : public Stream, public RingUser {
 public:
  RingStream(Ring& ring, int fd, IoHandler& handler)
      : ring_(ring), fd_(fd), handler_(handler), id_(ring.Add(*this)) {
    ring_.MarkDirty(*this);
  }
  ~RingStream() override {
    if (slot_ && !reset_ && !left_) SendNow({});
    Detach();
    while (first_ != Ring::kNoBuffer) DropFirst();
    if (slot_ && !reset_) {
      // At the limit it goes at once, and the bytes are lost.
      ring_.Keep(std::make_unique<LastBytes>(ring_, fd_, slot_, slot_begin_, slot_end_));
      return;
    }
    if (slot_) ring_.PutSendSlot(slot_);
    if (reset_) {
      CloseWithReset(fd_);
    } else {
      ::close(fd_);
    }
  }

  IoResult Read(std::span<char> room) override {
    const size_t bytes = TakeReceived(room);
    if (spill_size_ > 0 || first_ != Ring::kNoBuffer) return {bytes, IoStatus::kOk};
    if (ended_ || read_error_) {
      if (bytes > 0) return {bytes, IoStatus::kOk};
      if (!read_error_) return {0, IoStatus::kEnd};
      error_ = read_error_;
      return {0, IoStatus::kError};
    }
    if (!maybe_more_) return {bytes, IoStatus::kDrained};
    if (bytes == room.size()) return {bytes, IoStatus::kOk};
    return ReceiveNow(room, bytes);
  }

  IoResult Write(std::span<const iovec> parts) override {
    if (write_error_) {
      error_ = write_error_;
      return {0, IoStatus::kError};
    }
    if (left_) return {0, IoStatus::kDrained};
    size_t wanted = 0;
    for (const iovec& part : parts) wanted += part.iov_len;
    // Beside bulk nothing waits for the turn's end: turns are long then, and a call is little.
    if (started_ && !want_poll_ && wanted <= Ring::kSendBytes - slot_end_ &&
        (slot_ || TakeSlot())) {
      for (const iovec& part : parts) {
        std::memcpy(slot_ + slot_end_, part.iov_base, part.iov_len);
        slot_end_ += part.iov_len;
      }
      ring_.MarkDirty(*this);
      return {wanted, IoStatus::kOk};
    }
    return SendNow(parts);
  }

  void SetReadLowWater(size_t bytes) override {
    const int value = static_cast<int>(bytes);
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value));
    if (bytes > 1) {
      WantPoll(true);
    } else {
      maybe_more_ = true;
    }
  }
  void ShutdownWrite() override {
    if (slot_ && !left_) SendNow({});
    if (slot_) {
      fin_due_ = true;
    } else {
      ::shutdown(fd_, SHUT_WR);
    }
  }
  void ResetOnClose() override { reset_ = true; }
  int error() const override { return error_; }
  std::string error_text() const override { return error_ ? std::strerror(error_) : ""; }
  int fd() const override { return fd_; }

  void OnCompletion(RingOp op, int result, uint32_t flags) override {
    const bool ended = !(flags & IORING_CQE_F_MORE);
    switch (op) {
      case RingOp::kStart:
        Started(result);
        break;
      case RingOp::kReceive:
        if (ended) Disarmed();
        Received(result, flags);
        break;
      case RingOp::kReadable:
        if (ended) Disarmed();
        if (result > 0) Readable(static_cast<uint32_t>(result));
        break;
      case RingOp::kWritable:
        Writable(result);
        break;
      case RingOp::kSend:
        NotSent(result);
        break;
      case RingOp::kCancel:
      case RingOp::kEpoll:
        break;
    }
  }
  void OnSent() override {
    if (!left_) ReleaseSlot();
  }
  void Prepare() override {
    if (slot_ && !left_) ring_.Send(id_, *this, fd_, slot_, slot_end_);
    if (out_wanted_ && !out_armed_) {
      out_armed_ = true;
      out_wanted_ = false;
      ring_.Poll(id_, RingOp::kWritable, fd_, EPOLLOUT, false);
    }
    if (!started_) {
      if (start_armed_) return;
      start_armed_ = true;
      ring_.Poll(id_, RingOp::kStart, fd_, EPOLLIN | EPOLLOUT | EPOLLRDHUP, false);
      return;
    }
    if (pending_ >= kBulkBytes) Spill();
    ArmReading();
  }
  void Dispatch() override { handler_.OnIo({std::exchange(events_, 0)}); }

 private:
  enum class Armed : uint8_t { kNone, kReceive, kPoll };

  void Event(uint32_t bits) {
    events_ |= bits;
    ring_.MarkReady(*this);
  }

  // --- receiving

  void ArmReading() {
    const Armed wanted = want_poll_ || ended_ ? Armed::kPoll : Armed::kReceive;
    if (armed_ == wanted || cancelling_) return;
    if (armed_ != Armed::kNone) {
      cancelling_ = true;
      ring_.Cancel(id_, armed_ == Armed::kReceive ? RingOp::kReceive : RingOp::kReadable);
      return;
    }
    if (hung_up_) return;
    armed_ = wanted;
    if (wanted == Armed::kReceive) {
      maybe_more_ = false;
      ring_.Receive(id_, fd_);
    } else {
      // After the end only an error or a full hang-up is news.
      ring_.Poll(id_, RingOp::kReadable, fd_, ended_ ? 0 : EPOLLIN | EPOLLRDHUP, true);
    }
  }
  void Disarmed() {
    armed_ = Armed::kNone;
    cancelling_ = false;
    ring_.MarkDirty(*this);
  }
  void Started(int result) {
    start_armed_ = false;
    ring_.MarkDirty(*this);
    if (result == -ECANCELED) return;
    started_ = maybe_more_ = true;
    const uint32_t events =
        result < 0 ? uint32_t{EPOLLERR} | EPOLLHUP : static_cast<uint32_t>(result);
    // A receive would take the error that the owner is to find.
    if (events & (EPOLLERR | EPOLLHUP)) hung_up_ = true;
    Event(events);
  }
  void Readable(uint32_t events) {
    if (events & (EPOLLERR | EPOLLHUP)) hung_up_ = true;
    maybe_more_ = true;
    Event(events);
  }
  void Received(int result, uint32_t flags) {
    if (flags & IORING_CQE_F_BUFFER) {
      const uint16_t index = static_cast<uint16_t>(flags >> IORING_CQE_BUFFER_SHIFT);
      if (result > 0) {
        Append(index, static_cast<uint32_t>(result));
      } else {
        ring_.Recycle(index);
      }
    }
    if (result > 0) {
      if (pending_ >= kBulkBytes) WantPoll(true);
      Event(EPOLLIN);
    } else if (result == 0) {
      ended_ = true;
      Event(EPOLLIN | EPOLLRDHUP);
    } else if (result == -ENOBUFS) {
      WantPoll(true);
    } else if (result != -ECANCELED) {
      read_error_ = -result;
      hung_up_ = true;
      Event(EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP);
    }
  }
  void Append(uint16_t index, uint32_t size) {
    ring_.next(index) = Ring::kNoBuffer;
    ring_.size(index) = size;
    if (first_ == Ring::kNoBuffer) {
      first_ = index;
      offset_ = 0;
    } else {
      ring_.next(last_) = index;
    }
    last_ = index;
    pending_ += size;
  }
  void DropFirst() {
    const uint16_t index = first_;
    first_ = ring_.next(index);
    offset_ = 0;
    ring_.Recycle(index);
  }
  // Gives the buffers back to the other streams; at most one burst, for reading goes on by poll.
  void Spill() {
    const size_t size = spill_size_ + pending_;
    auto all = std::make_unique_for_overwrite<char[]>(size);
    TakeReceived({all.get(), size});
    spill_ = std::move(all);
    spill_begin_ = 0;
    spill_size_ = size;
  }
  size_t TakeReceived(std::span<char> room) {
    size_t bytes = std::min(room.size(), spill_size_);
    if (bytes > 0) {
      std::memcpy(room.data(), spill_.get() + spill_begin_, bytes);
      spill_begin_ += bytes;
      spill_size_ -= bytes;
      if (spill_size_ == 0) spill_.reset();
    }
    while (first_ != Ring::kNoBuffer && bytes < room.size()) {
      const size_t n = std::min<size_t>(room.size() - bytes, ring_.size(first_) - offset_);
      std::memcpy(room.data() + bytes, ring_.buffer(first_) + offset_, n);
      bytes += n;
      offset_ += n;
      pending_ -= n;
      if (offset_ == ring_.size(first_)) DropFirst();
    }
    return bytes;
  }
  IoResult ReceiveNow(std::span<char> room, size_t bytes) {
    const ssize_t n = ::recv(fd_, room.data() + bytes, room.size() - bytes, 0);
    if (n > 0) {
      bytes += static_cast<size_t>(n);
      Judge(bytes);
      if (bytes == room.size()) return {bytes, IoStatus::kOk};
      maybe_more_ = false;
      return {bytes, IoStatus::kDrained};
    }
    if (n < 0 && WouldBlock()) {
      maybe_more_ = false;
      return {bytes, IoStatus::kDrained};
    }
    if (n < 0 && errno == EINTR) return {bytes, IoStatus::kOk};
    if (n == 0) {
      ended_ = true;
    } else {
      read_error_ = errno;
    }
    if (bytes > 0) return {bytes, IoStatus::kOk};
    error_ = read_error_;
    return {0, ended_ ? IoStatus::kEnd : IoStatus::kError};
  }
  void Judge(size_t bytes) {
    if (bytes > kSmallReadBytes) {
      small_reads_ = 0;
    } else if (++small_reads_ >= kSmallReads) {
      WantPoll(false);
    }
  }
  void WantPoll(bool on) {
    small_reads_ = 0;
    if (want_poll_ == on) return;
    want_poll_ = on;
    ring_.MarkDirty(*this);
  }

  // --- sending

  bool TakeSlot() {
    slot_ = ring_.GetSendSlot();
    return slot_ != nullptr;
  }
  void ReleaseSlot() {
    if (slot_) ring_.PutSendSlot(std::exchange(slot_, nullptr));
    slot_begin_ = slot_end_ = 0;
    left_ = false;
  }
  void WaitForRoom() {
    out_wanted_ = true;
    ring_.MarkDirty(*this);
  }
  void NotSent(int result) {
    if (result < 0 && result != -EAGAIN) {
      write_error_ = -result;
      ReleaseSlot();
      maybe_more_ = true;
      Event(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP);
      return;
    }
    left_ = true;
    slot_begin_ += static_cast<size_t>(std::max(result, 0));
    WaitForRoom();
  }
  void Writable(int result) {
    out_armed_ = false;
    if (result == -ECANCELED) return WaitForRoom();
    if (left_) {
      if (SendNow({}).status == IoStatus::kError) Event(EPOLLIN | EPOLLERR | EPOLLHUP);
      if (left_) return;
      if (fin_due_) ::shutdown(fd_, SHUT_WR);
    }
    Event(EPOLLOUT);
  }
  // Sends what the slot holds, and then `parts`. What remains of the slot is `left_`.
  IoResult SendNow(std::span<const iovec> parts) {
    iovec all[kWritePartsMax + 1];
    size_t count = 0;
    size_t wanted = 0;
    const size_t queued = slot_end_ - slot_begin_;
    if (slot_) all[count++] = {slot_ + slot_begin_, queued};
    for (const iovec& part : parts) {
      all[count++] = part;
      wanted += part.iov_len;
    }
    msghdr message{};
    message.msg_iov = all;
    message.msg_iovlen = count;
    const ssize_t n = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
    if (n < 0 && !WouldBlock() && errno != EINTR) {
      write_error_ = error_ = errno;
      ReleaseSlot();
      return {0, IoStatus::kError};
    }
    size_t bytes = static_cast<size_t>(std::max<ssize_t>(n, 0));
    if (bytes < queued) {
      slot_begin_ += bytes;
      left_ = true;
      WaitForRoom();
      return {0, IoStatus::kDrained};
    }
    ReleaseSlot();
    bytes -= queued;
    if (bytes == wanted) return {bytes, IoStatus::kOk};
    WaitForRoom();
    return {bytes, IoStatus::kDrained};
  }

  // Afterwards the kernel holds the descriptor no longer, so that closing it closes the socket.
  void Detach() {
    const bool here = ring_.is_open() && ring_.is_here();
    const bool any = start_armed_ || out_armed_ || armed_ != Armed::kNone;
    if (here && start_armed_) ring_.Cancel(id_, RingOp::kStart);
    if (here && out_armed_) ring_.Cancel(id_, RingOp::kWritable);
    if (here && armed_ == Armed::kReceive) ring_.Cancel(id_, RingOp::kReceive);
    if (here && armed_ == Armed::kPoll) ring_.Cancel(id_, RingOp::kReadable);
    ring_.Remove(id_, *this);
    if (here && any) ring_.FinishCancels();
  }

  Ring& ring_;
  int fd_;
  IoHandler& handler_;
  uint64_t id_;
  uint32_t events_ = 0;
  int error_ = 0;
  int read_error_ = 0;
  int write_error_ = 0;

  // Received and not read: the spill, then a list of buffers of the ring.
  std::unique_ptr<char[]> spill_;
  size_t spill_begin_ = 0;
  size_t spill_size_ = 0;
  uint16_t first_ = Ring::kNoBuffer;
  uint16_t last_ = Ring::kNoBuffer;
  size_t offset_ = 0;   // into the first buffer
  size_t pending_ = 0;  // bytes in buffers
  int small_reads_ = 0;
  Armed armed_ = Armed::kNone;
  bool cancelling_ = false;
  bool want_poll_ = false;
  bool maybe_more_ = false;  // the socket may hold bytes that only recv will bring
  bool ended_ = false;
  bool hung_up_ = false;

  // Written and not sent.
  char* slot_ = nullptr;
  size_t slot_begin_ = 0;
  size_t slot_end_ = 0;
  bool left_ = false;  // the kernel did not take all of it
  bool fin_due_ = false;
  bool out_wanted_ = false;
  bool out_armed_ = false;

  bool start_armed_ = false;
  bool started_ = false;
  bool reset_ = false;
};

}  // namespace

std::unique_ptr<Stream> NewRingStream(Ring& ring, int fd, IoHandler& handler) {
  return std::make_unique<RingStream>(ring, fd, handler);
}

}  // namespace llmd::runtime
