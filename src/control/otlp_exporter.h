// OtlpExporter: sends what the workers' Tracer holds to an OpenTelemetry collector, batch by batch,
// over gRPC or HTTP.
//
// One export is under way at a time. A batch that fails for a reason that may pass (OTLP's list: no
// connection, no answer in time, UNAVAILABLE and the like, HTTP 429, 502, 503, 504) is sent again
// after a growing pause, kGiveUp long at most; other failures end it. Meanwhile the Tracer's queue
// fills and then drops: a collector that is away costs bounded memory and no request.
//
// Thread safety: belongs to the control loop; the Tracer is shared. Resolver and tracer outlive it.
// Format: OTLP 1.x, OTLP/gRPC and OTLP/HTTP with binary protobuf
// (opentelemetry.io/docs/specs/otlp).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/time.h"
#include "net/resolver.h"
#include "runtime/loop.h"
#include "telemetry/trace.h"

namespace llmd::control {

struct OtlpOptions {
  enum class Protocol : uint8_t { kGrpc, kHttpProtobuf } protocol = Protocol::kGrpc;
  std::string host = "localhost";
  uint16_t port = 4317;
  std::string path = "/v1/traces";  // of HTTP
  bool tls = false;
  std::string ca_file;                     // PEM; "": the system's
  std::string certificate_file, key_file;  // of a client certificate; both or none
  std::vector<std::pair<std::string, std::string>> headers;   // names in lower case
  std::vector<std::pair<std::string, std::string>> resource;  // attributes: service.name and so on
  base::Duration timeout = std::chrono::seconds(10);          // of one attempt
  base::Duration interval = std::chrono::seconds(1);          // how long spans wait for company
  size_t batch_spans_max = 512;
};

// What a process with traces has.
struct TracingOptions {
  telemetry::TracerOptions tracer;
  OtlpOptions exporter;
};

// Own headers of an export; gRPC's channel takes 32 of a call.
inline constexpr size_t kOtlpHeadersMax = 24;

class OtlpExporter {
 public:
  static constexpr base::Duration kFirstPause = std::chrono::seconds(1);
  static constexpr base::Duration kLongestPause = std::chrono::seconds(30);
  static constexpr base::Duration kGiveUp = std::chrono::seconds(60);

  // Errors: files of certificates that cannot be used. `seed` spreads the pauses of many replicas.
  static base::Result<std::unique_ptr<OtlpExporter>> Create(runtime::EventLoop& loop,
                                                            net::Resolver& resolver,
                                                            telemetry::Tracer& tracer,
                                                            OtlpOptions options, uint64_t seed);
  ~OtlpExporter();  // what is under way is given up
  OtlpExporter(const OtlpExporter&) = delete;
  OtlpExporter& operator=(const OtlpExporter&) = delete;

  // Sends all that waits now, without pauses; `done` is called when nothing is left or the first
  // batch failed.
  void Flush(std::move_only_function<void()> done);

 private:
  class Impl;
  explicit OtlpExporter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::control
