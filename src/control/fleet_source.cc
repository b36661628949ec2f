#include "control/fleet_source.h"

#include <set>

#include "telemetry/log.h"

namespace llmd::control {

FleetSource::FleetSource(runtime::EventLoop& loop, net::Resolver& resolver, fleet::Fleet& fleet,
                         EngineTls tls, Changed changed)
    : loop_(loop),
      resolver_(resolver),
      fleet_(fleet),
      tls_(std::move(tls)),
      changed_(std::move(changed)) {}

FleetSource::~FleetSource() {
  for (auto& [name, host] : hosts_) {
    if (host.watched) resolver_.Unwatch(host.watch);
  }
}

base::Status FleetSource::SetSpecs(std::vector<fleet::EndpointSpec> specs) {
  std::set<std::string> wanted;
  for (const fleet::EndpointSpec& spec : specs) wanted.insert(spec.address);
  std::vector<fleet::EndpointSpec> before = std::exchange(specs_, std::move(specs));

  std::vector<std::string> names;
  for (const std::string& name : wanted) {
    if (hosts_.contains(name)) continue;
    Host& host = hosts_[name];
    if (auto literal = runtime::SocketAddress::ParseIp(name, 0)) {
      host.addresses.push_back(*literal);
    } else {
      names.push_back(name);
    }
  }
  if (base::Status status = Publish(); !status.ok()) {
    specs_ = std::move(before);
    for (const std::string& name : names) hosts_.erase(name);
    return status;
  }
  for (const std::string& name : names) {
    Host& host = hosts_[name];
    host.watched = true;
    host.watch = resolver_.Watch(name, 0, kResolveInterval,
                                 [this, name](base::Result<net::Addresses> addresses) {
                                   OnResolved(name, std::move(addresses));
                                 });
  }
  std::erase_if(hosts_, [&](auto& entry) {
    if (wanted.contains(entry.first)) return false;
    if (entry.second.watched) resolver_.Unwatch(entry.second.watch);
    return true;
  });
  return base::OkStatus();
}

size_t FleetSource::unresolved_count() const {
  size_t count = 0;
  for (const fleet::EndpointSpec& spec : specs_) {
    const auto host = hosts_.find(spec.address);
    count += host == hosts_.end() || host->second.addresses.empty();
  }
  return count;
}

void FleetSource::OnResolved(const std::string& name, base::Result<net::Addresses> addresses) {
  const auto host = hosts_.find(name);
  if (host == hosts_.end()) return;
  if (!addresses) {
    LLMD_LOG(kWarn, "an endpoint's name does not resolve; it gets no requests until it does",
             {"name", name}, {"error", addresses.error()});
    return;
  }
  host->second.addresses = *std::move(addresses);
  if (base::Status status = Publish(); !status.ok()) {
    LLMD_LOG(kError, "endpoints not updated", {"error", status});
  }
}

base::Status FleetSource::Publish() {
  std::vector<fleet::EndpointSpec> members;
  for (const fleet::EndpointSpec& spec : specs_) {
    if (!hosts_[spec.address].addresses.empty()) members.push_back(spec);
  }
  LLMD_RETURN_IF_ERROR(fleet_.SetMembers(std::move(members), loop_.now()));
  const auto published = fleet_.members();
  auto backends = std::make_shared<Backends>();
  for (const fleet::EndpointNumber number : published->numbers) {
    const fleet::Endpoint& endpoint = *published->by_number[number];
    const runtime::SocketAddress& address = hosts_[endpoint.spec.address].addresses.front();
    backends->push_back({number, endpoint.generation,
                         {.address = address.WithPort(endpoint.spec.port),
                          .tls_name = endpoint.spec.address,
                          .tls = tls_.context}});
  }
  changed_(std::move(backends));
  return base::OkStatus();
}

}  // namespace llmd::control
