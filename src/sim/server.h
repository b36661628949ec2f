// Simulated vLLM servers behind real ports, on threads of their own: `llmd sim`, and what `llmd up`
// puts behind its gateway.
//
// Thread safety: SimServers belongs to the thread that started it. Server i lives on worker i mod
// workers. Stop (or the end of the object) closes all ports and connections.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "net/zmq.h"
#include "runtime/worker.h"
#include "sim/options.h"
#include "sim/sim_server.h"

namespace llmd::sim {

class SimServers {
 public:
  ~SimServers();
  SimServers(const SimServers&) = delete;
  SimServers& operator=(const SimServers&) = delete;

  // Port of each server, in order.
  const std::vector<uint16_t>& ports() const { return ports_; }
  const ServerConfig& config() const { return config_; }
  // Lives on a worker: post to its loop.
  SimServer& server(size_t index) { return *servers_[index]; }
  void Stop();

 private:
  friend base::Result<std::unique_ptr<SimServers>> Start(const SimOptions& options);
  SimServers(ServerConfig config, size_t workers);

  ServerConfig config_;
  std::vector<uint16_t> ports_;
  runtime::WorkerPool workers_;
  std::vector<std::unique_ptr<net::ZmqContext>> zmq_;  // by worker, if there are events
  std::vector<std::unique_ptr<SimServer>> servers_;    // die before the loops
};

// Listens and serves; returns when every port is open. Errors name the flag or the address.
base::Result<std::unique_ptr<SimServers>> Start(const SimOptions& options);

}  // namespace llmd::sim
