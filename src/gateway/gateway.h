// Gateway: the whole data path in one process. Wires rooms together and decides nothing.
//
//   workers   one HttpServer, Door and HttpClient each; requests live and die here
//   control   discovery, name lookup, scraping, reloads, the metrics port
//
// Thread safety: all methods from the owner's thread. Lifetime: the catalogue, and the log sink
// when there is one, outlive the gateway.
#pragma once

#include <functional>
#include <memory>

#include "base/status.h"
#include "base/time.h"
#include "control/host.h"
#include "gateway/options.h"
#include "plugin/catalogue.h"
#include "telemetry/log.h"

namespace llmd::gateway {

class Gateway final : public control::Role {
 public:
  // Listens and serves when it returns OK. Errors name the flag or file and the remedy.
  // `access_log`: where access lines go, nullptr for none; `dropped_lines` (may be null) counts log
  // and access lines that were dropped, for the metrics page.
  static base::Result<std::unique_ptr<Gateway>> Start(const GatewayOptions& options,
                                                      const plugin::Catalogue& catalogue,
                                                      telemetry::LogSink* access_log,
                                                      std::function<uint64_t()> dropped_lines);
  ~Gateway() override;

  // Ports in use (of interest when 0 was asked for).
  uint16_t port() const;
  uint16_t metrics_port() const;
  size_t worker_count() const;
  void Drain() override;
  // Waits until at least `count` endpoints are members; false after `limit`.
  bool WaitForEndpoints(size_t count, base::Duration limit);

 private:
  Gateway() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::gateway
