// The gRPC health service (grpc.health.v1.Health): Check, Watch and List.
//
// GrpcHealth is what the process says of itself: a status per service name. GrpcHealthService
// answers for it on one worker. Watch sends the present status and then every change, and never
// ends by itself; an unknown name is SERVICE_UNKNOWN there and NOT_FOUND in Check, as the protocol
// wants.
//
// Thread safety: GrpcHealth may be used from every thread; a GrpcHealthService belongs to its loop.
// Lifetime: the GrpcHealth outlives its services. A service is destroyed on its loop, or while no
// loop runs.
// Limits: kNamesMax names; a watch costs one call, whose number the server limits. A watcher that
// takes nothing misses what came in between, never the last status.
// Format: github.com/grpc/grpc-proto, grpc/health/v1/health.proto.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/grpc_server.h"
#include "runtime/loop.h"

namespace llmd::net {

class GrpcHealthService;

enum class HealthStatus : uint8_t {  // numbers of the protocol
  kUnknown = 0,
  kServing = 1,
  kNotServing = 2,
  kServiceUnknown = 3,  // of names that nobody set; never set
};

class GrpcHealth {
 public:
  static constexpr size_t kNamesMax = 100;  // of List, and of what is ever set

  GrpcHealth();
  ~GrpcHealth();
  GrpcHealth(const GrpcHealth&) = delete;
  GrpcHealth& operator=(const GrpcHealth&) = delete;

  // "" is the server as a whole. Watchers hear of it in a coming turn of their loops.
  void Set(std::string_view name, HealthStatus status);
  // What names have that were never set; kServiceUnknown at first.
  void SetOthers(HealthStatus status);
  HealthStatus Get(std::string_view name) const;
  std::vector<std::pair<std::string, HealthStatus>> List() const;

 private:
  friend class GrpcHealthService;
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

class GrpcHealthService final : public GrpcService {
 public:
  static constexpr std::string_view kPath = "/grpc.health.v1.Health/";

  // For servers on `loop`: server.AddService(std::string(GrpcHealthService::kPath), service).
  GrpcHealthService(runtime::EventLoop& loop, GrpcHealth& health);
  ~GrpcHealthService() override;
  GrpcHandler* OnCall(GrpcCall& call) override;

  size_t watch_count() const;

 private:
  friend class GrpcHealth;
  class Call;
  struct Impl;
  std::shared_ptr<Impl> impl_;  // posted tasks hold it weakly
};

}  // namespace llmd::net
