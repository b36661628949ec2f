// Addresses of Redis and Valkey servers, in the forms that upstream takes (go-redis v9 ParseURL):
//
//   10.0.0.1:6379, redis.svc                       bare: as behind redis://
//   redis://user:password@host:port/db             port 6379, host localhost, db 0 where missing
//   rediss://…                                     the same over TLS; ?skip_verify=true
//   unix://user:password@/run/redis.sock?db=1
//   valkey://, valkeys://                          as redis:// and rediss://
//
// User and password may be percent-encoded. ?db= works everywhere; the other options of go-redis
// (time-outs, pool sizes, client_name…) are read and change nothing; unknown ones are refused.
// Thread safety: a value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace llmd::wire {

struct RedisAddress {
  std::string host = "localhost";  // without brackets
  uint16_t port = 6379;
  std::string unix_path;  // instead of host and port
  bool tls = false;
  bool skip_verify = false;
  std::string user, password;  // password empty: no AUTH
  int database = 0;

  // InvalidArgument; messages never hold the password.
  static base::Result<RedisAddress> Parse(std::string_view text);
  // "host:port" or the path: for messages and labels.
  std::string Where() const;
};

}  // namespace llmd::wire
