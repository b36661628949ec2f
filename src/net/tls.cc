#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/strings.h"
#include "net/tls_policy.h"
#include "runtime/file_watch.h"
#include "runtime/socket.h"

namespace llmd::net {
namespace {

using runtime::EventLoop;
using runtime::IoHandler;
using runtime::IoResult;
using runtime::IoStatus;

constexpr size_t kRecordBytes = 16 << 10;  // the largest TLS record

struct CtxDeleter {
  void operator()(SSL_CTX* ctx) const { SSL_CTX_free(ctx); }
};
using CtxPtr = std::unique_ptr<SSL_CTX, CtxDeleter>;
struct SslDeleter {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};
using SslPtr = std::unique_ptr<SSL, SslDeleter>;

std::string LastSslError() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "unknown TLS error";
  char text[256];
  ERR_error_string_n(code, text, sizeof(text));
  return text;
}

base::Status SslFailure(std::string_view what) {
  return base::InvalidArgument(base::Concat(what, ": ", LastSslError()));
}

class TlsStream final : public runtime::Stream {
 public:
  TlsStream(EventLoop& loop, int fd, IoHandler& handler, SslPtr ssl)
      : loop_(loop), fd_(fd), handler_(handler), ssl_(std::move(ssl)) {}
  ~TlsStream() override {
    loop_.Unwatch(fd_, handler_);
    if (reset_) {
      runtime::CloseWithReset(fd_);
      return;
    }
    SendCloseNotify();
    runtime::CloseFd(fd_);
  }

  // After a failure the first cause stays: OpenSSL would only report what followed from it.
  IoResult Read(std::span<char> room) override {
    IoResult result;
    if (failed_) return {0, IoStatus::kError};
    while (result.bytes < room.size()) {
      ERR_clear_error();
      size_t n = 0;
      const int ok =
          SSL_read_ex(ssl_.get(), room.data() + result.bytes, room.size() - result.bytes, &n);
      if (ok != 1) {
        result.status = Classify(ok);
        break;
      }
      result.bytes += n;
    }
    // Bytes come first; what ended them shows again on the next call.
    if (result.bytes > 0 && result.status != IoStatus::kDrained) result.status = IoStatus::kOk;
    return result;
  }

  IoResult Write(std::span<const iovec> parts) override {
    IoResult result;
    if (failed_) return {0, IoStatus::kError};
    size_t part = 0;
    size_t offset = 0;  // into parts[part]
    while (part < parts.size()) {
      // One record from as many parts as fit. A write that has to be repeated begins with the same
      // bytes and is at least as long, as OpenSSL demands, because parts are only ever appended.
      char record[kRecordBytes];
      size_t size = 0;
      for (size_t p = part, o = offset; p < parts.size() && size < kRecordBytes; ++p, o = 0) {
        const size_t n = std::min(parts[p].iov_len - o, kRecordBytes - size);
        std::memcpy(record + size, static_cast<const char*>(parts[p].iov_base) + o, n);
        size += n;
      }
      ERR_clear_error();
      size_t written = 0;
      const int ok = SSL_write_ex(ssl_.get(), record, size, &written);
      if (ok != 1) {
        result.status = Classify(ok);
        if (result.status == IoStatus::kEnd) result.status = IoStatus::kError;
        return result;
      }
      result.bytes += written;
      while (written > 0) {
        const size_t n = std::min(written, parts[part].iov_len - offset);
        written -= n;
        offset += n;
        if (offset == parts[part].iov_len) {
          ++part;
          offset = 0;
        }
      }
    }
    return result;
  }

  void ShutdownWrite() override {
    SendCloseNotify();
    ::shutdown(fd_, SHUT_WR);
  }
  void ResetOnClose() override { reset_ = true; }
  int error() const override { return error_; }
  std::string error_text() const override { return error_text_; }
  int fd() const override { return fd_; }
  std::string_view tls_version() const override {
    return SSL_is_init_finished(ssl_.get()) ? SSL_get_version(ssl_.get()) : "";
  }

 private:
  IoStatus Classify(int ok) {
    const int saved_errno = errno;
    switch (SSL_get_error(ssl_.get(), ok)) {
      case SSL_ERROR_WANT_READ:
      case SSL_ERROR_WANT_WRITE:
        return IoStatus::kDrained;
      case SSL_ERROR_ZERO_RETURN:
        return IoStatus::kEnd;
      case SSL_ERROR_SYSCALL:
        error_ = saved_errno != 0 ? saved_errno : ECONNRESET;
        error_text_ = std::strerror(error_);
        break;
      default:
        error_text_ = Describe();
    }
    failed_ = true;
    return IoStatus::kError;
  }
  std::string Describe() {
    std::string text = LastSslError();
    if (const long verify = SSL_get_verify_result(ssl_.get()); verify != X509_V_OK) {
      text += base::Concat(" (", X509_verify_cert_error_string(verify), ")");
    }
    return text;
  }
  void SendCloseNotify() {
    if (failed_ || !SSL_is_init_finished(ssl_.get())) return;
    ERR_clear_error();
    SSL_shutdown(ssl_.get());
    ERR_clear_error();
  }

  EventLoop& loop_;
  int fd_;
  IoHandler& handler_;
  SslPtr ssl_;
  int error_ = 0;
  std::string error_text_;
  bool failed_ = false;
  bool reset_ = false;
};

// Takes `fd` in every case.
base::Result<std::unique_ptr<runtime::Stream>> MakeStream(EventLoop& loop, int fd,
                                                          IoHandler& handler, SslPtr ssl) {
  base::Status status;
  if (!ssl || SSL_set_fd(ssl.get(), fd) != 1) {
    status = base::Internal("TLS: " + LastSslError());
  } else {
    status = loop.Watch(fd, handler);
  }
  if (!status.ok()) {
    runtime::CloseFd(fd);
    return std::unexpected(std::move(status));
  }
  return std::make_unique<TlsStream>(loop, fd, handler, std::move(ssl));
}

CtxPtr NewContext(const SSL_METHOD* method) {
  // OpenSSL writes with write(2), which raises SIGPIPE on a socket whose peer is gone.
  static std::once_flag once;
  std::call_once(once, [] { signal(SIGPIPE, SIG_IGN); });
  CtxPtr ctx(SSL_CTX_new(method));
  if (!ctx) return nullptr;
  SSL_CTX_set_min_proto_version(ctx.get(), TLS1_2_VERSION);
  SSL_CTX_set_mode(ctx.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_options(ctx.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  // An encrypted key is an error, not a question on the terminal.
  SSL_CTX_set_default_passwd_cb(ctx.get(), [](char*, int, int, void*) { return 0; });
  return ctx;
}

base::Status UsePair(SSL_CTX* ctx, const std::string& certificate_file,
                     const std::string& key_file) {
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(ctx, certificate_file.c_str()) != 1) {
    return SslFailure("TLS certificate " + certificate_file);
  }
  if (SSL_CTX_use_PrivateKey_file(ctx, key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    return SslFailure("TLS key " + key_file);
  }
  if (SSL_CTX_check_private_key(ctx) != 1) {
    return SslFailure(base::Concat("TLS key ", key_file, " does not belong to ", certificate_file));
  }
  return {};
}

// `wanted` is the protocol with its length in front, as on the wire.
int SelectAlpn(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in,
               unsigned in_size, void* wanted) {
  const auto& protocol = *static_cast<const std::string*>(wanted);
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_size,
                            reinterpret_cast<const unsigned char*>(protocol.data()),
                            static_cast<unsigned>(protocol.size()), in, in_size) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

std::string AlpnWire(const std::string& protocol) {
  return std::string(1, static_cast<char>(protocol.size())) + protocol;
}

// All but the certificate.
base::Result<CtxPtr> NewServerContext(const TlsServerOptions& options) {
  CtxPtr ctx = NewContext(TLS_server_method());
  if (!ctx) return std::unexpected(SslFailure("TLS"));
  LLMD_RETURN_IF_ERROR(ApplyTlsPolicy(ctx.get(), options));
  if (!options.client_ca_file.empty()) {
    if (SSL_CTX_load_verify_file(ctx.get(), options.client_ca_file.c_str()) != 1) {
      return std::unexpected(SslFailure("TLS CA file " + options.client_ca_file));
    }
    SSL_CTX_set_verify(ctx.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  return ctx;
}

base::Result<CtxPtr> LoadServerContext(const TlsServerOptions& options) {
  LLMD_ASSIGN_OR_RETURN(CtxPtr ctx, NewServerContext(options));
  LLMD_RETURN_IF_ERROR(UsePair(ctx.get(), options.certificate_file, options.key_file));
  return ctx;
}

class ServerContext final : public TlsServerContext {
 public:
  ServerContext(TlsServerOptions options, CtxPtr ctx, bool self_signed)
      : options_(std::move(options)),
        alpn_(AlpnWire(options_.alpn)),
        self_signed_(self_signed),
        ctx_(std::move(ctx)) {
    SSL_CTX_set_alpn_select_cb(ctx_.get(), SelectAlpn, &alpn_);
  }

  base::Status Reload() override {
    if (self_signed_) return {};
    LLMD_ASSIGN_OR_RETURN(CtxPtr fresh, LoadServerContext(options_));
    SSL_CTX_set_alpn_select_cb(fresh.get(), SelectAlpn, &alpn_);
    std::lock_guard lock(mutex_);
    ctx_.swap(fresh);
    return {};
  }
  const TlsServerOptions& options() const override { return options_; }

  base::Result<std::unique_ptr<runtime::Stream>> NewStream(EventLoop& loop, int fd,
                                                           IoHandler& handler) override {
    SslPtr ssl;
    {
      std::lock_guard lock(mutex_);
      ssl.reset(SSL_new(ctx_.get()));  // takes a reference of the context
    }
    if (ssl) SSL_set_accept_state(ssl.get());
    return MakeStream(loop, fd, handler, std::move(ssl));
  }

 private:
  const TlsServerOptions options_;
  std::string alpn_;  // contexts, and connections made of them, point here
  const bool self_signed_;
  std::mutex mutex_;
  CtxPtr ctx_;  // guarded by mutex_
};

class ClientContext final : public TlsClientContext {
 public:
  explicit ClientContext(CtxPtr ctx, bool verify) : ctx_(std::move(ctx)), verify_(verify) {}

  base::Result<std::unique_ptr<runtime::Stream>> NewStream(
      EventLoop& loop, int fd, IoHandler& handler, const std::string& server_name) override {
    SslPtr ssl(SSL_new(ctx_.get()));
    if (ssl) {
      SSL_set_connect_state(ssl.get());
      const bool is_ip = runtime::SocketAddress::ParseIp(server_name, 0).has_value();
      if (is_ip && verify_) {
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl.get()), server_name.c_str());
      }
      if (!is_ip && verify_) SSL_set1_host(ssl.get(), server_name.c_str());
      if (!is_ip && !server_name.empty()) SSL_set_tlsext_host_name(ssl.get(), server_name.c_str());
    }
    return MakeStream(loop, fd, handler, std::move(ssl));
  }

 private:
  CtxPtr ctx_;
  bool verify_;
};

}  // namespace

base::Result<std::shared_ptr<TlsServerContext>> TlsServerContext::Load(TlsServerOptions options) {
  LLMD_ASSIGN_OR_RETURN(CtxPtr ctx, LoadServerContext(options));
  return std::make_shared<ServerContext>(std::move(options), std::move(ctx), false);
}

base::Result<std::shared_ptr<TlsServerContext>> TlsServerContext::SelfSigned(
    const SelfSignedOptions& self, TlsServerOptions options) {
  LLMD_ASSIGN_OR_RETURN(CtxPtr ctx, NewServerContext(options));
  LLMD_RETURN_IF_ERROR(UseSelfSigned(ctx.get(), self, WantsRsaKey(options)));
  return std::make_shared<ServerContext>(std::move(options), std::move(ctx), true);
}

base::Result<std::shared_ptr<TlsClientContext>> TlsClientContext::Create(
    const TlsClientOptions& options) {
  CtxPtr ctx = NewContext(TLS_client_method());
  if (!ctx) return std::unexpected(SslFailure("TLS"));
  if (options.ca_file.empty()) {
    SSL_CTX_set_default_verify_paths(ctx.get());
  } else if (SSL_CTX_load_verify_file(ctx.get(), options.ca_file.c_str()) != 1) {
    return std::unexpected(SslFailure("TLS CA file " + options.ca_file));
  }
  if (options.certificate_file.empty() != options.key_file.empty()) {
    return std::unexpected(
        base::InvalidArgument("TLS: a client certificate and its key go together"));
  }
  if (!options.certificate_file.empty()) {
    LLMD_RETURN_IF_ERROR(UsePair(ctx.get(), options.certificate_file, options.key_file));
  }
  SSL_CTX_set_verify(ctx.get(), options.insecure_skip_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER,
                     nullptr);
  if (!options.alpn.empty()) {
    const std::string alpn = AlpnWire(options.alpn);
    SSL_CTX_set_alpn_protos(ctx.get(), reinterpret_cast<const unsigned char*>(alpn.data()),
                            static_cast<unsigned>(alpn.size()));
  }
  return std::make_shared<ClientContext>(std::move(ctx), !options.insecure_skip_verify);
}

struct TlsCertificateWatch::Impl {
  // Certificate and key are often replaced one after the other; both changes become one reload.
  static constexpr base::Duration kGather = std::chrono::milliseconds(200);

  Impl(EventLoop& loop, std::shared_ptr<TlsServerContext> server_context,
       std::move_only_function<void(const base::Status&)> callback)
      : context(std::move(server_context)),
        told(std::move(callback)),
        timer(loop, [this] { told(context->Reload()); }),
        certificate(loop, context->options().certificate_file,
                    [this](base::Result<std::string>) { timer.ArmAfter(kGather); }),
        key(loop, context->options().key_file,
            [this](base::Result<std::string>) { timer.ArmAfter(kGather); }) {}

  std::shared_ptr<TlsServerContext> context;
  std::move_only_function<void(const base::Status&)> told;
  runtime::Timer timer;
  runtime::FileWatch certificate;
  runtime::FileWatch key;
};

TlsCertificateWatch::TlsCertificateWatch(EventLoop& loop, std::shared_ptr<TlsServerContext> context,
                                         std::move_only_function<void(const base::Status&)> told)
    : impl_(std::make_unique<Impl>(loop, std::move(context), std::move(told))) {}
TlsCertificateWatch::~TlsCertificateWatch() = default;

}  // namespace llmd::net
