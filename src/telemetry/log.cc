#include "telemetry/log.h"

#include <array>
#include <cstdio>
#include <cstring>

#include "base/strings.h"
#include "telemetry/line_writer.h"

namespace llmd::telemetry {
namespace internal {
std::atomic<int> g_log_level{static_cast<int>(LogLevel::kInfo)};
}
namespace {

constexpr size_t kValueMax = 1024;  // three long values and the rest of the line fit kLogLineMax
constexpr std::string_view kLevelNames[] = {"error", "warn", "info", "verbose", "debug", "trace"};

class StderrSink final : public LogSink {
 public:
  base::WallTime Now() override { return {}; }
  void Write(LogLevel level, std::string_view line) override {
    std::fwrite(line.data(), 1, line.size(), stderr);
  }
};
StderrSink g_stderr_sink;
std::atomic<LogSink*> g_sink{&g_stderr_sink};
std::atomic<LogFormat> g_format{LogFormat::kText};

std::string_view BaseName(const char* file) {
  const char* slash = std::strrchr(file, '/');
  return slash ? slash + 1 : file;
}

void AppendFieldValue(const LogField& field, bool json, LineWriter* out) {
  switch (field.type) {
    case LogField::Type::kInt:
      out->AppendInt(field.i);
      return;
    case LogField::Type::kUint:
      out->AppendUint(field.u);
      return;
    case LogField::Type::kBool:
      out->Append(field.u ? "true" : "false");
      return;
    case LogField::Type::kDouble:
      // JSON has no NaN and no Inf.
      if (json && !(field.d - field.d == 0)) {
        out->Append("null");
      } else {
        out->AppendDouble(field.d);
      }
      return;
    case LogField::Type::kDuration:
      out->AppendMilliseconds(field.i);
      if (!json) out->Append("ms");
      return;
    case LogField::Type::kString:
      json ? out->AppendJsonString(field.s, kValueMax) : out->AppendTextValue(field.s, kValueMax);
  }
}

void AppendField(const LogField& field, bool json, LineWriter* out) {
  if (json) {
    out->Append(',');
    out->AppendJsonString(field.key, kValueMax);
    out->Append(':');
  } else {
    out->Append(' ');
    out->Append(field.key);
    out->Append('=');
  }
  AppendFieldValue(field, json, out);
}

void AppendHead(LogLevel level, const char* file, int line, std::string_view text, bool json,
                base::WallTime now, LineWriter* out) {
  const std::string_view name = LogLevelName(level);
  if (json) {
    out->Append('{');
    if (now.unix_ns) {
      out->Append("\"ts\":\"");
      out->AppendTime(now.unix_ns);
      out->Append("\",");
    }
    out->Append("\"level\":\"");
    out->Append(name);
    out->Append("\",\"caller\":\"");
    out->Append(BaseName(file));
    out->Append(':');
    out->AppendInt(line);
    out->Append("\",\"msg\":");
    out->AppendJsonString(text, kValueMax);
    return;
  }
  if (now.unix_ns) {
    out->AppendTime(now.unix_ns);
    out->Append(' ');
  }
  out->Append(name);
  out->Append(' ');
  out->Append(BaseName(file));
  out->Append(':');
  out->AppendInt(line);
  out->Append(' ');
  const std::string_view quoted = text;
  for (char c : quoted.substr(0, kValueMax)) out->Append(c < ' ' && c >= 0 ? ' ' : c);
}

}  // namespace

std::string_view LogLevelName(LogLevel level) { return kLevelNames[static_cast<size_t>(level)]; }

std::optional<LogLevel> ParseLogLevel(std::string_view text) {
  for (size_t i = 0; i < std::size(kLevelNames); ++i) {
    if (base::EqualsIgnoreCase(text, kLevelNames[i])) return static_cast<LogLevel>(i);
  }
  const auto number = base::ParseInt(text);
  if (!number || *number < 0) return std::nullopt;
  if (*number > 5) return LogLevel::kTrace;
  return *number < 2 ? LogLevel::kWarn : static_cast<LogLevel>(*number);
}

void SetLogSink(LogSink* sink) {
  g_sink.store(sink ? sink : &g_stderr_sink, std::memory_order_release);
}

void SetLogLevel(LogLevel level) {
  internal::g_log_level.store(static_cast<int>(level), std::memory_order_relaxed);
}

void SetLogFormat(LogFormat format) { g_format.store(format, std::memory_order_relaxed); }

LogFormat CurrentLogFormat() { return g_format.load(std::memory_order_relaxed); }

void WriteLog(LogLevel level, const char* file, int line, std::string_view text,
              std::initializer_list<LogField> fields) {
  static constexpr std::string_view kCutJson = ",\"cut\":true", kCutText = " cut=true",
                                    kEnd = "}\n";
  const bool json = CurrentLogFormat() == LogFormat::kJson;
  LogSink* sink = g_sink.load(std::memory_order_acquire);
  std::array<char, kLogLineMax> buffer;
  LineWriter out(buffer);
  const size_t reserved = kCutJson.size() + kEnd.size();
  out.ShrinkBy(reserved);
  AppendHead(level, file, line, text, json, sink->Now(), &out);
  bool cut = out.cut();
  for (const LogField& field : fields) {
    if (cut) break;
    const size_t before = out.size();
    AppendField(field, json, &out);
    // A field that does not fit is left out whole: half a JSON value would break the line.
    if ((cut = out.cut())) out.Rewind(before);
  }
  out.GrowBy(reserved);
  if (cut) out.Append(json ? kCutJson : kCutText);
  out.Append(json ? kEnd : "\n");
  sink->Write(level, out.view());
}

}  // namespace llmd::telemetry
