// TLS 1.2 and newer (OpenSSL 3) behind runtime::Stream.
//
// Thread safety: contexts are thread-safe and shared by all workers; streams belong to a loop.
// Invariants: 1. Reload replaces certificate and key together or not at all; connections that exist
// go on with what they began with. 2. A client context verifies chain and name unless told
// otherwise.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "runtime/loop.h"
#include "runtime/stream.h"

namespace llmd::net {

struct TlsServerOptions {
  std::string certificate_file;  // PEM, leaf first, then the chain
  std::string key_file;          // PEM, not encrypted
  // PEM bundle: clients must present a certificate that one of these signed; "" asks for none.
  std::string client_ca_file;
};

class TlsServerContext {
 public:
  static base::Result<std::shared_ptr<TlsServerContext>> Load(TlsServerOptions options);
  virtual ~TlsServerContext() = default;
  // Reads the files again; on error the old pair stays.
  virtual base::Status Reload() = 0;
  virtual const TlsServerOptions& options() const = 0;
  // Takes `fd`. The handshake happens inside Read and Write.
  virtual base::Result<std::unique_ptr<runtime::Stream>> NewStream(runtime::EventLoop& loop, int fd,
                                                                   runtime::IoHandler& handler) = 0;
};

// Watches both files and reloads when one changes. Belongs to `loop`.
class TlsCertificateWatch {
 public:
  // `told` gets the outcome of each reload.
  TlsCertificateWatch(runtime::EventLoop& loop, std::shared_ptr<TlsServerContext> context,
                      std::move_only_function<void(const base::Status&)> told);
  ~TlsCertificateWatch();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct TlsClientOptions {
  std::string ca_file;  // PEM; "" means the system's
  bool insecure_skip_verify = false;
  std::string certificate_file, key_file;  // client certificate, both or none
  std::string alpn = "http/1.1";           // the protocol to ask for; "h2" for gRPC
};

class TlsClientContext {
 public:
  static base::Result<std::shared_ptr<TlsClientContext>> Create(const TlsClientOptions& options);
  virtual ~TlsClientContext() = default;
  // Takes a connecting or connected `fd`. `server_name` (host name or IP literal) is verified, and
  // sent as SNI when it is a name.
  virtual base::Result<std::unique_ptr<runtime::Stream>> NewStream(
      runtime::EventLoop& loop, int fd, runtime::IoHandler& handler,
      const std::string& server_name) = 0;
};

}  // namespace llmd::net
