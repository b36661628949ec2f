// IndexService: the index of KV blocks as a service of its own, for routers that are not ours.
// Wires rooms together and decides nothing.
//
//   workers   one HttpServer, GrpcServer and Door each
//   control   what Control does: config, fleet, the ingest of events; deals gRPC connections
//
// The config is the same as the Endpoint Picker's; of it precise-prefix-cache-producer and the
// discovery count.
// Thread safety: all methods from the owner's thread. The catalogue outlives the service.
#pragma once

#include <functional>
#include <memory>

#include "base/status.h"
#include "control/host.h"
#include "index/options.h"
#include "plugin/catalogue.h"

namespace llmd::index {

class IndexService final : public control::Role {
 public:
  // Listens and serves when it returns OK; a tokenizer is loaded meanwhile. Errors name the flag or
  // file. `dropped_lines` (may be null) counts log lines that were dropped.
  static base::Result<std::unique_ptr<IndexService>> Start(const IndexOptions& options,
                                                           const plugin::Catalogue& catalogue,
                                                           std::function<uint64_t()> dropped_lines);
  ~IndexService() override;

  // Ports in use (of interest when 0 was asked for).
  uint16_t port() const;
  uint16_t grpc_port() const;
  uint16_t metrics_port() const;
  void Drain() override;

 private:
  IndexService() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::index
