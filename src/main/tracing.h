// What the OTEL_* environment says of traces. This is the only place that reads it.
//
// Off unless an OTLP endpoint is set or OTEL_TRACES_EXPORTER is "otlp"; then as OpenTelemetry
// specifies (opentelemetry.io/docs/specs/otel: sdk-environment-variables, protocol/exporter), with
// upstream's defaults: parentbased_traceidratio, .1, and a plaintext collector on localhost:4317
// when nothing says where it is. What cannot be understood is a warning and leaves traces off or
// the default in force: an environment is often set from outside, for many programs.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "control/otlp_exporter.h"

namespace llmd {

// The value of a variable, or nullptr.
using Environment = std::function<const char*(const char* name)>;

// nullptr: no traces. `service` is the service.name where the environment names none.
std::shared_ptr<const control::TracingOptions> ReadTracing(const Environment& environment,
                                                           std::string_view service,
                                                           std::vector<std::string>* warnings);

// The same of this process; warnings go to the log.
std::shared_ptr<const control::TracingOptions> TracingFromEnvironment(std::string_view service);

}  // namespace llmd
