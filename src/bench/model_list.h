// Asks a server for its models: GET /v1/models.
#pragma once

#include <string>

#include "base/status.h"
#include "net/http_client.h"
#include "runtime/loop.h"

namespace llmd::bench {

// The id of the first model. `head` is a whole request head. Runs `loop` until the answer is there,
// at most 10 s. kUnavailable, kNotFound, kDeadlineExceeded with a sentence for the user.
base::Result<std::string> FetchFirstModel(runtime::EventLoop& loop, const net::TargetSpec& target,
                                          const std::string& head);
// The id of the first model in the body of a reply. Pure.
base::Result<std::string> FirstModelIn(const std::string& body);

}  // namespace llmd::bench
