// Logging front: a level, a constant text, structured key/values.
//
//   LLMD_LOG(kInfo, "endpoint ejected", {"endpoint", name}, {"failures", n}, {"for", duration});
//
// When the level is off, the arguments are not evaluated and the cost is one relaxed load. When it
// is on, the line is encoded on the stack (at most kLogLineMax bytes, cut with "..." beyond) and
// handed to the LogSink. Nothing here allocates, opens a file or reads a clock: time comes from the
// sink.
//
// Thread safety: everything here may be called from any thread; a LogSink must be thread-safe.
// Levels are upstream's verbosity numbers (-v): DEFAULT 2, VERBOSE 3, DEBUG 4, TRACE 5; errors and
// warnings are always on. Per request at most one line at kInfo or below; per item kDebug; state
// transitions kTrace. Never prompt text.
#pragma once

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/time.h"

namespace llmd::telemetry {

enum class LogLevel : int {
  kError = 0,
  kWarn = 1,
  kInfo = 2,
  kVerbose = 3,
  kDebug = 4,
  kTrace = 5
};
enum class LogFormat : uint8_t { kText, kJson };

std::string_view LogLevelName(LogLevel level);  // "error", "warn", "info", "verbose", ...
// A name or a number from 0 up (numbers above 5 mean 5, 0 and 1 keep warnings on).
std::optional<LogLevel> ParseLogLevel(std::string_view text);

inline constexpr size_t kLogLineMax = 4096;

// Where encoded lines go.
class LogSink {
 public:
  virtual ~LogSink() = default;
  // Unix time for the line; unix_ns 0 leaves the time out.
  virtual base::WallTime Now() = 0;
  // `line` ends in a newline and lives for the call. Must not block for long and must not log.
  virtual void Write(LogLevel level, std::string_view line) = 0;
};

// The sink used from now on; nullptr restores the default, which writes to stderr without a time.
// The old sink may be in use by another thread until that thread's call ends: keep it alive until
// the threads that log have stopped.
void SetLogSink(LogSink* sink);
void SetLogLevel(LogLevel level);
void SetLogFormat(LogFormat format);
LogFormat CurrentLogFormat();

namespace internal {
extern std::atomic<int> g_log_level;
}
inline LogLevel CurrentLogLevel() {
  return static_cast<LogLevel>(internal::g_log_level.load(std::memory_order_relaxed));
}
inline bool LogEnabled(LogLevel level) {
  return static_cast<int>(level) <= internal::g_log_level.load(std::memory_order_relaxed);
}

// One key/value; views live for the call.
struct LogField {
  enum class Type : uint8_t { kInt, kUint, kDouble, kBool, kString, kDuration };

  template <std::signed_integral T>
  LogField(std::string_view k, T v) : key(k), type(Type::kInt), i(v) {}
  template <std::unsigned_integral T>
  LogField(std::string_view k, T v) : key(k), type(Type::kUint), u(v) {}
  LogField(std::string_view k, bool v) : key(k), type(Type::kBool), u(v) {}
  LogField(std::string_view k, double v) : key(k), type(Type::kDouble), d(v) {}
  LogField(std::string_view k, std::string_view v) : key(k), type(Type::kString), s(v) {}
  LogField(std::string_view k, const char* v) : LogField(k, std::string_view(v)) {}
  LogField(std::string_view k, const std::string& v) : LogField(k, std::string_view(v)) {}
  LogField(std::string_view k, base::Duration v) : key(k), type(Type::kDuration), i(v.count()) {}
  // The message of an error; "OK" otherwise.
  LogField(std::string_view k, const base::Status& v)
      : LogField(k, v.ok() ? std::string_view("OK") : v.message()) {}

  std::string_view key;
  Type type;
  union {
    int64_t i;
    uint64_t u;
    double d;
  };
  std::string_view s;
};

// Encodes and writes regardless of the level; LLMD_LOG is the front that checks it.
void WriteLog(LogLevel level, const char* file, int line, std::string_view text,
              std::initializer_list<LogField> fields);

}  // namespace llmd::telemetry

#define LLMD_LOG(level, text, ...)                                                              \
  do {                                                                                          \
    if (::llmd::telemetry::LogEnabled(::llmd::telemetry::LogLevel::level)) [[unlikely]]         \
      ::llmd::telemetry::WriteLog(::llmd::telemetry::LogLevel::level, __FILE__, __LINE__, text, \
                                  {__VA_ARGS__});                                               \
  } while (false)
