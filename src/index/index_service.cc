#include "index/index_service.h"

#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "index/door.h"
#include "net/tls.h"
#include "runtime/clock.h"
#include "runtime/files.h"
#include "runtime/thread_pool.h"
#include "telemetry/log.h"

namespace llmd::index {
namespace {

constexpr size_t kKeyFileBytesMax = 1u << 20;     // kApiKeysMax lines of 130 bytes and comments
constexpr size_t kConfigFileBytesMax = 8u << 20;  // tokenizer_config.json; the largest have 1 MB

struct WorkerState {
  std::unique_ptr<Door> door;
  std::unique_ptr<net::HttpServer> http;
  std::unique_ptr<net::GrpcServer> grpc;
};

base::Result<std::shared_ptr<net::TlsServerContext>> LoadTls(const IndexOptions& options,
                                                             const char* protocol) {
  if (options.tls_cert.empty() && options.tls_key.empty()) return nullptr;
  if (options.tls_cert.empty() || options.tls_key.empty()) {
    return std::unexpected(base::InvalidArgument("--tls-cert and --tls-key go together"));
  }
  return net::TlsServerContext::Load({.certificate_file = options.tls_cert,
                                      .key_file = options.tls_key,
                                      .alpn = protocol});
}

struct TokenizerBytes {
  std::string tokenizer, config;
};

// Without tokenizer_config.json a prompt gets the special tokens that tokenizer.json names.
base::Result<TokenizerBytes> ReadTokenizer(const std::string& directory) {
  TokenizerBytes bytes;
  LLMD_ASSIGN_OR_RETURN(bytes.tokenizer, runtime::ReadFile(directory + "/tokenizer.json",
                                                           text::kTokenizerFileBytesMax));
  auto config = runtime::ReadFile(directory + "/tokenizer_config.json", kConfigFileBytesMax);
  if (config) bytes.config = *std::move(config);
  return bytes;
}

}  // namespace

// Members in the order of construction; the destructor takes them down in reverse.
struct IndexService::Impl {
  Impl(const IndexOptions& index_options, const plugin::Catalogue& catalogue,
       std::function<uint64_t()> dropped_lines)
      : options(index_options),
        host(options, catalogue, "index", std::move(dropped_lines)),
        shared{.state = host.state(), .tokenizes = !options.tokenizer_dir.empty()},
        loading(1, 1, "tokenizer") {}
  ~Impl() {
    host.Stop();
    listener.reset();
    for (WorkerState& state : states) {
      state.grpc.reset();
      state.http.reset();
      state.door.reset();
    }
  }

  base::Status Begin();
  base::Status BeginKeys();
  base::Status BeginHttp();
  base::Status BeginGrpc();
  base::Status BeginTokenizer();

  const IndexOptions options;
  control::Host host;
  DoorShared shared;
  runtime::ThreadPool loading;  // of the tokenizer
  std::vector<WorkerState> states;
  std::unique_ptr<net::GrpcListener> listener;
  uint16_t port = 0;
  uint16_t grpc_port = 0;
};

base::Status IndexService::Impl::Begin() {
  runtime::WorkerPool& workers = host.workers();
  states.resize(workers.size());
  for (size_t i = 0; i < states.size(); ++i) {
    states[i].door = std::make_unique<Door>(shared, i, workers.loop(i));
  }
  LLMD_RETURN_IF_ERROR(host.Begin([](auto) {}));
  LLMD_RETURN_IF_ERROR(BeginKeys());
  LLMD_RETURN_IF_ERROR(BeginHttp());
  LLMD_RETURN_IF_ERROR(BeginGrpc());
  LLMD_RETURN_IF_ERROR(BeginTokenizer());
  host.Start();
  return base::OkStatus();
}

base::Status IndexService::Impl::BeginKeys() {
  if (options.api_key_file.empty()) return base::OkStatus();
  return host.control().WatchFile(
      "api-keys", options.api_key_file, kKeyFileBytesMax,
      [this](std::string_view content) -> base::Status {
        LLMD_ASSIGN_OR_RETURN(auto keys,
                              control::ApiKeys::Parse(content, options.api_key_file));
        shared.keys.Publish(std::make_shared<const control::ApiKeys>(std::move(keys)));
        return base::OkStatus();
      });
}

base::Status IndexService::Impl::BeginHttp() {
  LLMD_ASSIGN_OR_RETURN(auto tls, LoadTls(options, "http/1.1"));
  if (tls) host.control().WatchCertificate(tls);
  auto address = runtime::SocketAddress::Parse(options.listen);
  if (!address) return address.error().WithContext("--listen");
  std::vector<net::HttpServer*> servers;
  for (size_t i = 0; i < states.size(); ++i) {
    states[i].http = std::make_unique<net::HttpServer>(
        host.workers().loop(i), *states[i].door,
        net::HttpServerOptions{.body_bytes_max = options.max_body_bytes, .tls = tls});
    servers.push_back(states[i].http.get());
  }
  for (net::HttpServer* server : servers) {
    server->ShareWith(servers);
    auto bound = server->Listen(*address);
    if (!bound) return bound.error().WithContext(base::Concat("--listen ", options.listen));
    port = *bound;
    *address = address->WithPort(port);
  }
  return base::OkStatus();
}

base::Status IndexService::Impl::BeginGrpc() {
  LLMD_ASSIGN_OR_RETURN(auto tls, LoadTls(options, "h2"));
  if (tls) host.control().WatchCertificate(tls);
  std::vector<net::GrpcServer*> servers;
  for (size_t i = 0; i < states.size(); ++i) {
    states[i].grpc = std::make_unique<net::GrpcServer>(
        host.workers().loop(i),
        net::GrpcServerOptions{
            .message_bytes_max =
                static_cast<uint32_t>(std::min<uint64_t>(options.max_body_bytes, ~0u)),
            .tls = tls});
    states[i].grpc->AddService(std::string(Door::kPodScores), *states[i].door);
    servers.push_back(states[i].grpc.get());
  }
  listener = std::make_unique<net::GrpcListener>(host.control_loop(), std::move(servers));
  auto address = runtime::SocketAddress::Parse(options.grpc_listen);
  if (!address) return address.error().WithContext("--grpc-listen");
  auto bound = listener->Listen(*address);
  if (!bound) return bound.error().WithContext(base::Concat("--grpc-listen ", options.grpc_listen));
  grpc_port = *bound;
  return base::OkStatus();
}

// Loading takes seconds; queries by token ids are answered meanwhile.
base::Status IndexService::Impl::BeginTokenizer() {
  if (!shared.tokenizes) return base::OkStatus();
  auto bytes = ReadTokenizer(options.tokenizer_dir);
  if (!bytes) return bytes.error().WithContext("--tokenizer");
  const bool begun = loading.TrySubmit([this, bytes = *std::move(bytes),
                                        seed = runtime::EntropySeed()] {
    auto tokenizer = text::Tokenizer::Load(
        {.tokenizer_json = bytes.tokenizer, .tokenizer_config_json = bytes.config},
        {.seed = seed});
    if (!tokenizer) {
      LLMD_LOG(kError, "the tokenizer cannot be used", {"dir", options.tokenizer_dir},
               {"error", tokenizer.error().message()});
      return;
    }
    LLMD_LOG(kInfo, "the tokenizer is loaded", {"dir", options.tokenizer_dir},
             {"engine", text::TokenizerEngineName((*tokenizer)->engine())},
             {"reason", (*tokenizer)->engine_reason()});
    shared.tokenizer.Publish(*std::move(tokenizer));
  });
  LLMD_CHECK(begun, "an empty queue is full");
  return base::OkStatus();
}

base::Result<std::unique_ptr<IndexService>> IndexService::Start(
    const IndexOptions& options, const plugin::Catalogue& catalogue,
    std::function<uint64_t()> dropped_lines) {
  std::unique_ptr<IndexService> service(new IndexService);
  service->impl_ = std::make_unique<Impl>(options, catalogue, std::move(dropped_lines));
  LLMD_RETURN_IF_ERROR(service->impl_->Begin());
  return service;
}

IndexService::~IndexService() = default;

uint16_t IndexService::port() const { return impl_->port; }
uint16_t IndexService::grpc_port() const { return impl_->grpc_port; }
uint16_t IndexService::metrics_port() const { return impl_->host.control().metrics_port(); }

void IndexService::Drain() {
  Impl& impl = *impl_;
  impl.host.state().draining.store(true);
  impl.host.Drain([&impl](size_t worker, std::function<void()> drained) {
    // Both servers of the worker.
    auto left = std::make_shared<int>(2);
    auto done = [left, drained = std::move(drained)] {
      if (--*left == 0) drained();
    };
    impl.states[worker].http->Drain(impl.options.drain_timeout, done);
    impl.states[worker].grpc->Drain(impl.options.drain_timeout, done);
  });
}

}  // namespace llmd::index
