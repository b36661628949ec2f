#include "net/tls.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/strings.h"
#include "net/grpc_echo_testing.h"
#include "net/net_testing.h"
#include "runtime/files.h"

namespace llmd::net {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

// A fresh directory with self-signed certificates for "localhost" and 127.0.0.1.
class TlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/llmd-tls-XXXXXX";
    dir_ = mkdtemp(name);
    MakeCertificate("one");
  }
  void TearDown() override {
    server_.reset();
    listener_.reset();
    grpc_server_.reset();
    std::filesystem::remove_all(dir_);
  }
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }
  void MakeCertificate(const std::string& name) {
    const std::string command = base::Concat(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "
        "/CN=",
        name, " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout ", Path(name + ".key"),
        " -out ", Path(name + ".crt"), " 2>/dev/null");
    ASSERT_EQ(std::system(command.c_str()), 0) << "is the openssl program installed?";
  }
  void Serve(TestService& service) {
    auto context =
        TlsServerContext::Load({.certificate_file = Path("one.crt"), .key_file = Path("one.key")});
    ASSERT_TRUE(context.has_value()) << context.error().ToString();
    context_ = *context;
    server_ = std::make_unique<HttpServer>(
        loop_, service, HttpServerOptions{.body_bytes_max = 64 << 20, .tls = context_});
    port_ = server_->Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  }
  // One GET with the given trust; the handler tells how it went.
  void Get(HttpClient& client, TestClient& handler, const TlsClientOptions& options,
           const std::string& name, base::Slice head = base::Slice::Unowned(kGet),
           std::span<const base::Slice> body = {}) {
    auto tls = TlsClientContext::Create(options);
    ASSERT_TRUE(tls.has_value()) << tls.error().ToString();
    ClientTarget* target = client.AddTarget(
        {.address = runtime::SocketAddress::Ipv4(kLoopback, port_), .tls_name = name, .tls = *tls});
    client.Start(target, std::move(head), body, handler);
    ASSERT_TRUE(TurnUntil(loop_, [&] { return handler.done(); }));
  }

  // What `command` prints, while the loop turns.
  std::string Run(const std::string& command) {
    FILE* peer = ::popen(command.c_str(), "r");
    std::string text;
    ::fcntl(::fileno(peer), F_SETFL, O_NONBLOCK);
    EXPECT_TRUE(TurnUntil(loop_, [&] {
      char room[4096];
      const ssize_t n = ::read(::fileno(peer), room, sizeof(room));
      if (n > 0) text.append(room, static_cast<size_t>(n));
      return n == 0;
    }));
    ::pclose(peer);
    return text;
  }
  // Serves gRPC with a certificate of its own.
  void ServeSelfSigned(TlsServerOptions options, const SelfSignedOptions& self = {}) {
    listener_.reset();
    options.alpn = "h2";
    auto context = TlsServerContext::SelfSigned(self, std::move(options));
    ASSERT_TRUE(context.has_value()) << context.error().ToString();
    grpc_server_ = std::make_unique<GrpcServer>(loop_, GrpcServerOptions{.tls = *context});
    grpc_server_->AddService("/test.Echo/", echo_);
    listener_ = std::make_unique<GrpcListener>(loop_, std::vector{grpc_server_.get()});
    port_ = listener_->Listen(runtime::SocketAddress::Ipv4(kLoopback, 0)).value();
  }
  std::string OpenSslClient(const std::string& flags) {
    return Run(base::Concat("openssl s_client -connect 127.0.0.1:", std::to_string(port_), " ",
                            flags, " </dev/null 2>&1"));
  }

  std::string dir_;
  runtime::EventLoop loop_;
  EchoService echo_;
  std::unique_ptr<GrpcServer> grpc_server_;
  std::unique_ptr<GrpcListener> listener_;
  std::shared_ptr<TlsServerContext> context_;
  std::unique_ptr<HttpServer> server_;
  uint16_t port_ = 0;
};

// The tutorial: the same server and client, with a context on each side.
TEST_F(TlsTest, ServesOverTls) {
  TestService service;
  service.answer_at_once = [](ServerExchange& x) {
    EXPECT_TRUE(x.is_tls());
    x.Respond(200, "text/plain", "secret");
  };
  Serve(service);
  for (const char* name : {"localhost", "127.0.0.1"}) {
    HttpClient client(loop_);
    TestClient handler;
    Get(client, handler, {.ca_file = Path("one.crt")}, name);
    EXPECT_EQ(handler.body, "secret") << handler.error.detail;
  }
}

TEST_F(TlsTest, ConnectionsAreReused) {
  TestService service;
  service.answer_at_once = [](ServerExchange& x) { x.Respond(200, "", "x"); };
  Serve(service);
  HttpClient client(loop_);
  auto tls = TlsClientContext::Create({.ca_file = Path("one.crt")}).value();
  ClientTarget* target =
      client.AddTarget({.address = runtime::SocketAddress::Ipv4(kLoopback, port_),
                        .tls_name = "localhost",
                        .tls = tls});
  for (int i = 0; i < 5; ++i) {
    TestClient handler;
    client.Start(target, base::Slice::Unowned(kGet), {}, handler);
    ASSERT_TRUE(TurnUntil(loop_, [&] { return handler.done(); }));
    EXPECT_EQ(handler.ended, 1);
  }
  EXPECT_EQ(client.stats().connects, 1u);
  EXPECT_EQ(server_->stats().accepted, 1u);
}

TEST_F(TlsTest, LargeBodiesSurviveBothDirections) {
  TestService service;
  service.prepare = [](TestHandler& h) {
    h.on_body_end = [](TestHandler& self) { self.exchange->Respond(200, "", self.body); };
  };
  Serve(service);
  std::string body(5 << 20, '\0');
  for (size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i * 31 >> 3);
  const base::Slice slice = base::Slice::Unowned(body);
  HttpClient client(loop_);
  TestClient handler;
  Get(client, handler, {.ca_file = Path("one.crt")}, "localhost",
      loop_.buffers().Copy("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: " +
                           std::to_string(body.size()) + "\r\n\r\n"),
      {&slice, 1});
  EXPECT_EQ(handler.ended, 1) << handler.error.detail;
  EXPECT_TRUE(handler.body == body);
}

TEST_F(TlsTest, ClientsVerifyChainAndName) {
  TestService service;
  service.answer_at_once = [](ServerExchange& x) { x.Respond(200, "", "x"); };
  Serve(service);
  MakeCertificate("two");
  const struct {
    TlsClientOptions options;
    std::string name;
    bool good;
  } kCases[] = {
      {{.ca_file = Path("one.crt")}, "localhost", true},
      {{.ca_file = Path("one.crt")}, "other.example", false},
      {{.ca_file = Path("one.crt")}, "127.0.0.2", false},
      {{.ca_file = Path("two.crt")}, "localhost", false},
      {{}, "localhost", false},
      {{.insecure_skip_verify = true}, "other.example", true},
  };
  for (const auto& c : kCases) {
    HttpClient client(loop_);
    TestClient handler;
    Get(client, handler, c.options, c.name);
    EXPECT_EQ(handler.ended, c.good ? 1 : 0) << c.name;
    if (c.good) continue;
    EXPECT_EQ(handler.error.kind, ClientErrorKind::kTlsFailed);
    EXPECT_THAT(handler.error.detail, HasSubstr("certificate verify failed"));
  }
  EXPECT_GE(server_->stats().tls_failures, 4u);
}

TEST_F(TlsTest, PlainTextToATlsPortIsRefused) {
  TestService service;
  Serve(service);
  RawPeer client = RawPeer::ConnectTo(loop_, port_);
  ASSERT_TRUE(client.Send(kGet));
  ASSERT_TRUE(client.WaitForEnd());
  EXPECT_EQ(server_->stats().tls_failures, 1u);
  EXPECT_TRUE(service.seen.empty());
}

TEST_F(TlsTest, OldProtocolsAreRefused) {
  TestService service;
  service.answer_at_once = [](ServerExchange& x) { x.Respond(200, "", "x"); };
  Serve(service);
  const std::string program =
      base::Concat("openssl s_client -connect 127.0.0.1:", std::to_string(port_), " -CAfile ",
                   Path("one.crt"), " -cipher ALL:@SECLEVEL=0 -alpn h2,http/1.1 ");
  for (const auto& [flag, good] :
       {std::pair("-tls1_1", false), std::pair("-tls1_2", true), std::pair("-tls1_3", true)}) {
    const std::string text = Run(program + flag + " </dev/null 2>&1");
    EXPECT_EQ(text.find("ALPN protocol: http/1.1") != std::string::npos, good) << flag << text;
  }
}

TEST_F(TlsTest, ReloadReplacesThePairOrKeepsTheOldOne) {
  TestService service;
  service.answer_at_once = [](ServerExchange& x) { x.Respond(200, "", "x"); };
  Serve(service);
  std::vector<base::Status> told;
  TlsCertificateWatch watch(loop_, context_, [&](const base::Status& s) { told.push_back(s); });
  auto works_with = [&](const std::string& ca) {
    HttpClient client(loop_);
    TestClient handler;
    Get(client, handler, {.ca_file = Path(ca)}, "localhost");
    return handler.ended == 1;
  };
  MakeCertificate("two");
  ASSERT_TRUE(works_with("one.crt"));
  std::filesystem::copy_file(Path("one.crt"), Path("kept.crt"));
  // A key that does not belong to the certificate: told, and the old pair stays.
  ASSERT_TRUE(
      runtime::WriteFileAtomically(Path("one.key"), runtime::ReadFile(Path("two.key")).value())
          .ok());
  ASSERT_TRUE(TurnUntil(loop_, [&] { return told.size() == 1; }));
  EXPECT_FALSE(told[0].ok());
  EXPECT_TRUE(works_with("kept.crt"));
  ASSERT_TRUE(
      runtime::WriteFileAtomically(Path("one.crt"), runtime::ReadFile(Path("two.crt")).value())
          .ok());
  ASSERT_TRUE(TurnUntil(loop_, [&] { return told.size() == 2; }));
  EXPECT_TRUE(told[1].ok()) << told[1].ToString();
  EXPECT_TRUE(works_with("two.crt"));
  EXPECT_FALSE(works_with("kept.crt"));
}

TEST_F(TlsTest, BadFilesAreErrorsThatNameThem) {
  auto missing = TlsServerContext::Load({.certificate_file = Path("no.crt"), .key_file = ""});
  ASSERT_FALSE(missing.has_value());
  EXPECT_THAT(missing.error().ToString(), HasSubstr("no.crt"));
  EXPECT_FALSE(TlsClientContext::Create({.ca_file = Path("no.crt")}).has_value());
  EXPECT_FALSE(TlsClientContext::Create({.certificate_file = Path("one.crt")}).has_value());
  EXPECT_TRUE(
      TlsClientContext::Create({.certificate_file = Path("one.crt"), .key_file = Path("one.key")})
          .has_value());
}

// --- self-signed certificates and policy, for gRPC ----------------------------------------------

TEST_F(TlsTest, GrpcIsServedWithACertificateOfItsOwn) {
  ServeSelfSigned({});
  auto tls = TlsClientContext::Create({.insecure_skip_verify = true, .alpn = "h2"}).value();
  GrpcTestClient client(loop_, port_, {.tls = tls});
  auto& stream = client.Open("/test.Echo/Chat");
  const std::string large(3 << 20, 'x');
  client.Send(stream, "hello");
  client.Send(stream, large);
  ASSERT_TRUE(client.WaitForMessages(stream, 2));
  EXPECT_TRUE(echo_.last().call->is_tls());
  client.HalfClose(stream);
  ASSERT_TRUE(client.WaitForEnd(stream));
  EXPECT_EQ(stream.grpc_status, 0);
  EXPECT_EQ(stream.messages.at(0), "hello");
  EXPECT_TRUE(stream.messages.at(1) == large);
}

TEST_F(TlsTest, TheSelfSignedCertificateNamesThisHost) {
  ServeSelfSigned({}, {.names = {"picker.example", "10.1.2.3", "fd00::1"}});
  const std::string text = Run(base::Concat(
      "openssl s_client -connect 127.0.0.1:", std::to_string(port_),
      " -alpn h2 </dev/null 2>/dev/null | openssl x509 -noout -text -enddate -checkend 300000000"));
  for (std::string_view part :
       {"O = Inference Ext", "DNS:localhost", "IP Address:127.0.0.1", "IP Address:0:0:0:0:0:0:0:1",
        "DNS:picker.example", "IP Address:10.1.2.3", "IP Address:FD00:0:0:0:0:0:0:1",
        "NIST CURVE: P-256", "TLS Web Server Authentication", "Certificate will not expire"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  // Two servers do not share a serial number or a key.
  auto identity = [&] {
    return Run(base::Concat("openssl s_client -connect 127.0.0.1:", std::to_string(port_),
                            " </dev/null 2>/dev/null | openssl x509 -noout -serial -pubkey"));
  };
  const std::string one = identity();
  ServeSelfSigned({});
  EXPECT_NE(one, identity());
}

TEST_F(TlsTest, VersionsAndSuitesAreChosenByGosNames) {
  const std::string kRsa = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
  const std::string kEcdsa = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
  const std::string kSuite13 = "TLS_AES_128_GCM_SHA256";
  const std::string kOld = "-cipher ALL:@SECLEVEL=0 ";
  const struct {
    std::string min_version;
    std::vector<std::string> suites;
    std::string client;
    std::string expected;  // "" when it must fail
  } kCases[] = {
      {"", {}, "-tls1_2", "TLSv1.2"},
      {"", {}, kOld + "-tls1_1", ""},
      {"VersionTLS13", {}, "-tls1_2", ""},
      {"VersionTLS13", {}, "-tls1_3", "TLSv1.3"},
      {"VersionTLS11", {}, kOld + "-tls1_1", "TLSv1.1"},
      {"VersionTLS11", {}, kOld + "-tls1", ""},
      {"VersionTLS10", {}, kOld + "-tls1", "TLSv1"},
      {"", {kRsa}, "-tls1_2", "ECDHE-RSA-AES128-GCM-SHA256"},
      {"", {kEcdsa}, "-tls1_2", "ECDHE-ECDSA-AES256-GCM-SHA384"},
      {"", {kRsa, kEcdsa}, "-tls1_2", "ECDHE-ECDSA-AES256-GCM-SHA384"},
      {"", {kEcdsa}, "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256", ""},
      {"", {kSuite13}, "-tls1_2", ""},
      {"", {kSuite13}, "-tls1_3", "TLSv1.3"},
  };
  for (const auto& c : kCases) {
    ServeSelfSigned({.min_version = c.min_version, .cipher_suites = c.suites});
    const std::string text = OpenSslClient(c.client + " -alpn h2");
    if (c.expected.empty()) {
      EXPECT_THAT(text, HasSubstr("Cipher is (NONE)")) << c.min_version << c.client;
    } else {
      EXPECT_THAT(text, HasSubstr(c.expected));
      EXPECT_THAT(text, HasSubstr("ALPN protocol: h2"));
    }
  }
  auto version = TlsServerContext::SelfSigned({}, {.min_version = "TLS1.2"});
  ASSERT_FALSE(version.has_value());
  EXPECT_THAT(version.error().ToString(), HasSubstr("VersionTLS12"));
  auto suite = TlsServerContext::SelfSigned({}, {.cipher_suites = {"AES128-SHA"}});
  ASSERT_FALSE(suite.has_value());
  EXPECT_THAT(suite.error().ToString(), HasSubstr("\"AES128-SHA\" is not known"));
}

}  // namespace
}  // namespace llmd::net
