#include "main/cli.h"

#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/strings.h"
#include "config/document.h"
#include "telemetry/log.h"

namespace llmd {

void DeleteApp::operator()(CLI::App* app) const { std::default_delete<CLI::App>()(app); }

AppPtr NewApp(const std::string& description, const std::string& name) {
  return AppPtr(std::make_unique<CLI::App>(description, name).release());
}

CLI::App& AddSubcommand(CLI::App& app, const std::string& name, const std::string& help) {
  return *app.add_subcommand(name, help);
}

void AddDuration(CLI::App& app, const std::string& flag, base::Duration* value,
                 const std::string& help) {
  app.add_option_function<std::string>(
         flag,
         [value, flag](const std::string& text) {
           const auto ns = base::ParseGoDurationNs(text);
           if (!ns || *ns < 0) {
             throw CLI::ValidationError(flag, "expected a duration such as 30s or 1m30s, got \"" +
                                                  text + "\"");
           }
           *value = base::Duration(*ns);
         },
         help)
      ->type_name("DURATION")
      ->default_str(config::FormatGoDuration(value->count()));
}

void AddBytes(CLI::App& app, const std::string& flag, uint64_t* value, const std::string& help) {
  app.add_option_function<std::string>(
         flag,
         [value, flag](const std::string& text) {
           const auto bytes = config::ParseQuantity(text, true);
           if (!bytes || *bytes < 0) {
             throw CLI::ValidationError(
                 flag, "expected bytes such as 33554432, 32Mi or 1G, got \"" + text + "\"");
           }
           *value = static_cast<uint64_t>(*bytes);
         },
         help)
      ->type_name("BYTES");
}

namespace {

void AddLogFlags(CLI::App& app, gateway::GatewayOptions* o) {
  app.add_option("--access-log", o->access_log,
                 "file for access lines, - for stdout, \"\" for none")
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--log-format",
         [o](const std::string& format) {
           o->log_format = format == "json" ? telemetry::LogFormat::kJson
                                            : telemetry::LogFormat::kText;
         },
         "text or json, for log and access lines")
      ->check(CLI::IsMember({"text", "json"}))
      ->default_str("text");
  app.add_option_function<std::string>(
         "-v,--verbosity",
         [](const std::string& text) {
           const auto level = telemetry::ParseLogLevel(text);
           if (!level) throw CLI::ValidationError("-v", "expected 0..5 or a level's name");
           telemetry::SetLogLevel(*level);
         },
         "log level: 2 default, 3 verbose, 4 debug, 5 trace")
      ->default_str("2");
}

}  // namespace

void AddKvSnapshotFlags(CLI::App& app, control::HostOptions* o) {
  app.add_option("--kv-index-snapshot", o->kv_index_snapshot.file,
                 "file that keeps the index of KV blocks over a restart [none]");
  AddDuration(app, "--kv-index-snapshot-interval", &o->kv_index_snapshot.interval,
              "how often it is written, at least 1s; and once at the end");
  app.add_option("--kv-index-peer", o->kv_index_peer.from,
                 "HOST:PORT of a running picker that the index of KV blocks is had from at the "
                 "start; before the file, without it cold [none]");
  AddDuration(app, "--kv-index-peer-timeout", &o->kv_index_peer.timeout,
              "how long the start waits for it, all in all");
  app.add_option("--kv-index-peer-listen", o->kv_index_peer.listen,
                 "address at which pickers that start may have the index of KV blocks [none]");
  app.add_option("--kv-index-peer-cert-dir", o->kv_index_peer.cert_dir,
                 "folder of tls.crt, tls.key and ca.crt, by which pickers prove to one another "
                 "who they are [plain, for anybody]");
}

void AddGatewayFlags(CLI::App& app, gateway::GatewayOptions* o) {
  app.add_option("--listen", o->listen, "address for clients: :PORT, HOST:PORT or [V6]:PORT")
      ->capture_default_str();
  app.add_option_function<uint16_t>(
         "--metrics-port",
         [o](uint16_t port) {
           o->metrics_listen = o->metrics_listen.substr(0, o->metrics_listen.rfind(':') + 1) +
                               std::to_string(port);
         },
         "port of /metrics, /healthz, /readyz and /debug/*")
      ->default_str("9090");
  app.add_option_function<std::string>(
         "--metrics-address",
         [o](const std::string& address) {
           o->metrics_listen = address + o->metrics_listen.substr(o->metrics_listen.rfind(':'));
         },
         "address of the metrics port; 0.0.0.0 to be scraped from elsewhere")
      ->default_str("127.0.0.1");
  app.add_option("--config-file", o->config_file,
                 "EndpointPickerConfig (YAML); reloaded when it changes");
  app.add_option("--config-text", o->config_text, "the same document as a text");
  app.add_option("--objects-file", o->objects_file,
                 "InferenceObjective and InferenceModelRewrite manifests (YAML); reloaded");
  app.add_flag("--allow-experimental-plugins", o->allow_experimental_plugins,
               "let the config use plugins marked alpha");
  app.add_flag("--tracing", o->tracing, "emit traces, as the OTEL_* environment says [true]");
  app.add_option("--pool-name", o->pool_name, "value of the pool label in metrics")
      ->capture_default_str();
  AddDuration(app, "--refresh-metrics-interval", &o->refresh_metrics_interval,
              "how often each endpoint's metrics are read, at least 50ms");
  AddBytes(app, "--max-body-bytes", &o->max_body_bytes, "larger request bodies get 413 [32Mi]");
  AddBytes(
      app, "--kv-index-memory", &o->kv_index_bytes,
      "memory of the index that precise-prefix-cache-producer keeps, 30 to 40 million blocks a "
      "gigabyte [1Gi]");
  AddKvSnapshotFlags(app, o);
  AddBytes(app, "--memory-budget", &o->memory_budget_bytes,
           "for bodies held for a decision or a retry, which workers take in steps of up to 4 MiB; "
           "over it 429 [a quarter of the memory limit]");
  app.add_option("--workers", o->workers, "worker threads; 0: one per CPU")->capture_default_str();
  AddDuration(app, "--drain-timeout", &o->drain_timeout,
              "how long SIGTERM waits for requests under way");
  AddDuration(app, "--header-timeout", &o->header_timeout, "for a request head to arrive");
  AddDuration(app, "--body-timeout", &o->body_timeout, "between two reads of a request body");
  AddDuration(app, "--idle-timeout", &o->idle_timeout, "for a client connection without a request");
  AddDuration(app, "--connect-timeout", &o->connect_timeout, "for connecting to an endpoint");
  AddDuration(app, "--response-timeout", &o->response_timeout,
              "for an endpoint's reply to begin, and between two reads of it");
  app.add_option("--tls-cert", o->tls_cert, "PEM certificate chain; with --tls-key serves HTTPS");
  app.add_option("--tls-key", o->tls_key, "PEM key; both files are reloaded when they change");
  app.add_flag("--engine-tls", o->engine_tls, "endpoints speak HTTPS");
  app.add_option("--engine-ca-file", o->engine_ca_file,
                 "PEM CA bundle that endpoints are verified with [the system's]");
  app.add_flag("--engine-insecure-skip-verify", o->engine_insecure_skip_verify,
               "do not verify endpoints");
  app.add_option("--engine-header", o->engine_header,
                 "'Name: value' added to requests to endpoints; 'Name: @FILE' reads the value");
  app.add_option("--api-key-file", o->api_key_file,
                 "lines of NAME SHA256HEX; clients then need Authorization: Bearer KEY");
  AddLogFlags(app, o);
}

ServeOptions ServeOptionsOf(const gateway::GatewayOptions& options) {
  return {.access_log = options.access_log,
          .log_format = options.log_format,
          .drain_timeout = options.drain_timeout};
}

int ParseFlags(CLI::App& app, int argc, char** argv) {
  app.get_formatter()->column_width(40);
  app.failure_message(CLI::FailureMessage::simple);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = app.exit(error);
    return status == 0 ? 0 : 2;
  }
  return -1;
}

int Fail(std::string_view command, const base::Status& status) {
  std::fprintf(stderr, "llmd %.*s: %.*s\n", static_cast<int>(command.size()), command.data(),
               static_cast<int>(status.message().size()), status.message().data());
  return 1;
}

}  // namespace llmd
