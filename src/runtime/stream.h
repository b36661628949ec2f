// A non-blocking byte stream over one socket, plain or TLS behind the same face.
//
// The owner watches the socket (edge-triggered) and calls Read and Write until they say kDrained.
// On any event it may simply try both directions: TLS needs that, and TCP does not mind.
// Thread safety: none; belongs to the loop's thread.
// Invariants: 1. kDrained means that nothing more will happen without a new event from the loop.
// 2. After kEnd or kError the direction is finished. 3. The destructor unwatches and closes.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "runtime/loop.h"

namespace llmd::runtime {

enum class IoStatus : uint8_t {
  kOk,       // go on: there may be more to read, or room for more to write
  kDrained,  // read everything there was, or wrote what fitted: wait for the next event
  kEnd,      // read only: the peer sent FIN
  kError,    // reset, TLS failure: close the stream
};

struct IoResult {
  size_t bytes = 0;  // moved by this call, valid with every status
  IoStatus status = IoStatus::kOk;
};

class Stream {
 public:
  virtual ~Stream() = default;
  // Reads at most `room.size()` bytes (> 0).
  virtual IoResult Read(std::span<char> room) = 0;
  // Gathers `parts` (at most kWritePartsMax, none empty) in order.
  virtual IoResult Write(std::span<const iovec> parts) = 0;
  // A hint: do not report less than `bytes` as readable, except at the end or when the socket can
  // hold no more; 1 restores the default. Saves wake-ups while much is known to come. Streams that
  // cannot tell ignore it. What waits below the mark is still there for Read.
  virtual void SetReadLowWater(size_t bytes) {}
  // Sends FIN (with TLS a close_notify first); reading goes on.
  virtual void ShutdownWrite() = 0;
  // Makes the destructor send a reset instead of an orderly close.
  virtual void ResetOnClose() = 0;
  // errno of the last kError, or 0 when there is none (TLS: see error_text).
  virtual int error() const = 0;
  virtual std::string error_text() const = 0;
  virtual int fd() const = 0;
  // "TLSv1.3" and so on, "" for plain.
  virtual std::string_view tls_version() const { return ""; }

  static constexpr size_t kWritePartsMax = 64;
};

// Takes `fd`, watches it on `loop` with `handler` (both outlive the stream).
base::Result<std::unique_ptr<Stream>> NewTcpStream(EventLoop& loop, int fd, IoHandler& handler);

}  // namespace llmd::runtime
