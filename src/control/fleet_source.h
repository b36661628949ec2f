// FleetSource: from endpoint descriptions (a discovery file or flags) to fleet members that can be
// connected to. Names are resolved here, and again every kResolveInterval; an endpoint whose name
// has no address yet is not a member.
//
// Thread safety: belongs to the control loop's thread.
// Invariant: `changed` is called after the fleet was given the same members.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fleet/fleet.h"
#include "control/state.h"
#include "net/resolver.h"
#include "net/tls.h"
#include "runtime/loop.h"

namespace llmd::control {

class FleetSource {
 public:
  static constexpr base::Duration kResolveInterval = std::chrono::seconds(30);

  struct EngineTls {
    std::shared_ptr<net::TlsClientContext> context;  // nullptr: plain HTTP
  };
  using Changed = std::function<void(std::shared_ptr<const Backends>)>;

  // All references outlive the source.
  FleetSource(runtime::EventLoop& loop, net::Resolver& resolver, fleet::Fleet& fleet, EngineTls tls,
              Changed changed);
  ~FleetSource();

  // The endpoints from now on. An error (too many, repeated names) changes nothing.
  base::Status SetSpecs(std::vector<fleet::EndpointSpec> specs);
  // Endpoints described but without an address so far.
  size_t unresolved_count() const;

 private:
  struct Host {
    net::Resolver::WatchId watch = 0;
    bool watched = false;
    std::vector<runtime::SocketAddress> addresses;
  };

  void OnResolved(const std::string& host, base::Result<net::Addresses> addresses);
  base::Status Publish();

  runtime::EventLoop& loop_;
  net::Resolver& resolver_;
  fleet::Fleet& fleet_;
  EngineTls tls_;
  Changed changed_;
  std::vector<fleet::EndpointSpec> specs_;
  std::map<std::string, Host> hosts_;
};

}  // namespace llmd::control
