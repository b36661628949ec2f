// What plugins ask of a Redis or Valkey server: lookups for a request, and a writer beside what is
// heard from model servers. control/ has the connections: one per loop and server.
//
// Addresses are upstream's: "10.0.0.1:6379", "redis://user:password@host:port/db", "rediss://…",
// "unix:///run/redis.sock" (wire/redis_address.h).
#pragma once

#include <string>

#include "base/status.h"
#include "base/time.h"
#include "plugin/outside.h"
#include "wire/resp.h"

namespace llmd::plugin {

// A program of commands, run on the loop of who asks. The task is OK when all of it was run,
// whatever its replies were. Without a connection it fails at once; it fails, too, when there are
// too many (net/redis.h).
class OutsideRedis : public OutsideTask {
 public:
  std::string server;
  base::Duration timeout = std::chrono::milliseconds(400);  // for all rounds

  virtual wire::RespProgram& program() = 0;
};

// Of an event consumer that writes what it hears to a server. Everything is called on the ingest
// thread.
class EventStore {
 public:
  virtual ~EventStore() = default;
  // Does not change; "": it does not write.
  virtual const std::string& store_address() const = 0;
  // What is to be run now, nullptr: nothing. Asked after events and ticks; not again before the end
  // of the last one, which lives as long as the consumer.
  virtual wire::RespProgram* NextStore() = 0;
  // There is a connection, the first or a new one: the server may have lost everything.
  virtual void OnStoreConnected() = 0;
  // kUnavailable: it may have been done or not, wholly or in part. Asked anew with the next tick.
  virtual void OnStoreEnd(const base::Status& status) = 0;
};

}  // namespace llmd::plugin
