// Serving until a signal: what `gateway` and `up` do once their flags are read.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "gateway/gateway.h"
#include "plugin/catalogue.h"

namespace llmd {

// Starts the log, then `before` (may be empty; gets no arguments, keeps what it starts alive in the
// returned object), then the gateway; calls `ready`; waits for SIGTERM or SIGINT; drains. Returns the
// exit status.
int Serve(std::string_view command, const gateway::GatewayOptions& options,
          const plugin::Catalogue& catalogue,
          const std::function<base::Result<std::shared_ptr<void>>()>& before,
          const std::function<void(const gateway::Gateway&)>& ready);

}  // namespace llmd
