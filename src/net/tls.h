// TLS 1.2 and newer (OpenSSL 3) behind runtime::Stream; older versions for those who ask.
//
// Thread safety: contexts are thread-safe and shared by all workers; streams belong to a loop.
// Lifetime: a context outlives its streams.
// Invariants: 1. Reload replaces certificate and key together or not at all; connections that exist
// go on with what they began with. 2. A client context verifies chain and name unless told
// otherwise.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "runtime/loop.h"
#include "runtime/stream.h"

namespace llmd::net {

struct TlsServerOptions {
  std::string certificate_file;  // PEM, leaf first, then the chain
  std::string key_file;          // PEM, not encrypted
  // PEM bundle: clients must present a certificate that one of these signed; "" asks for none.
  std::string client_ca_file;
  std::string alpn = "http/1.1";  // the protocol that is spoken here; "h2" for gRPC
  // Go's names, as upstream's flags want them: "VersionTLS10" to "VersionTLS13"; "" is 1.2.
  std::string min_version;
  // "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" and so on; none: OpenSSL's choice. Suites of TLS 1.3
  // are not a matter of choice: naming none of older versions leaves TLS 1.3 alone.
  std::vector<std::string> cipher_suites;
};

struct SelfSignedOptions {
  std::string organization = "Inference Ext";  // upstream's
  // Host names and IP literals beside localhost, this host's name, 127.0.0.1 and ::1.
  std::vector<std::string> names;
  int days = 3650;
};

class TlsServerContext {
 public:
  static base::Result<std::shared_ptr<TlsServerContext>> Load(TlsServerOptions options);
  // With a certificate of its own making, valid from an hour ago. ECDSA P-256, which is made in
  // .1 ms and signs 20 times faster than RSA; RSA-2048 when the cipher suites leave no other
  // choice. Reload does nothing. The file names of `options` are not looked at, except for
  // client_ca_file.
  static base::Result<std::shared_ptr<TlsServerContext>> SelfSigned(const SelfSignedOptions& self,
                                                                    TlsServerOptions options);
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
  std::string alpn = "http/1.1";           // to ask for; "h2" for gRPC, "" for none
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
