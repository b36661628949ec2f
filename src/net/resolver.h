// Host names to addresses with getaddrinfo on a thread pool; literal addresses and paths of Unix
// sockets (what begins with a slash) need no thread.
//
// Thread safety: belongs to one loop's thread. Callbacks come on that loop, never from inside
// Resolve or Watch. Destroying the resolver drops the callbacks; the pool goes before the loop,
// because its jobs post to it. Addresses come sorted, IPv4 first, without repetitions.
// Limits: kAddressesMax per name; a full pool answers kResourceExhausted and a watch tries again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "runtime/loop.h"
#include "runtime/socket.h"
#include "runtime/thread_pool.h"

namespace llmd::net {

using Addresses = std::vector<runtime::SocketAddress>;

class Resolver {
 public:
  static constexpr size_t kAddressesMax = 256;

  // The function that looks up a name; blocking, called on pool threads. Replaced in tests.
  using Lookup = std::function<base::Result<Addresses>(const std::string& host, uint16_t port)>;

  Resolver(runtime::EventLoop& loop, runtime::ThreadPool& pool, Lookup lookup = nullptr);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  void Resolve(const std::string& host, uint16_t port,
               std::move_only_function<void(base::Result<Addresses>)> done);

  // Looks `host` up now and every `interval`; `changed` gets the first answer and every different
  // one. A failed lookup is told only while there is no answer yet; otherwise the last answer
  // stands. Literal addresses are told once.
  using WatchId = uint64_t;
  WatchId Watch(const std::string& host, uint16_t port, base::Duration interval,
                std::move_only_function<void(base::Result<Addresses>)> changed);
  void Unwatch(WatchId id);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// getaddrinfo, blocking.
base::Result<Addresses> LookupHost(const std::string& host, uint16_t port);

}  // namespace llmd::net
