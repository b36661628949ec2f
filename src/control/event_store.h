// EventStoreWriter: runs what one event consumer has to write (plugin/redis.h) on its server, one
// program at a time. While the server is away the consumer keeps what it has, up to its own limit,
// and is asked anew with each tick.
//
// Thread safety: belongs to the ingest thread. Lifetime: loop, pool and store outlive it.
#pragma once

#include <memory>

#include "net/redis.h"
#include "plugin/redis.h"
#include "runtime/loop.h"

namespace llmd::control {

class EventStoreWriter final : private net::RedisWaiter {
 public:
  // A program that is not done by then is given up. One of KvRedisMirror is 64 rounds at most.
  static constexpr base::Duration kProgramMax = std::chrono::seconds(60);

  // InvalidArgument: an address that cannot be.
  static base::Result<std::unique_ptr<EventStoreWriter>> Create(runtime::EventLoop& loop,
                                                                runtime::ThreadPool& lookups,
                                                                plugin::EventStore& store);
  EventStoreWriter(runtime::EventLoop& loop, runtime::ThreadPool& lookups,
                   plugin::EventStore& store, net::RedisAddress address);

  // There may be something to write. To be called after events and with each tick.
  void Write();
  bool is_writing() const { return is_writing_; }
  const net::RedisClient& client() const { return client_; }

 private:
  void OnRedisEnd(const base::Status& status) override;

  plugin::EventStore& store_;
  net::RedisClient client_;
  uint64_t connects_ = 0;  // that the store knows of
  bool is_writing_ = false;
  bool was_told_ = false;  // that the server is away
};

}  // namespace llmd::control
