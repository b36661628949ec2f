#include "main/epp_flags.h"

#include <CLI/CLI.hpp>

#include "base/strings.h"
#include "config/document.h"
#include "main/cli.h"
#include "telemetry/log.h"

namespace llmd {
namespace {

using base::Concat;
using base::InvalidArgument;

constexpr size_t kTargetPortsMax = 8;

// Superseded by engineConfigs; upstream still knows the names in order to refuse them.
constexpr const char* kRemoved[] = {
    "total-queued-requests-metric", "total-running-requests-metric",
    "kv-cache-usage-percentage-metric", "lora-info-metric", "cache-info-metric"};

void AddRemoved(CLI::App& app) {
  for (const char* name : kRemoved) {
    app.add_option_function<std::string>(
           Concat("--", name),
           [name](const std::string&) {
             throw CLI::ValidationError(
                 Concat("flag \"", name, "\" is deprecated and cannot be used; configure metrics "
                        "via engineConfigs in EndpointPickerConfig instead"));
           },
           "removed")
        ->group("");
  }
}

void AddServing(CLI::App& app, EppFlags* f) {
  epp::EppOptions& o = f->options;
  app.add_option("--grpc-port", f->grpc_port, "ext_proc port, for Envoy")->capture_default_str();
  app.add_option("--grpc-health-port", f->health_port, "port of grpc.health.v1.Health")
      ->capture_default_str();
  app.add_flag("--health-checking", o.health_checking,
               "answer health checks on the ext_proc port too");
  app.add_option("--grpc-max-recv-msg-size", f->max_recv,
                 "largest gRPC message received, such as 10MiB [bounded by --memory-budget]");
  app.add_option("--grpc-max-send-msg-size", f->max_send,
                 "accepted; messages sent are of at most 62,000 body bytes");
  app.add_flag("--secure-serving", o.secure_serving,
               "serve ext_proc with TLS [true]");
  app.add_option("--cert-path", o.cert_path,
                 "folder of tls.crt and tls.key [a self-signed certificate]");
  app.add_flag("--enable-cert-reload", o.enable_cert_reload, "reload them when they change");
  app.add_option("--tls-min-version", o.tls_min_version, "VersionTLS12 or VersionTLS13");
  app.add_option("--tls-cipher-suites", o.tls_cipher_suites,
                 "Go names, comma-separated, for TLS 1.2")
      ->delimiter(',');
  AddDuration(app, "--drain-timeout", &o.drain_timeout,
              "how long SIGTERM waits for requests under way");
  app.add_option("--workers", o.workers, "worker threads; 0: one per CPU")->capture_default_str();
  AddBytes(
      app, "--kv-index-memory", &o.kv_index_bytes,
      "memory of the index that precise-prefix-cache-producer keeps, 30 to 40 million blocks a "
      "gigabyte [1Gi]");
  AddKvSnapshotFlags(app, &o);
  AddBytes(app, "--memory-budget", &o.memory_budget_bytes,
           "for request bodies held, which workers take in steps of up to 4 MiB; over it 429 "
           "[a quarter of the memory limit]");
}

void AddDecision(CLI::App& app, EppFlags* f) {
  epp::EppOptions& o = f->options;
  app.add_option("--config-file", o.config_file,
                 "EndpointPickerConfig (YAML); reloaded when it changes");
  app.add_option("--config-text", o.config_text, "the same document as a text");
  app.add_option("--objects-file", o.objects_file,
                 "InferenceObjective and InferenceModelRewrite manifests (YAML); reloaded");
  app.add_flag("--allow-experimental-plugins", o.allow_experimental_plugins,
               "let the config use plugins marked alpha");
  app.add_flag("--disable-endpoint-subset-filter", o.disable_endpoint_subset_filter,
               "ignore the proxy's subset hint");
  app.add_flag("--emit-endpoint-scores", o.emit_endpoint_scores,
               "put the scores into the request's dynamic metadata");
  app.add_option("--fallback-endpoints", o.fallback_endpoints,
                 "endpoints in every answer, best first; more than 1 needs a proxy that takes a "
                 "list (Envoy: override_host policy)")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--error-format",
         [&o](const std::string& format) {
           o.error_format = format == "text" ? epp::ErrorFormat::kText : epp::ErrorFormat::kJson;
         },
         "json: OpenAI error bodies; text: as upstream writes them")
      ->check(CLI::IsMember({"json", "text"}))
      ->default_str("json");
  app.add_flag("--check", f->check,
               "check the configuration, print the effective one and its profiles, and stop");
}

void AddKubernetes(CLI::App& app, EppKubernetesFlags* k) {
  app.add_option("--pool-name", k->pool_name, "InferencePool; the pool label of metrics");
  app.add_option("--pool-namespace", k->pool_namespace, "its namespace")->envname("NAMESPACE");
  app.add_option("--pool-group", k->pool_group, "its API group")->capture_default_str();
  app.add_option("--endpoint-selector", k->endpoint_selector,
                 "label selector of pods, in place of a pool");
  app.add_option("--endpoint-target-ports", k->endpoint_target_ports, "their ports, 1 to 8")
      ->delimiter(',');
  app.add_flag("--ha-enable-leader-election", k->leader_election,
               "only the leader reports ready");
}

void AddMetrics(CLI::App& app, EppFlags* f) {
  epp::EppOptions& o = f->options;
  app.add_option("--metrics-port", f->metrics_port, "port of /metrics and /debug/*")
      ->capture_default_str();
  app.add_flag_function(
         "--metrics-endpoint-auth",
         [f](int64_t count) {
           f->metrics_endpoint_auth = count > 0;
           f->metrics_endpoint_auth_given = true;
         },
         "false: serve metrics to everyone; default: on loopback only")
      ->default_str("");
  app.add_option("--metrics-cert-dir", o.metrics_cert_dir,
                 "folder of tls.crt and tls.key for the metrics port");
  app.add_option("--metrics-client-ca-file", o.metrics_client_ca_file,
                 "PEM CA that metrics clients must be certified by");
  AddDuration(app, "--refresh-metrics-interval", &o.refresh_metrics_interval,
              "how often each endpoint's metrics are read, at least 50ms");
  AddDuration(app, "--metrics-staleness-threshold", &o.metrics_staleness_threshold,
              "older numbers of an endpoint are left out of the pool's gauges");
  app.add_option_function<std::string>(
         "--refresh-prometheus-metrics-interval", [](const std::string&) {},
         "accepted; pool gauges are computed when they are scraped")
      ->type_name("DURATION");
  app.add_flag("--enable-grpc-stream-metrics", o.enable_grpc_stream_metrics,
               "metrics of ext_proc streams: open, duration, endings");
  app.add_flag_function(
      "--enable-pprof", [](int64_t) {}, "accepted; there are no Go profiles (use perf)");
  app.add_flag("--tracing", o.tracing, "emit traces, as the OTEL_* environment says [true]");
}

void AddLogs(CLI::App& app, EppFlags* f) {
  app.add_option("-v,--v", f->verbosity, "log level: 2 default, 3 verbose, 4 debug, 5 trace")
      ->capture_default_str();
  app.add_option("--zap-encoder", f->zap_encoder, "json or console")
      ->check(CLI::IsMember({"json", "console"}));
  app.add_option("--zap-log-level", f->zap_log_level,
                 "debug, info, error, panic or a number; goes before -v");
  app.add_flag_function("--zap-devel", [](int64_t) {}, "accepted");
  app.add_option_function<std::string>(
      "--zap-stacktrace-level", [](const std::string&) {}, "accepted; there are no stack traces");
  app.add_option_function<std::string>(
      "--zap-time-encoding", [](const std::string&) {}, "accepted; times are RFC 3339");
  app.add_option("--access-log", f->options.access_log,
                 "file for a line per request, - for stdout [none]");
}

base::Result<uint64_t> MessageBytes(const std::string& text, std::string_view flag) {
  if (text.empty()) return 0;
  std::string_view number = base::Trim(text);
  if (number.size() > 1 && (number.back() == 'B' || number.back() == 'b')) number.remove_suffix(1);
  const auto bytes = config::ParseQuantity(number, true);
  if (!bytes || *bytes < 0) {
    return std::unexpected(
        InvalidArgument(Concat("--", flag, ": expected bytes such as 10MiB, got \"", text, "\"")));
  }
  return static_cast<uint64_t>(*bytes);
}

base::Status CheckKubernetes(const EppFlags& flags) {
  const EppKubernetesFlags& k = flags.kubernetes;
  if (!k.pool_name.empty() && !k.endpoint_selector.empty()) {
    return InvalidArgument("--pool-name and --endpoint-selector: give one of them");
  }
  if (!k.endpoint_selector.empty()) {
    const size_t ports = k.endpoint_target_ports.size();
    if (ports == 0 || ports > kTargetPortsMax) {
      return InvalidArgument("--endpoint-target-ports: 1 to 8 ports go with --endpoint-selector");
    }
    for (const int port : k.endpoint_target_ports) {
      if (port < 1 || port > 65535) {
        return InvalidArgument(
            Concat("--endpoint-target-ports: ", std::to_string(port), " is not a port"));
      }
    }
    return base::Unimplemented(
        "--endpoint-selector reads pods from Kubernetes, which is not built yet; use the "
        "file-discovery plugin");
  }
  if (k.leader_election) {
    return base::Unimplemented(
        "--ha-enable-leader-election needs Kubernetes, which is not built yet; leave it off: "
        "every replica serves");
  }
  return base::OkStatus();
}

base::Status CompleteMetrics(EppFlags* flags) {
  epp::EppOptions& o = flags->options;
  if (!o.metrics_client_ca_file.empty() && o.metrics_cert_dir.empty()) {
    return InvalidArgument("\"metrics-client-ca-file\" requires \"metrics-cert-dir\"");
  }
  if (flags->metrics_endpoint_auth && flags->metrics_endpoint_auth_given) {
    return base::Unimplemented(
        "--metrics-endpoint-auth=true asks the Kubernetes API who may read metrics, which is not "
        "built yet; give false, or leave it out to serve metrics on loopback only");
  }
  const bool everyone = !flags->metrics_endpoint_auth || !o.metrics_client_ca_file.empty();
  o.metrics_listen =
      Concat(everyone ? ":" : "127.0.0.1:", std::to_string(flags->metrics_port));
  if (!everyone && !flags->check) {
    LLMD_LOG(kInfo,
             "metrics are served on loopback only; --metrics-endpoint-auth=false opens them");
  }
  return base::OkStatus();
}

base::Status CompleteLogs(EppFlags* flags) {
  std::string level = std::to_string(std::max(flags->verbosity, 0));
  if (const std::string& zap = flags->zap_log_level; !zap.empty()) {
    level = zap == "info" ? "2" : zap == "panic" ? "error" : zap == "debug" ? "4" : zap;
  }
  const auto parsed = telemetry::ParseLogLevel(level);
  if (!parsed && base::ParseInt(level).value_or(-1) <= 5) {
    return InvalidArgument(Concat("--zap-log-level: unknown level \"", level, "\""));
  }
  telemetry::SetLogLevel(parsed.value_or(telemetry::LogLevel::kTrace));
  if (flags->zap_encoder == "json") flags->options.log_format = telemetry::LogFormat::kJson;
  return base::OkStatus();
}

}  // namespace

void AddEppFlags(CLI::App& app, EppFlags* flags) {
  // As with Go's flags the last one wins.
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  AddServing(app, flags);
  AddDecision(app, flags);
  AddKubernetes(app, &flags->kubernetes);
  AddMetrics(app, flags);
  AddLogs(app, flags);
  AddRemoved(app);
}

base::Status CompleteEppFlags(EppFlags* flags) {
  epp::EppOptions& o = flags->options;
  LLMD_RETURN_IF_ERROR(CompleteLogs(flags));
  if (!o.config_file.empty() && !o.config_text.empty()) {
    return InvalidArgument(
        "both the \"config-file\" and \"config-text\" flags cannot be set at the same time");
  }
  LLMD_RETURN_IF_ERROR(CheckKubernetes(*flags));
  LLMD_RETURN_IF_ERROR(CompleteMetrics(flags));
  LLMD_ASSIGN_OR_RETURN(o.message_bytes_max,
                        MessageBytes(flags->max_recv, "grpc-max-recv-msg-size"));
  if (auto sent = MessageBytes(flags->max_send, "grpc-max-send-msg-size"); !sent) {
    return sent.error();
  }
  for (const int port : {flags->grpc_port, flags->health_port, flags->metrics_port}) {
    if (port < 0 || port > 65535) {
      return InvalidArgument(Concat(std::to_string(port), " is not a port"));
    }
  }
  o.listen = Concat(":", std::to_string(flags->grpc_port));
  o.health_listen = Concat(":", std::to_string(flags->health_port));
  if (!flags->kubernetes.pool_name.empty()) o.pool_name = flags->kubernetes.pool_name;
  return base::OkStatus();
}

}  // namespace llmd
