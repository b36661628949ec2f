#include "net/zmq_auth.h"

#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/strings.h"
#include "runtime/files.h"
#include "runtime/socket.h"

namespace llmd::net {
namespace {

constexpr size_t kKeyFileBytesMax = 64 << 10;
constexpr size_t kZapFramesMax = 16;
constexpr size_t kZapFrameBytesMax = 256;

std::array<uint8_t, 16> BytesOf(const runtime::SocketAddress& address) {
  std::array<uint8_t, 16> bytes{};
  if (address.family() == AF_INET6) {
    std::memcpy(bytes.data(), &reinterpret_cast<const sockaddr_in6*>(address.raw())->sin6_addr, 16);
  } else {
    bytes[10] = bytes[11] = 0xff;
    std::memcpy(&bytes[12], &reinterpret_cast<const sockaddr_in*>(address.raw())->sin_addr, 4);
  }
  return bytes;
}

bool IsKeyText(std::string_view text) {
  if (text.size() != kZmqKeyTextBytes) return false;
  uint8_t bytes[kZmqKeyBytes];
  return zmq_z85_decode(bytes, std::string(text).c_str()) != nullptr;
}

// The value of `name = "..."` in a certificate, or "".
std::string_view CertificateField(std::string_view text, std::string_view name) {
  for (std::string_view line : base::Split(text, '\n')) {
    line = base::Trim(line);
    if (!line.starts_with(name)) continue;
    line = base::Trim(line.substr(name.size()));
    if (!line.starts_with('=')) continue;
    line = base::Trim(line.substr(1));
    if (line.size() >= 2 && line.front() == '"' && line.back() == '"') {
      return line.substr(1, line.size() - 2);
    }
  }
  return "";
}

// The key of that name, or the only thing in the file.
base::Result<std::string> LoadKey(const std::string& path, std::string_view name) {
  LLMD_ASSIGN_OR_RETURN(const std::string text, runtime::ReadFile(path, kKeyFileBytesMax));
  std::string_view key = CertificateField(text, name);
  if (key.empty()) {
    key = text;
    while (!key.empty() && (key.back() == '\n' || key.back() == '\r')) key.remove_suffix(1);
    key = base::Trim(key);
  }
  if (!IsKeyText(key)) {
    return std::unexpected(base::InvalidArgument(base::Concat(
        path, " holds neither ", name, " = \"...\" nor a bare key of 40 characters (Z85)")));
  }
  return std::string(key);
}

}  // namespace

// --- keys ----------------------------------------------------------------------------------------

ZmqKeyPair ZmqKeyPair::Generate() {
  char public_key[kZmqKeyTextBytes + 1], secret_key[kZmqKeyTextBytes + 1];
  if (zmq_curve_keypair(public_key, secret_key) != 0) return {};
  return {public_key, secret_key};
}

base::Result<ZmqKeyPair> LoadZmqKeyPair(const std::string& path) {
  LLMD_ASSIGN_OR_RETURN(std::string secret, LoadKey(path, "secret-key"));
  char public_key[kZmqKeyTextBytes + 1];
  if (zmq_curve_public(public_key, secret.c_str()) != 0) {
    return std::unexpected(base::InvalidArgument(path + " holds no CURVE secret key"));
  }
  return ZmqKeyPair{public_key, std::move(secret)};
}

base::Result<std::string> LoadZmqPublicKey(const std::string& path) {
  return LoadKey(path, "public-key");
}

// --- policies ------------------------------------------------------------------------------------

base::Result<ZmqNetwork> ZmqNetwork::Parse(std::string_view text) {
  const size_t slash = text.find('/');
  const auto address = runtime::SocketAddress::ParseIp(text.substr(0, slash), 0);
  const int bits_max = address && address->family() == AF_INET ? 32 : 128;
  const auto bits = slash == std::string_view::npos
                        ? std::optional<int64_t>(bits_max)
                        : base::ParseInt(text.substr(slash + 1));
  if (!address || !bits || *bits < 0 || *bits > bits_max) {
    return std::unexpected(base::InvalidArgument(base::Concat(
        "\"", text, "\" is no address and no network like 10.0.0.0/8 or fd00::/8")));
  }
  ZmqNetwork network;
  network.bytes_ = BytesOf(*address);
  network.bits_ = static_cast<int>(*bits) + 128 - bits_max;
  return network;
}

bool ZmqNetwork::Contains(std::string_view ip) const {
  const auto address = runtime::SocketAddress::ParseIp(ip, 0);
  if (!address) return false;
  const std::array<uint8_t, 16> bytes = BytesOf(*address);
  const size_t whole = static_cast<size_t>(bits_) / 8;
  if (std::memcmp(bytes.data(), bytes_.data(), whole) != 0) return false;
  const int rest = bits_ % 8;
  return rest == 0 || (bytes[whole] ^ bytes_[whole]) >> (8 - rest) == 0;
}

base::Result<ZmqPolicy> ZmqPolicy::Make(const ZmqSecurity& security) {
  ZmqPolicy policy;
  for (const std::string& text : security.allowed_addresses) {
    LLMD_ASSIGN_OR_RETURN(const ZmqNetwork network, ZmqNetwork::Parse(text));
    policy.networks.push_back(network);
  }
  for (const std::string& text : security.client_keys) {
    if (!IsKeyText(text)) {
      return std::unexpected(base::InvalidArgument("a client's public key is not Z85"));
    }
    zmq_z85_decode(policy.keys.emplace_back().data(), text.c_str());
  }
  return policy;
}

bool ZmqPolicy::Allows(std::string_view ip, std::string_view key) const {
  if (!networks.empty() &&
      std::ranges::none_of(networks, [&](const ZmqNetwork& n) { return n.Contains(ip); })) {
    return false;
  }
  return keys.empty() || std::ranges::any_of(keys, [&](const auto& known) {
           return key.size() == known.size() &&
                  std::memcmp(key.data(), known.data(), known.size()) == 0;
         });
}

// --- the ZAP handler -----------------------------------------------------------------------------

ZmqAuthenticator::~ZmqAuthenticator() {
  if (socket_ == nullptr) return;
  loop_.Unwatch(fd_, *this);
  zmq_close(socket_);
}

base::Status ZmqAuthenticator::Listen() {
  if (socket_ != nullptr) return {};
  void* socket = zmq_socket(context_, ZMQ_REP);
  if (socket == nullptr) return base::ErrnoStatus(errno, "zmq_socket");
  size_t size = sizeof(fd_);
  base::Status status;
  if (zmq_bind(socket, "inproc://zeromq.zap.01") != 0 ||
      zmq_getsockopt(socket, ZMQ_FD, &fd_, &size) != 0) {
    status = base::Internal(std::string("the ZAP handler: ") + zmq_strerror(errno));
  } else {
    status = loop_.WatchReadable(fd_, *this);
  }
  if (!status.ok()) {
    zmq_close(socket);
    return status;
  }
  socket_ = socket;
  return {};
}

base::Result<std::string> ZmqAuthenticator::Add(ZmqPolicy policy) {
  LLMD_RETURN_IF_ERROR(Listen());
  entries_.push_back({"llmd-" + std::to_string(next_domain_++), std::move(policy)});
  return entries_.back().domain;
}

void ZmqAuthenticator::Remove(std::string_view domain) {
  std::erase_if(entries_, [&](const Entry& entry) { return entry.domain == domain; });
}

void ZmqAuthenticator::OnIo(runtime::IoEvents) {
  while (AnswerOne()) {}
}

// Request: version, request id, domain, address, routing id, mechanism, credentials. Reply:
// version, request id, status code, status text, user id, metadata.
bool ZmqAuthenticator::AnswerOne() {
  std::string frames[kZapFramesMax];
  size_t count = 0;
  for (bool more = true; more; ++count) {
    char bytes[kZapFrameBytesMax];
    const int size = zmq_recv(socket_, bytes, sizeof(bytes), count == 0 ? ZMQ_DONTWAIT : 0);
    if (size < 0) return false;
    if (count < kZapFramesMax) {
      frames[count].assign(bytes, std::min(static_cast<size_t>(size), sizeof(bytes)));
    }
    int flag = 0;
    size_t flag_size = sizeof(flag);
    zmq_getsockopt(socket_, ZMQ_RCVMORE, &flag, &flag_size);
    more = flag != 0;
  }
  const std::string& domain = frames[2];
  const auto entry = std::ranges::find(entries_, domain, &Entry::domain);
  // Sockets without a policy have no domain. One whose socket is gone lets nobody in.
  const bool allowed = domain.empty() ||
                       (entry != entries_.end() &&
                        entry->policy.Allows(frames[3], frames[5] == "CURVE" ? frames[6] : ""));
  if (!allowed) ++refused_;
  const std::string_view reply[] = {"1.0", frames[1], allowed ? "200" : "400",
                                    allowed ? "OK" : "not allowed", "", ""};
  for (const std::string_view& part : reply) {
    zmq_send(socket_, part.data(), part.size(), &part == std::end(reply) - 1 ? 0 : ZMQ_SNDMORE);
  }
  return true;
}

}  // namespace llmd::net
