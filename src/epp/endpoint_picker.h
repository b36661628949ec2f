// EndpointPicker: the ext_proc door of the decision. Wires rooms together and decides nothing.
//
//   workers   one GrpcServer and Door each; calls live and die here
//   control   accepts connections and deals them to the workers; health; what Control does
//
// Thread safety: all methods from the owner's thread. Lifetime: the catalogue, and the log sink
// when there is one, outlive the picker.
#pragma once

#include <functional>
#include <memory>

#include "base/status.h"
#include "control/host.h"
#include "epp/options.h"
#include "plugin/catalogue.h"
#include "telemetry/log.h"

namespace llmd::epp {

class EndpointPicker final : public control::Role {
 public:
  // Listens and serves when it returns OK. Errors name the flag or file and the remedy.
  // `access_log`: where access lines go, nullptr for none; `dropped_lines` (may be null) counts log
  // and access lines that were dropped, for the metrics page.
  static base::Result<std::unique_ptr<EndpointPicker>> Start(
      const EppOptions& options, const plugin::Catalogue& catalogue, telemetry::LogSink* access_log,
      std::function<uint64_t()> dropped_lines);
  ~EndpointPicker() override;

  // Ports in use (of interest when 0 was asked for).
  uint16_t port() const;
  uint16_t health_port() const;
  uint16_t metrics_port() const;
  size_t worker_count() const;
  // Health says NOT_SERVING at once; requests are served on for the drain timeout, because proxies
  // learn late that they should go elsewhere (as upstream does); then what is under way ends.
  void Drain() override;
  bool WaitForEndpoints(size_t count, base::Duration limit);

 private:
  EndpointPicker() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::epp
