#include "sim/server.h"

#include <algorithm>
#include <string>

namespace llmd::sim {
namespace {

std::string TopicOf(const SimOptions& options, const ServerConfig& config, uint16_t port) {
  const KvEventOptions& o = config.kv_events;
  if (!o.topic.empty()) return o.topic;
  const std::string ip = !o.pod_ip.empty()       ? o.pod_ip
                         : !options.host.empty() ? options.host
                                                 : "127.0.0.1";
  return "kv@" + ip + ":" + std::to_string(port) + "@" + config.model;
}

}  // namespace

SimServers::SimServers(ServerConfig config, size_t workers)
    : config_(std::move(config)), workers_(workers, "llmd-sim") {}

SimServers::~SimServers() { Stop(); }

void SimServers::Stop() {
  workers_.Stop();
  servers_.clear();
  zmq_.clear();
}

base::Result<std::unique_ptr<SimServers>> Start(const SimOptions& options) {
  LLMD_ASSIGN_OR_RETURN(ServerConfig config, Resolve(options));
  const std::string any = ":";
  LLMD_ASSIGN_OR_RETURN(const runtime::SocketAddress address,
                        options.host.empty()
                            ? runtime::SocketAddress::Parse(any + std::to_string(options.port))
                            : runtime::SocketAddress::ParseIp(options.host, options.port));
  if (options.workers < 1 || options.workers > 1024) {
    return std::unexpected(base::InvalidArgument("--workers: allowed are 1 to 1024"));
  }
  const uint32_t count = std::max(options.count, options.kv_events.ranks);
  const size_t workers = std::min(options.workers, count);
  std::unique_ptr<SimServers> servers(new SimServers(config, workers));
  for (size_t i = 0; config.kv_events.enabled && i < workers; ++i) {
    servers->zmq_.push_back(std::make_unique<net::ZmqContext>(servers->workers_.loop(i)));
  }
  for (uint32_t i = 0; i < count; ++i) {
    ServerConfig own = config;
    own.seed += i;  // each server draws its own ids and lengths
    own.engine.hash_seed += i;
    LLMD_ASSIGN_OR_RETURN(auto server,
                          SimServer::Create(servers->workers_.loop(i % workers), own));
    const uint16_t port = options.port == 0 ? uint16_t{0} : static_cast<uint16_t>(options.port + i);
    const auto bound = server->Listen(address.WithPort(port));
    if (!bound) {
      return std::unexpected(bound.error().WithContext(
          "cannot listen on port " + std::to_string(port) + " (another server there?)"));
    }
    if (config.kv_events.enabled) {
      LLMD_RETURN_IF_ERROR(server->PublishKvEvents(*servers->zmq_[i % workers], i,
                                                   TopicOf(options, config, *bound)));
    }
    servers->ports_.push_back(*bound);
    servers->servers_.push_back(std::move(server));
  }
  servers->workers_.Start();
  return servers;
}

}  // namespace llmd::sim
