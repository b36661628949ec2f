#include "bench/options.h"

#include "base/strings.h"
#include "nlohmann/json.hpp"
#include "wire/http1.h"

namespace llmd::bench {
namespace {

base::Status CheckHeader(const std::string& header) {
  const size_t colon = header.find(':');
  if (colon == std::string::npos || !wire::IsHttpToken(header.substr(0, colon)) ||
      !wire::IsHttpFieldValue(header.substr(colon + 1))) {
    return base::InvalidArgument(base::Concat("header \"", header, "\": expected \"Name: value\""));
  }
  const wire::HttpFieldId id = wire::HttpFieldIdOf(header.substr(0, colon));
  if (id == wire::HttpFieldId::kContentLength || id == wire::HttpFieldId::kTransferEncoding ||
      id == wire::HttpFieldId::kConnection || id == wire::HttpFieldId::kHost) {
    return base::InvalidArgument(
        base::Concat("header \"", header, "\": this field is the generator's own"));
  }
  return {};
}

base::Status CheckLoad(const BenchOptions& options) {
  if (options.arrival != workload::Arrival::kClosedLoop) {
    if (!(options.rate > 0) || options.rate > 1e7) {
      return base::InvalidArgument("--rate: requests per second, above 0 and at most 10 million");
    }
    if (options.in_flight_max == 0 || options.in_flight_max > kInFlightMax) {
      return base::InvalidArgument("--max-in-flight: from 1 to 65535");
    }
  } else if (options.concurrency == 0 || options.concurrency > kInFlightMax) {
    return base::InvalidArgument("--concurrency: from 1 to 65535");
  }
  if (options.workers == 0 || options.workers > kWorkersMax) {
    return base::InvalidArgument("--workers: from 1 to 256");
  }
  if (options.request_count_max == 0) return base::InvalidArgument("--requests: at least 1");
  if (options.duration.count() <= 0) return base::InvalidArgument("--duration: above 0");
  return {};
}

base::Status CheckExtProc(const ExtProcOptions& options) {
  if (options.connections == 0 || options.connections > kExtProcConnectionsMax) {
    return base::InvalidArgument("--connections: from 1 to 1024");
  }
  if (options.response_chunks == 0 || options.response_chunks > kResponseChunksMax) {
    return base::InvalidArgument("--response-chunks: from 1 to 1048576");
  }
  if (options.chunk_window == 0) return base::InvalidArgument("--chunk-window: at least 1");
  if (options.chunk_interval.count() < 0) {
    return base::InvalidArgument("--chunk-interval: 0 or more");
  }
  return {};
}

}  // namespace

base::Result<WatchedProcess> ParseWatchedProcess(const std::string& text) {
  const size_t equals = text.find('=');
  WatchedProcess process;
  if (equals != std::string::npos && equals > 0) {
    process.name = text.substr(0, equals);
    for (const std::string_view field :
         base::Split(std::string_view(text).substr(equals + 1), ',')) {
      const auto pid = base::ParseInt(field);
      if (!pid || *pid <= 0 || *pid > INT32_MAX) {
        process.pids.clear();
        break;
      }
      process.pids.push_back(static_cast<int>(*pid));
    }
  }
  if (process.pids.empty()) {
    return std::unexpected(
        base::InvalidArgument(base::Concat("watched process \"", text,
                                           "\": expected NAME=PID or NAME=PID,PID,... "
                                           "(several are added up)")));
  }
  return process;
}

base::Status Validate(const BenchOptions& options) {
  if (options.urls.empty() == options.ext_proc.target.empty()) {
    return base::InvalidArgument(
        options.urls.empty()
            ? "no target: give a URL such as http://127.0.0.1:8080, or a picker with --ext-proc"
            : "a URL and --ext-proc exclude each other");
  }
  LLMD_RETURN_IF_ERROR(CheckExtProc(options.ext_proc));
  LLMD_RETURN_IF_ERROR(CheckLoad(options));
  for (const std::string& header : options.headers) LLMD_RETURN_IF_ERROR(CheckHeader(header));
  if (!wire::IsHttpFieldValue(options.api_key)) {
    return base::InvalidArgument("the API key holds bytes that no header may hold");
  }
  if (!options.body.extra_members.empty() &&
      !nlohmann::json::accept("{" + options.body.extra_members + "}")) {
    return base::InvalidArgument("--extra-body: expected a JSON object");
  }
  return {};
}

}  // namespace llmd::bench
