// Serving until a signal: what the roles that serve do once their flags are read.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/time.h"
#include "control/host.h"
#include "telemetry/log.h"

namespace llmd {

struct ServeOptions {
  std::string access_log;  // "-": standard output, "": none, else a file
  telemetry::LogFormat log_format = telemetry::LogFormat::kText;
  base::Duration drain_timeout = std::chrono::seconds(30);  // for the log line; the role keeps it
};

// What a role is given when it starts. Both outlive it.
struct ServeLogs {
  telemetry::LogSink* access = nullptr;  // nullptr: no access lines
  std::function<uint64_t()> dropped;     // lines that were dropped so far
};

using StartedRole = base::Result<std::unique_ptr<control::Role>>;

// Opens the logs, calls `start`, waits for SIGTERM or SIGINT, drains. A second signal ends at once.
// Returns the exit status.
int Serve(std::string_view command, const ServeOptions& options,
          const std::function<StartedRole(const ServeLogs&)>& start);

}  // namespace llmd
