// Serving until a signal: what `gateway` and `up` do once their flags are read.
#pragma once

#include <functional>
#include <string_view>

#include "gateway/gateway.h"
#include "gateway/options.h"
#include "plugin/catalogue.h"

namespace llmd {

// Starts the log, lets `begin` (may be empty) start what the gateway needs and complete the
// options, starts the gateway, calls `ready`, waits for SIGTERM or SIGINT, drains. A second signal
// ends at once. Returns the exit status.
int Serve(std::string_view command, gateway::GatewayOptions options,
          const plugin::Catalogue& catalogue,
          const std::function<base::Status(gateway::GatewayOptions*)>& begin,
          const std::function<void(const gateway::Gateway&)>& ready);

}  // namespace llmd
