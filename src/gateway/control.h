// Control: everything of the gateway that is not the data path, on one thread: discovery, names,
// scraping, reloads of config, keys and certificates, the metrics port.
//
// Thread safety: made and destroyed by the gateway while the control loop does not run; otherwise
// belongs to that loop. Workers are reached by snapshots and posted messages only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gateway/admin.h"
#include "gateway/fleet_source.h"
#include "gateway/load_scraper.h"
#include "gateway/models_source.h"
#include "gateway/options.h"
#include "net/resolver.h"
#include "net/tls.h"
#include "plugin/catalogue.h"
#include "runtime/file_watch.h"
#include "runtime/loop.h"
#include "runtime/thread_pool.h"

namespace llmd::gateway {

class Control {
 public:
  struct Context {
    const GatewayOptions& options;
    const plugin::Catalogue& catalogue;
    DoorShared& shared;
    director::GenerationSource& generations;
    size_t writer;  // metric writer and fleet view index of the control thread
    // Hands new backends to the workers.
    std::function<void(std::shared_ptr<const Backends>)> publish;
  };

  // Compiles the config, reads keys and endpoints, listens on the metrics port; all errors show
  // here.
  static base::Result<std::unique_ptr<Control>> Create(
      runtime::EventLoop& loop, Context context,
      std::shared_ptr<net::TlsServerContext> tls);
  ~Control();

  uint16_t metrics_port() const { return metrics_port_; }

 private:
  Control(runtime::EventLoop& loop, Context context);

  base::Status Begin(std::shared_ptr<net::TlsServerContext> tls);
  base::Status BeginConfig();
  base::Status BeginKeys();
  base::Status BeginEngines();
  base::Status UseConfig(std::string_view yaml, std::string_view filename);
  base::Status UseDiscovery();
  base::Status ReadEndpointFile(base::Result<std::string> content);
  void CountReload(std::string_view file, const base::Status& status);

  runtime::EventLoop& loop_;
  Context context_;
  runtime::ThreadPool lookups_;
  net::Resolver resolver_;
  std::unique_ptr<FleetSource> fleet_source_;
  std::unique_ptr<LoadScraper> load_scraper_;
  std::unique_ptr<ModelsSource> models_source_;
  std::unique_ptr<Admin> admin_;
  std::unique_ptr<net::HttpServer> admin_server_;
  std::shared_ptr<const director::Generation> generation_;
  std::unique_ptr<runtime::FileWatch> config_watch_, endpoints_watch_, keys_watch_;
  std::unique_ptr<net::TlsCertificateWatch> certificate_watch_;
  const plugin::EndpointDiscovery* discovery_ = nullptr;
  uint16_t metrics_port_ = 0;
};

}  // namespace llmd::gateway
