// Control: everything of a process that is not its data path, on one thread: discovery, names,
// scraping, reloads, the metrics port.
//
// Thread safety: made and destroyed by the Host while the control loop does not run; otherwise
// belongs to that loop. Workers are reached by snapshots and posted messages only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "control/admin.h"
#include "control/errands.h"
#include "control/fleet_source.h"
#include "control/kv_events.h"
#include "control/load_scraper.h"
#include "control/options.h"
#include "control/otlp_exporter.h"
#include "control/state.h"
#include "net/resolver.h"
#include "net/tls.h"
#include "plugin/catalogue.h"
#include "runtime/clock.h"
#include "runtime/file_watch.h"
#include "runtime/loop.h"
#include "runtime/thread_pool.h"

namespace llmd::control {

struct EngineHeader {
  std::string name, value;
  // "Name: value\r\n", "" without a name.
  std::string line() const;
};

class Control {
 public:
  // `publish` hands new backends on. References outlive the control.
  Control(runtime::EventLoop& loop, State& state, const HostOptions& options,
          const plugin::Catalogue& catalogue,
          std::function<void(std::shared_ptr<const Backends>)> publish);
  ~Control();

  // Compiles the config, reads endpoints, listens on the metrics port; all errors show here. Once.
  base::Status Begin();
  uint16_t metrics_port() const { return metrics_port_; }
  // Goes with every request to an engine; an empty name for none.
  const EngineHeader& engine_header() const { return engine_header_; }
  // Calls `use` with the content of `path` now, and again when it changes; the outcome of a reload
  // is logged and counted under `what`. The first outcome is returned.
  base::Status WatchFile(std::string_view what, const std::string& path, size_t bytes_max,
                         std::function<base::Status(std::string_view content)> use);
  // Exports the spans that wait, then calls `done`; with a tracer only.
  void FlushTraces(std::move_only_function<void()> done);
  // Reloads `tls` when one of its files changes.
  void WatchCertificate(std::shared_ptr<net::TlsServerContext> tls);

 private:
  base::Status BeginConfig();
  base::Status BeginEngines();
  base::Status BeginObjects();
  base::Status BeginTracing();
  base::Status UseConfig(std::string_view yaml, std::string_view filename);
  base::Status UseDiscovery();
  base::Status ReadEndpointFile(base::Result<std::string> content);
  void CountReload(std::string_view file, const base::Status& status);

  runtime::EventLoop& loop_;
  State& state_;
  const HostOptions& options_;
  const plugin::Catalogue& catalogue_;
  const std::function<void(std::shared_ptr<const Backends>)> publish_;
  uint64_t secret_ = runtime::EntropySeed();
  const size_t writer_;  // metric writer and fleet view index of the control thread
  EngineHeader engine_header_;
  runtime::ThreadPool lookups_;
  net::Resolver resolver_;
  std::unique_ptr<OtlpExporter> exporter_;
  std::unique_ptr<telemetry::Metrics::Registration> trace_counts_;
  std::unique_ptr<FleetSource> fleet_source_;
  std::unique_ptr<LoadScraper> load_scraper_;
  Outside outside_;
  Errands errands_;
  KvEvents kv_events_;
  std::unique_ptr<Admin> admin_;
  std::unique_ptr<net::HttpServer> admin_server_;
  std::shared_ptr<const director::Generation> generation_;
  std::unique_ptr<runtime::FileWatch> endpoints_watch_;
  std::vector<std::unique_ptr<runtime::FileWatch>> watches_;
  std::vector<std::unique_ptr<net::TlsCertificateWatch>> certificate_watches_;
  const plugin::EndpointDiscovery* discovery_ = nullptr;
  uint16_t metrics_port_ = 0;
};

}  // namespace llmd::control
