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
// A picker's and its client's patience: 1,024 connections are more than any Envoy has workers.
inline constexpr uint32_t kExtProcConnectionsMax = 1024;
// A response of 200 MB.
inline constexpr uint32_t kResponseChunksMax = 1 << 20;

// Processes whose cost is added up under one name (nginx: master and workers).
struct WatchedProcess {
  std::string name;
  std::vector<int> pids;
};
// "name=pid[,pid...]".
base::Result<WatchedProcess> ParseWatchedProcess(const std::string& text);

// What of a response is sent to a picker.
enum class ExtProcResponse : uint8_t {
  kNone,     // the stream ends with the request, as when a client leaves
  kHeaders,  // `response_body_mode: NONE`
  kBody,     // `response_body_mode: FULL_DUPLEX_STREAMED`
};

// Playing Envoy to an endpoint picker instead of sending HTTP requests.
struct ExtProcOptions {
  std::string target;  // HOST:PORT; "": HTTP requests to the URLs
  bool tls = false;
  // Envoy opens about one per worker of its own.
  uint32_t connections = 2;
  ExtProcResponse response = ExtProcResponse::kBody;
  uint32_t response_chunks = 100;   // of a streamed response
  uint32_t chunk_window = 1;        // chunks of a stream that may wait for their echo
  base::Duration chunk_interval{};  // from chunk to chunk, as an engine's tokens come; 0: at once
};

struct BenchOptions {
  std::vector<std::string> urls;  // requests take turns
  ExtProcOptions ext_proc;
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
