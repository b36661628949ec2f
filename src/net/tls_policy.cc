#include "net/tls_policy.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/strings.h"
#include "runtime/socket.h"

namespace llmd::net {
namespace {

struct Version {
  std::string_view name;
  int number;
};
constexpr Version kVersions[] = {{"VersionTLS10", TLS1_VERSION},
                                 {"VersionTLS11", TLS1_1_VERSION},
                                 {"VersionTLS12", TLS1_2_VERSION},
                                 {"VersionTLS13", TLS1_3_VERSION}};

// Suites that Go's crypto/tls has, and what OpenSSL calls them; "" with TLS 1.3, and where OpenSSL
// has it no longer.
struct Suite {
  std::string_view go_name;
  std::string_view name;
};
constexpr Suite kSuites[] = {
    {"TLS_AES_128_GCM_SHA256", ""},
    {"TLS_AES_256_GCM_SHA384", ""},
    {"TLS_CHACHA20_POLY1305_SHA256", ""},
    {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"},
    {"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"},
    {"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", "ECDHE-ECDSA-AES128-SHA256"},
    {"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "ECDHE-ECDSA-AES128-SHA"},
    {"TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA"},
    {"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"},
    {"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"},
    {"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"},
    {"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "ECDHE-RSA-AES128-SHA256"},
    {"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "ECDHE-RSA-AES128-SHA"},
    {"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "ECDHE-RSA-AES256-SHA"},
    {"TLS_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256"},
    {"TLS_RSA_WITH_AES_256_GCM_SHA384", "AES256-GCM-SHA384"},
    {"TLS_RSA_WITH_AES_128_CBC_SHA256", "AES128-SHA256"},
    {"TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA"},
    {"TLS_RSA_WITH_AES_256_CBC_SHA", "AES256-SHA"},
};

const Suite* FindSuite(std::string_view go_name) {
  for (const Suite& suite : kSuites) {
    if (suite.go_name == go_name) return &suite;
  }
  return nullptr;
}

base::Status OpenSslFailure(std::string_view what) {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  char text[256] = "unknown TLS error";
  if (code != 0) ERR_error_string_n(code, text, sizeof(text));
  return base::Internal(base::Concat(what, ": ", std::string_view(text)));
}

struct Deleter {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(BIGNUM* number) const { BN_free(number); }
  void operator()(X509_EXTENSION* extension) const { X509_EXTENSION_free(extension); }
};
template <class T>
using Owned = std::unique_ptr<T, Deleter>;

std::string SubjectAltNames(const SelfSignedOptions& self) {
  std::string out = "DNS:localhost,IP:127.0.0.1,IP:::1";
  char host[256] = {};
  if (::gethostname(host, sizeof(host) - 1) == 0 && host[0] != '\0') {
    out += base::Concat(",DNS:", std::string_view(host));
  }
  for (const std::string& name : self.names) {
    const bool is_ip = runtime::SocketAddress::ParseIp(name, 0).has_value();
    out += base::Concat(is_ip ? ",IP:" : ",DNS:", name);
  }
  return out;
}

bool AddExtension(X509* certificate, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  Owned<X509_EXTENSION> extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  return extension && X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool SetSerial(X509* certificate) {
  Owned<BIGNUM> number(BN_new());
  constexpr int kSerialBits = 127;  // RFC 5280: positive, at most 20 bytes
  return number && BN_rand(number.get(), kSerialBits, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
         BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool FillCertificate(X509* certificate, EVP_PKEY* key, const SelfSignedOptions& self) {
  constexpr long kHourSeconds = 3600;
  X509_NAME* name = X509_get_subject_name(certificate);
  return X509_set_version(certificate, X509_VERSION_3) == 1 && SetSerial(certificate) &&
         X509_gmtime_adj(X509_getm_notBefore(certificate), -kHourSeconds) &&
         X509_time_adj_ex(X509_getm_notAfter(certificate), self.days, 0, nullptr) &&
         X509_NAME_add_entry_by_txt(
             name, "O", MBSTRING_UTF8,
             reinterpret_cast<const unsigned char*>(self.organization.c_str()), -1, -1, 0) == 1 &&
         X509_set_issuer_name(certificate, name) == 1 && X509_set_pubkey(certificate, key) == 1 &&
         AddExtension(certificate, NID_basic_constraints, "critical,CA:TRUE") &&
         AddExtension(certificate, NID_key_usage,
                      "critical,digitalSignature,keyEncipherment,keyCertSign") &&
         AddExtension(certificate, NID_ext_key_usage, "serverAuth") &&
         AddExtension(certificate, NID_subject_alt_name, SubjectAltNames(self)) &&
         X509_sign(certificate, key, EVP_sha256()) > 0;
}

}  // namespace

bool WantsRsaKey(const TlsServerOptions& options) {
  bool wants = false;
  for (const std::string& go_name : options.cipher_suites) {
    const Suite* suite = FindSuite(go_name);
    if (!suite || suite->name.empty()) continue;
    if (suite->name.starts_with("ECDHE-ECDSA-")) return false;
    wants = true;
  }
  return wants;
}

base::Status ApplyTlsPolicy(ssl_ctx_st* ctx, const TlsServerOptions& options) {
  int version = options.min_version.empty() ? TLS1_2_VERSION : 0;
  for (const Version& known : kVersions) {
    if (known.name == options.min_version) version = known.number;
  }
  if (version == 0) {
    return base::InvalidArgument(base::Concat("TLS version \"", options.min_version,
                                              "\" is none of VersionTLS10, VersionTLS11, "
                                              "VersionTLS12, VersionTLS13"));
  }
  // Versions before 1.2 sign with SHA-1, which OpenSSL allows at its lowest level only.
  if (version < TLS1_2_VERSION) SSL_CTX_set_security_level(ctx, 0);
  std::string list;
  for (const std::string& go_name : options.cipher_suites) {
    const Suite* suite = FindSuite(go_name);
    if (!suite) {
      return base::InvalidArgument(base::Concat("TLS cipher suite \"", go_name,
                                                "\" is not known; names are Go's, such as "
                                                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"));
    }
    if (!suite->name.empty()) list += base::Concat(list.empty() ? "" : ":", suite->name);
  }
  if (!options.cipher_suites.empty() && list.empty()) version = TLS1_3_VERSION;
  if (SSL_CTX_set_min_proto_version(ctx, version) != 1) return OpenSslFailure("TLS version");
  if (!list.empty() && SSL_CTX_set_cipher_list(ctx, list.c_str()) != 1) {
    return OpenSslFailure("TLS cipher suites");
  }
  return {};
}

base::Status UseSelfSigned(ssl_ctx_st* ctx, const SelfSignedOptions& self, bool rsa) {
  ERR_clear_error();
  constexpr size_t kRsaBits = 2048;
  Owned<EVP_PKEY> key(rsa ? EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", kRsaBits)
                          : EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  Owned<X509> certificate(X509_new());
  if (!key || !certificate || !FillCertificate(certificate.get(), key.get(), self)) {
    return OpenSslFailure("self-signed TLS certificate");
  }
  if (SSL_CTX_use_certificate(ctx, certificate.get()) != 1 ||
      SSL_CTX_use_PrivateKey(ctx, key.get()) != 1) {
    return OpenSslFailure("self-signed TLS certificate");
  }
  return {};
}

}  // namespace llmd::net
