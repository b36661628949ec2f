// Where log and access lines go: a bounded buffer that any thread appends to and one thread writes
// out.
//
// A line costs its writer a short lock and a copy; the writing thread is woken once per batch, not
// per line. When the reader of the output is too slow and the buffer is full, lines are dropped and
// counted (a relay never waits for its log). Thread-safe.
// Invariants: 1. Lines of one thread keep their order and are never torn. 2. The destructor writes
// what was accepted.
// Limits: LogSinkOptions::buffer_bytes_max.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/time.h"
#include "telemetry/log.h"

namespace llmd::runtime {

struct LogSinkOptions {
  std::string path;  // "" is stderr, "-" stdout, else a file that is appended to
  size_t buffer_bytes_max = 4 << 20;
  // How long the writing thread gathers lines after the first one.
  base::Duration gather = std::chrono::milliseconds(20);
};

class AsyncLogSink final : public telemetry::LogSink {
 public:
  static base::Result<std::unique_ptr<AsyncLogSink>> Open(LogSinkOptions options);
  ~AsyncLogSink() override;

  base::WallTime Now() override;
  void Write(telemetry::LogLevel level, std::string_view line) override { WriteLine(line); }
  // `line` ends in a newline.
  void WriteLine(std::string_view line);
  // Waits until everything accepted so far is written.
  void Flush();
  // Opens the path again, after a log rotation moved the file away.
  base::Status Reopen();
  uint64_t dropped_count() const;

 private:
  struct Impl;
  explicit AsyncLogSink(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::runtime
