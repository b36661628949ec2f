#include "main/tracing.h"

#include <cstdlib>
#include <optional>
#include <utility>

#include "base/strings.h"
#include "runtime/socket.h"
#include "telemetry/log.h"
#include "wire/http1.h"

namespace llmd {
namespace {

using base::Concat;
using control::OtlpOptions;
using Pairs = std::vector<std::pair<std::string, std::string>>;

constexpr double kDefaultRatio = 0.1;

// Reads variables; one that is empty counts as not set.
class Reader {
 public:
  Reader(const Environment& environment, std::vector<std::string>* warnings)
      : environment_(environment), warnings_(warnings) {}

  std::string Get(const std::string& name) const {
    const char* value = environment_(name.c_str());
    return value ? std::string(base::Trim(value)) : "";
  }
  // Of OTEL_EXPORTER_OTLP_TRACES_`name`, else of OTEL_EXPORTER_OTLP_`name`.
  std::string Otlp(std::string_view name) const {
    std::string value = Get(Concat("OTEL_EXPORTER_OTLP_TRACES_", name));
    return value.empty() ? Get(Concat("OTEL_EXPORTER_OTLP_", name)) : value;
  }
  std::optional<int64_t> Positive(const std::string& name, const std::string& value) {
    if (value.empty()) return std::nullopt;
    const auto number = base::ParseInt(value);
    if (number && *number > 0) return number;
    Warn(Concat(name, ": \"", value, "\" is no positive number"));
    return std::nullopt;
  }
  void Warn(std::string text) { warnings_->push_back(std::move(text)); }

 private:
  const Environment& environment_;
  std::vector<std::string>* const warnings_;
};

std::optional<std::string> PercentDecoded(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const std::string digits = base::ToLower(text.substr(i + 1, 2));
    const size_t high = kDigits.find(digits[0]), low = kDigits.find(digits[1]);
    if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
    out += static_cast<char>(high << 4 | low);
    i += 2;
  }
  return out;
}

// "key=value,key=value", both percent-encoded where they have to be.
Pairs ReadPairs(std::string_view name, std::string_view text, Reader* reader) {
  Pairs pairs;
  if (text.empty()) return pairs;
  for (const std::string_view entry : base::Split(text, ',')) {
    if (base::Trim(entry).empty()) continue;
    const size_t equals = entry.find('=');
    const auto key = PercentDecoded(base::Trim(entry.substr(0, equals)));
    const auto value = equals == std::string_view::npos
                           ? std::nullopt
                           : PercentDecoded(base::Trim(entry.substr(equals + 1)));
    if (!key || !value || key->empty()) {
      reader->Warn(Concat(name, ": \"", entry, "\" is not key=value"));
      continue;
    }
    pairs.emplace_back(*key, *value);
  }
  return pairs;
}

void Set(Pairs* pairs, std::string_view key, std::string value) {
  for (auto& [name, old] : *pairs) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  pairs->emplace_back(key, std::move(value));
}

telemetry::TraceSampler ReadSampler(Reader* reader) {
  using telemetry::TraceSampler;
  const std::string name = reader->Get("OTEL_TRACES_SAMPLER");
  const std::string argument = reader->Get("OTEL_TRACES_SAMPLER_ARG");
  double ratio = kDefaultRatio;
  if (!argument.empty()) {
    const auto given = base::ParseDouble(argument);
    if (given && *given >= 0 && *given <= 1) {
      ratio = *given;
    } else {
      reader->Warn(Concat("OTEL_TRACES_SAMPLER_ARG: \"", argument, "\" is not within 0 and 1"));
    }
  }
  if (name.empty() || name == "parentbased_traceidratio") return TraceSampler::Ratio(ratio, true);
  if (name == "traceidratio") return TraceSampler::Ratio(ratio, false);
  if (name == "always_on") return TraceSampler::Ratio(1, false);
  if (name == "always_off") return TraceSampler::Ratio(0, false);
  if (name == "parentbased_always_on") return TraceSampler::Ratio(1, true);
  if (name == "parentbased_always_off") return TraceSampler::Ratio(0, true);
  reader->Warn(Concat("OTEL_TRACES_SAMPLER: \"", name,
                      "\" is not known; parentbased_traceidratio with .1 is used"));
  return TraceSampler::Ratio(kDefaultRatio, true);
}

// "http://host:4317", "https://host:4318/path", "host:4317". False: it is none.
bool ReadEndpoint(std::string_view text, bool plain_without_scheme, OtlpOptions* options) {
  options->tls = !plain_without_scheme;
  const size_t scheme = text.find("://");
  if (scheme != std::string_view::npos) {
    const std::string name = base::ToLower(text.substr(0, scheme));
    if (name != "http" && name != "https") return false;
    options->tls = name == "https";
    text.remove_prefix(scheme + 3);
  }
  const size_t slash = text.find('/');
  options->path = slash == std::string_view::npos ? "" : std::string(text.substr(slash));
  std::string authority(text.substr(0, slash));
  if (authority.empty() || authority.find('@') != std::string::npos) return false;
  // The port behind the brackets of an IPv6 address.
  if (authority.find(':', authority.starts_with('[') ? authority.find(']') + 1 : 0) ==
      std::string::npos) {
    authority += Concat(":", std::to_string(options->port));
  }
  const auto host_port = runtime::SplitHostPort(authority);
  if (!host_port || host_port->host.empty() || host_port->port == 0) return false;
  options->host = host_port->host;
  options->port = host_port->port;
  return true;
}

// Where to, and how.
bool ReadTransport(Reader* reader, OtlpOptions* options) {
  const std::string protocol = reader->Otlp("PROTOCOL");
  if (protocol == "http/protobuf") {
    options->protocol = OtlpOptions::Protocol::kHttpProtobuf;
    options->port = 4318;
  } else if (!protocol.empty() && protocol != "grpc") {
    reader->Warn(Concat("OTEL_EXPORTER_OTLP_PROTOCOL: \"", protocol,
                        "\" is not built (grpc and http/protobuf are): no traces"));
    return false;
  }
  const std::string own = reader->Get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
  const std::string endpoint = own.empty() ? reader->Get("OTEL_EXPORTER_OTLP_ENDPOINT") : own;
  const std::string insecure = reader->Otlp("INSECURE");
  options->ca_file = reader->Otlp("CERTIFICATE");
  options->certificate_file = reader->Otlp("CLIENT_CERTIFICATE");
  options->key_file = reader->Otlp("CLIENT_KEY");
  if (endpoint.empty()) {
    options->tls = !options->ca_file.empty() ||
                   (!insecure.empty() && !base::EqualsIgnoreCase(insecure, "true"));
    return true;
  }
  if (!ReadEndpoint(endpoint, base::EqualsIgnoreCase(insecure, "true"), options)) {
    reader->Warn(Concat("OTEL_EXPORTER_OTLP_ENDPOINT: \"", endpoint,
                        "\" is not http://HOST:PORT or https://HOST:PORT: no traces"));
    return false;
  }
  // The endpoint for all signals is a base; the one for traces is meant as it is.
  while (own.empty() && options->path.ends_with('/')) options->path.pop_back();
  if (own.empty()) options->path += "/v1/traces";
  if (options->path.empty()) options->path = "/";
  return true;
}

void ReadLimits(Reader* reader, control::TracingOptions* tracing) {
  using std::chrono::milliseconds;
  OtlpOptions& exporter = tracing->exporter;
  if (const auto ms = reader->Positive("OTEL_EXPORTER_OTLP_TIMEOUT", reader->Otlp("TIMEOUT"))) {
    exporter.timeout = milliseconds(*ms);
  }
  const auto positive = [&](const std::string& name) {
    return reader->Positive(name, reader->Get(name));
  };
  if (const auto ms = positive("OTEL_BSP_SCHEDULE_DELAY")) exporter.interval = milliseconds(*ms);
  if (const auto spans = positive("OTEL_BSP_MAX_EXPORT_BATCH_SIZE")) {
    exporter.batch_spans_max = static_cast<size_t>(*spans);
  }
  if (const auto spans = positive("OTEL_BSP_MAX_QUEUE_SIZE")) {
    tracing->tracer.queue_spans_max = static_cast<size_t>(*spans);
  }
}

void ReadHeaders(Reader* reader, OtlpOptions* options) {
  for (auto& [name, value] :
       ReadPairs("OTEL_EXPORTER_OTLP_HEADERS", reader->Otlp("HEADERS"), reader)) {
    const bool fits = options->headers.size() < control::kOtlpHeadersMax &&
                      wire::IsHttpToken(name) && wire::IsHttpFieldValue(value);
    if (!fits) {
      reader->Warn(Concat("OTEL_EXPORTER_OTLP_HEADERS: \"", name, "\" cannot be sent"));
      continue;
    }
    options->headers.emplace_back(base::ToLower(name), std::move(value));
  }
  if (!reader->Otlp("COMPRESSION").empty() && reader->Otlp("COMPRESSION") != "none") {
    reader->Warn("OTEL_EXPORTER_OTLP_COMPRESSION: traces are sent uncompressed");
  }
}

bool WantsTraces(Reader* reader) {
  if (base::EqualsIgnoreCase(reader->Get("OTEL_SDK_DISABLED"), "true")) return false;
  const std::string exporter = reader->Get("OTEL_TRACES_EXPORTER");
  if (exporter.empty()) return !reader->Otlp("ENDPOINT").empty();
  if (exporter == "otlp") return true;
  if (exporter != "none") {
    reader->Warn(Concat("OTEL_TRACES_EXPORTER: \"", exporter,
                        "\" is not built (otlp and none are): no traces"));
  }
  return false;
}

}  // namespace

std::shared_ptr<const control::TracingOptions> ReadTracing(const Environment& environment,
                                                           std::string_view service,
                                                           std::vector<std::string>* warnings) {
  Reader reader(environment, warnings);
  if (!WantsTraces(&reader)) return nullptr;
  auto tracing = std::make_shared<control::TracingOptions>();
  if (!ReadTransport(&reader, &tracing->exporter)) return nullptr;
  tracing->tracer.sampler = ReadSampler(&reader);
  ReadLimits(&reader, tracing.get());
  ReadHeaders(&reader, &tracing->exporter);
  Pairs& resource = tracing->exporter.resource;
  resource.emplace_back("service.name", service);
  for (auto& [key, value] : ReadPairs("OTEL_RESOURCE_ATTRIBUTES",
                                      reader.Get("OTEL_RESOURCE_ATTRIBUTES"), &reader)) {
    Set(&resource, key, std::move(value));
  }
  if (std::string name = reader.Get("OTEL_SERVICE_NAME"); !name.empty()) {
    Set(&resource, "service.name", std::move(name));
  }
  return tracing;
}

std::shared_ptr<const control::TracingOptions> TracingFromEnvironment(std::string_view service) {
  std::vector<std::string> warnings;
  auto tracing =
      ReadTracing([](const char* name) { return std::getenv(name); }, service, &warnings);
  for (const std::string& warning : warnings) LLMD_LOG(kWarn, "tracing", {"warning", warning});
  return tracing;
}

}  // namespace llmd
