#include "main/serve.h"

#include <unistd.h>

#include <csignal>
#include <memory>
#include <thread>

#include "main/cli.h"
#include "runtime/log_sink.h"
#include "runtime/loop.h"
#include "runtime/signals.h"
#include "telemetry/log.h"

namespace llmd {
namespace {

// The log on stderr and the access lines where they were asked for; until the end of the process.
class Logs {
 public:
  static base::Result<std::unique_ptr<Logs>> Open(const ServeOptions& options) {
    auto logs = std::make_unique<Logs>();
    LLMD_ASSIGN_OR_RETURN(logs->log_, runtime::AsyncLogSink::Open({}));
    if (!options.access_log.empty()) {
      auto access = runtime::AsyncLogSink::Open({.path = options.access_log});
      if (!access) return std::unexpected(access.error().WithContext("--access-log"));
      logs->access_ = std::move(*access);
    }
    telemetry::SetLogFormat(options.log_format);
    telemetry::SetLogSink(logs->log_.get());
    return logs;
  }
  ~Logs() { telemetry::SetLogSink(nullptr); }

  telemetry::LogSink* access() const { return access_.get(); }
  uint64_t dropped() const {
    return log_->dropped_count() + (access_ ? access_->dropped_count() : 0);
  }
  void Reopen() {
    if (!access_) return;
    if (const base::Status status = access_->Reopen(); !status.ok()) {
      LLMD_LOG(kError, "access log not reopened", {"error", status});
    }
  }

 private:
  std::unique_ptr<runtime::AsyncLogSink> log_, access_;
};

}  // namespace

int Serve(std::string_view command, const ServeOptions& options,
          const std::function<StartedRole(const ServeLogs&)>& start) {
  runtime::EventLoop loop;
  int stops = 0;
  std::unique_ptr<Logs> logs;
  runtime::SignalWatch signals(loop, [&](int signal) {
    if (signal == SIGHUP) {
      logs->Reopen();
      return;
    }
    if (++stops == 2) _exit(130);
    loop.Stop();
  });
  auto opened = Logs::Open(options);
  if (!opened) return Fail(command, opened.error());
  logs = std::move(*opened);
  auto role = start({.access = logs->access(), .dropped = [&] { return logs->dropped(); }});
  if (!role) return Fail(command, role.error());
  loop.Run();

  LLMD_LOG(kInfo, "draining", {"limit", options.drain_timeout});
  // The loop keeps running while the drain waits, so that a second signal is heard.
  std::thread drain([&] {
    (*role)->Drain();
    loop.Stop();
  });
  loop.Run();
  drain.join();
  role->reset();
  return 0;
}

}  // namespace llmd
