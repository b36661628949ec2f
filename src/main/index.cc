#include <CLI/CLI.hpp>

#include "index/index_service.h"
#include "main/cli.h"
#include "main/commands.h"
#include "main/serve.h"
#include "telemetry/log.h"

namespace llmd {
namespace {

void AddFlags(CLI::App& app, index::IndexOptions* o) {
  app.add_option("--config-file", o->config_file,
                 "EndpointPickerConfig (YAML) with a precise-prefix-cache-producer; reloaded")
      ->required();
  app.add_option("--endpoints", o->endpoints,
                 "host:port,... of the model servers, in place of the config's discovery")
      ->delimiter(',');
  app.add_option("--listen", o->listen, "address for HTTP: :PORT, HOST:PORT or [V6]:PORT")
      ->capture_default_str();
  app.add_option("--grpc-listen", o->grpc_listen, "address for gRPC (indexer.v1)")
      ->capture_default_str();
  app.add_option("--metrics-listen", o->metrics_listen, "address of /metrics, /readyz, /debug/*")
      ->capture_default_str();
  app.add_option("--tokenizer", o->tokenizer_dir,
                 "folder with the model's tokenizer.json, for prompts as text");
  app.add_option("--tls-cert", o->tls_cert,
                 "PEM certificate chain; with --tls-key both ports speak TLS");
  app.add_option("--tls-key", o->tls_key, "PEM key; both files are reloaded when they change");
  app.add_option("--api-key-file", o->api_key_file,
                 "lines of NAME SHA256HEX; clients then need Authorization: Bearer KEY");
  AddBytes(app, "--kv-index-memory", &o->kv_index_bytes, "for the index of KV blocks [1Gi]");
  AddKvSnapshotFlags(app, o);
  AddBytes(app, "--max-body-bytes", &o->max_body_bytes, "larger queries get 413 [32Mi]");
  AddBytes(app, "--memory-budget", &o->memory_budget_bytes,
           "for queries held; over it 429 [a quarter of the memory limit]");
  app.add_option("--workers", o->workers, "worker threads; 0: one per CPU")->capture_default_str();
  AddDuration(app, "--drain-timeout", &o->drain_timeout,
              "how long SIGTERM waits for queries under way");
}

}  // namespace

int IndexMain(int argc, char** argv, const plugin::Catalogue& catalogue) {
  const AppPtr app_ptr = NewApp(
      "The index of KV blocks as a service: which model server holds how much of a prompt, by "
      "what\n"
      "the engines publish of their caches. For routers of other makes.\n\n"
      "  llmd index --config-file epp.yaml --tokenizer /models/llama3\n"
      "  curl -d '{\"model\": \"m\", \"token_ids\": [1, 2, 3]}' localhost:8080/query\n\n"
      "POST /query takes token_ids or a prompt, POST /query_by_hash takes block_keys; gRPC is\n"
      "indexer.v1.IndexerService/GetPodScores.",
      "llmd index");
  CLI::App& app = *app_ptr;
  index::IndexOptions options;
  AddFlags(app, &options);
  if (const int status = ParseFlags(app, argc, argv); status >= 0) return status;
  return Serve("index", {.drain_timeout = options.drain_timeout},
               [&](const ServeLogs& logs) -> StartedRole {
                 LLMD_ASSIGN_OR_RETURN(
                     auto service, index::IndexService::Start(options, catalogue, logs.dropped));
                 LLMD_LOG(kInfo, "serving queries", {"port", service->port()},
                          {"grpc_port", service->grpc_port()},
                          {"metrics_port", service->metrics_port()});
                 return service;
               });
}

}  // namespace llmd
