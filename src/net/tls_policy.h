// What a TLS server insists on, and certificates of its own making. Private to the tls files.
//
// Thread safety: free functions on a context that nobody else uses yet.
#pragma once

#include <vector>

#include "base/status.h"
#include "net/tls.h"

struct ssl_ctx_st;

namespace llmd::net {

// Versions and cipher suites; InvalidArgument names the wrong word.
base::Status ApplyTlsPolicy(ssl_ctx_st* ctx, const TlsServerOptions& options);

// Whether the suites that `options` names for TLS 1.2 and older all want an RSA key.
bool WantsRsaKey(const TlsServerOptions& options);

// Makes a key and a certificate and gives both to `ctx`.
base::Status UseSelfSigned(ssl_ctx_st* ctx, const SelfSignedOptions& self, bool rsa);

}  // namespace llmd::net
