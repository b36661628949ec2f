#include "net/resolver.h"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "base/strings.h"

namespace llmd::net {
namespace {

// After a refused or failed lookup of a watched name that has no answer yet.
constexpr base::Duration kRetry = std::chrono::seconds(1);

base::Result<runtime::SocketAddress> Literal(const std::string& host, uint16_t port) {
  return host.starts_with('/') ? runtime::SocketAddress::Unix(host)
                               : runtime::SocketAddress::ParseIp(host, port);
}

void SortAndTrim(Addresses& addresses) {
  auto key = [](const runtime::SocketAddress& a) {
    return std::pair(a.family() == AF_INET6, a.ToString());
  };
  std::sort(addresses.begin(), addresses.end(),
            [&](const auto& a, const auto& b) { return key(a) < key(b); });
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  if (addresses.size() > Resolver::kAddressesMax) addresses.resize(Resolver::kAddressesMax);
}

}  // namespace

base::Result<Addresses> LookupHost(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* list = nullptr;
  int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
  if (error == EAI_NONAME || error == EAI_ADDRFAMILY || error == EAI_NODATA) {
    // A machine with loopback only has no "configured" family, but may well resolve its own names.
    hints.ai_flags = 0;
    error = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
  }
  if (error != 0) {
    const std::string text = base::Concat("cannot resolve ", host, ": ", ::gai_strerror(error));
    return std::unexpected(error == EAI_AGAIN ? base::Unavailable(text) : base::NotFound(text));
  }
  Addresses addresses;
  for (const addrinfo* entry = list; entry; entry = entry->ai_next) {
    auto address = runtime::SocketAddress::From(entry->ai_addr, entry->ai_addrlen);
    if (address) addresses.push_back(address->WithPort(port));
  }
  ::freeaddrinfo(list);
  SortAndTrim(addresses);
  if (addresses.empty()) return std::unexpected(base::NotFound(host + " has no IP address"));
  return addresses;
}

struct Resolver::Impl {
  using Done = std::move_only_function<void(base::Result<Addresses>)>;

  struct Watched {
    Watched(Impl& impl, WatchId id, std::string name, uint16_t port_number, base::Duration every,
            Done callback)
        : host(std::move(name)),
          port(port_number),
          interval(every),
          changed(std::move(callback)),
          timer(impl.loop, [&impl, id] { impl.LookUpWatched(id); }) {}
    std::string host;
    uint16_t port;
    base::Duration interval;
    Done changed;
    runtime::Timer timer;
    Addresses last;  // empty: no answer yet
  };

  Impl(runtime::EventLoop& event_loop, runtime::ThreadPool& thread_pool, Lookup function)
      : loop(event_loop), pool(thread_pool), lookup(std::move(function)) {}

  void Resolve(const std::string& host, uint16_t port, Done done) {
    if (auto literal = Literal(host, port)) {
      Answer(loop, alive, Addresses{*literal}, std::move(done));
      return;
    }
    // Shared because a refused job is destroyed with what it captured.
    auto shared = std::make_shared<Done>(std::move(done));
    const bool accepted = pool.TrySubmit(
        [&target = loop, token = std::weak_ptr(alive), function = lookup, host, port, shared] {
          Answer(target, token, function(host, port), std::move(*shared));
        });
    if (!accepted) {
      Answer(loop, alive,
             std::unexpected(base::ResourceExhausted("too many name lookups wait; " + host)),
             std::move(*shared));
    }
  }

  // From any thread. The callback runs on the loop, unless the resolver is gone by then.
  static void Answer(runtime::EventLoop& loop, std::weak_ptr<bool> token,
                     base::Result<Addresses> result, Done done) {
    loop.Post(
        [token = std::move(token), result = std::move(result), done = std::move(done)]() mutable {
          if (!token.expired()) done(std::move(result));
        });
  }

  void LookUpWatched(WatchId id) {
    auto found = watches.find(id);
    if (found == watches.end()) return;
    Resolve(found->second->host, found->second->port,
            [this, id](base::Result<Addresses> result) { Answered(id, std::move(result)); });
  }

  void Answered(WatchId id, base::Result<Addresses> result) {
    auto found = watches.find(id);
    if (found == watches.end()) return;
    Watched& watched = *found->second;
    const bool literal = Literal(watched.host, 0).has_value();
    if (!literal) {
      const bool hurry = !result && watched.last.empty();
      watched.timer.ArmAfter(hurry ? std::min(kRetry, watched.interval) : watched.interval);
    }
    if (!result && !watched.last.empty()) return;
    if (result && *result == watched.last) return;
    if (result) watched.last = *result;
    // The callback may remove this watch.
    Done callback = std::move(watched.changed);
    callback(std::move(result));
    if (auto again = watches.find(id); again != watches.end()) {
      again->second->changed = std::move(callback);
    }
  }

  runtime::EventLoop& loop;
  runtime::ThreadPool& pool;
  Lookup lookup;
  std::map<WatchId, std::unique_ptr<Watched>> watches;
  WatchId last_id = 0;
  // Looked at on the loop's thread only: expired once the resolver is destroyed.
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);
};

Resolver::Resolver(runtime::EventLoop& loop, runtime::ThreadPool& pool, Lookup lookup)
    : impl_(std::make_unique<Impl>(loop, pool, lookup ? std::move(lookup) : LookupHost)) {}
Resolver::~Resolver() = default;

void Resolver::Resolve(const std::string& host, uint16_t port,
                       std::move_only_function<void(base::Result<Addresses>)> done) {
  impl_->Resolve(host, port, std::move(done));
}

Resolver::WatchId Resolver::Watch(const std::string& host, uint16_t port, base::Duration interval,
                                  std::move_only_function<void(base::Result<Addresses>)> changed) {
  const WatchId id = ++impl_->last_id;
  impl_->watches.emplace(
      id, std::make_unique<Impl::Watched>(*impl_, id, host, port, interval, std::move(changed)));
  impl_->LookUpWatched(id);
  return id;
}

void Resolver::Unwatch(WatchId id) { impl_->watches.erase(id); }

}  // namespace llmd::net
