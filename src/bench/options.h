// What `llmd bench` is asked to do. Plain values; Validate says what is wrong in the user's words.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/time.h"
#include "workload/body.h"
#include "workload/pacer.h"
#include "workload/prompts.h"

namespace llmd::bench {

inline constexpr uint32_t kWorkersMax = 256;
// A connection costs two descriptors' worth of memory and about 10 KiB here; 64 Ki of them is where
// one client address runs out of ports.
inline constexpr uint32_t kInFlightMax = 65535;

// Processes whose cost is added up under one name (nginx: master and workers).
struct WatchedProcess {
  std::string name;
  std::vector<int> pids;
};
// "name=pid[,pid...]".
base::Result<WatchedProcess> ParseWatchedProcess(const std::string& text);

struct BenchOptions {
  std::vector<std::string> urls;  // requests take turns
  // When to send.
  workload::Arrival arrival = workload::Arrival::kClosedLoop;
  double rate = 0;
  uint32_t concurrency = 1;
  uint32_t in_flight_max = 4096;  // open loop
  base::Duration duration = std::chrono::seconds(10);
  uint64_t request_count_max = UINT64_MAX;
  base::Duration warm_up{};
  base::Duration request_timeout = std::chrono::seconds(600);
  base::Duration drain_timeout = base::Duration::max();  // after the last start
  uint32_t workers = 1;
  uint64_t seed = 1;
  // What to send.
  workload::PromptSpec prompts;  // its seed is replaced by the one above
  workload::BodyOptions body;    // an empty model is asked from /v1/models
  std::string api_key;
  std::vector<std::string> headers;  // "Name: value"
  std::string ca_file;
  bool insecure_skip_verify = false;
  // What to look at.
  std::vector<WatchedProcess> watched;
};

base::Status Validate(const BenchOptions& options);

}  // namespace llmd::bench
