// For the picker's tests: a proxy that speaks ext_proc to it, message by message.
//
//   Proxy proxy(picker.port());
//   auto& call = proxy.Begin();
//   proxy.RequestHeaders(call, {{":path", "/v1/chat/completions"}});
//   proxy.RequestBody(call, R"({"model":"m","messages":[]})", true);
//   auto replies = proxy.Replies(call, 2);
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/grpc_testing.h"
#include "wire/ext_proc_client.h"

namespace llmd::epp {

// A ProcessingResponse in values of its own.
struct TestReply {
  std::string kind;  // "request_headers" and so on, "immediate", ""
  std::string body;
  bool end_of_stream = false;
  bool clear_route_cache = false;
  int status = 0;  // immediate
  std::vector<std::pair<std::string, std::string>> set;
  std::vector<std::string> removed;
  // "namespace/name" and the text or number.
  std::vector<std::pair<std::string, std::string>> metadata;

  std::string Set(std::string_view name) const {
    for (const auto& [n, v] : set) {
      if (n == name) return v;
    }
    return "(not set)";
  }
  std::string Metadata(std::string_view name) const {
    for (const auto& [n, v] : metadata) {
      if (n == name) return v;
    }
    return "(not set)";
  }
};

class Proxy {
 public:
  using Call = net::GrpcTestClient::Stream;
  using Headers = std::vector<std::pair<std::string, std::string>>;

  explicit Proxy(uint16_t port, net::GrpcTestClient::Options options = {})
      : client_(loop_, port, std::move(options)), writer_(&loop_.buffers()) {}

  Call& Begin() { return client_.Open("/envoy.service.ext_proc.v3.ExternalProcessor/Process"); }
  net::GrpcTestClient& client() { return client_; }

  // What the messages from now on say beside their content.
  void SetMetadata(std::span<const wire::StructField> fields) { context_.filter_metadata = fields; }

  void RequestHeaders(Call& call, const Headers& headers, bool end_of_stream = false) {
    SendHeaders(call, wire::ExtProcKind::kRequestHeaders, headers, end_of_stream);
  }
  void RequestBody(Call& call, std::string_view body, bool end_of_stream) {
    SendBody(call, wire::ExtProcKind::kRequestBody, body, end_of_stream);
  }
  void RequestTrailers(Call& call) {
    client_.Send(call, writer_.Trailers(wire::ExtProcKind::kRequestTrailers, {}, context_).view());
  }
  void ResponseHeaders(Call& call, const Headers& headers, bool end_of_stream = false) {
    SendHeaders(call, wire::ExtProcKind::kResponseHeaders, headers, end_of_stream);
  }
  void ResponseBody(Call& call, std::string_view body, bool end_of_stream) {
    SendBody(call, wire::ExtProcKind::kResponseBody, body, end_of_stream);
  }
  void ResponseTrailers(Call& call) {
    client_.Send(call, writer_.Trailers(wire::ExtProcKind::kResponseTrailers, {}, context_).view());
  }
  void Raw(Call& call, std::string_view message) { client_.Send(call, message); }

  // The call's replies so far once there are `count`, or the call ended, or five seconds passed.
  std::vector<TestReply> Replies(Call& call, size_t count) {
    client_.WaitFor([&] { return call.messages.size() >= count || call.closed; });
    std::vector<TestReply> replies;
    for (const std::string& message : call.messages) replies.push_back(Read(message));
    return replies;
  }
  bool WaitForEnd(Call& call) { return client_.WaitForEnd(call); }
  // Answers that arrive in a while in which nothing is awaited.
  void TurnABit() {
    for (int i = 0; i < 10; ++i) {
      client_.Pump();
      loop_.Turn(std::chrono::milliseconds(2));
    }
  }

 private:
  void SendHeaders(Call& call, wire::ExtProcKind kind, const Headers& headers,
                   bool end_of_stream) {
    std::vector<wire::ExtProcHeader> views;
    for (const auto& [name, value] : headers) views.push_back({name, value});
    client_.Send(call, writer_.Headers(kind, views, end_of_stream, context_).view());
  }
  void SendBody(Call& call, wire::ExtProcKind kind, std::string_view body, bool end_of_stream) {
    const base::Slice slice = base::Slice::Unowned(body);
    std::vector<base::Slice> out;
    writer_.Body(kind, {&slice, body.empty() ? 0u : 1u}, end_of_stream, &out, context_);
    std::string message;
    for (const base::Slice& piece : out) message += piece.view();
    client_.Send(call, message);
  }
  static TestReply Read(const std::string& message) {
    base::Arena arena;
    wire::ExtProcReplyReader reader(&arena);
    TestReply out;
    if (!reader.Feed(base::Slice::Unowned(message), true).ok()) return out;
    const wire::ExtProcReply& reply = reader.reply();
    out.kind = reply.immediate ? "immediate" : std::string(ExtProcKindName(reply.kind));
    std::vector<base::Slice> body;
    reader.TakeBody(&body);
    for (const base::Slice& piece : body) out.body += piece.view();
    out.end_of_stream = reply.end_of_stream;
    out.clear_route_cache = reply.clear_route_cache;
    out.status = reply.status;
    for (const auto& h : reply.set_headers) out.set.emplace_back(h.name, h.value);
    for (const auto name : reply.remove_headers) out.removed.emplace_back(name);
    for (const wire::StructField& space : reply.dynamic_metadata) {
      for (const wire::StructField& field : space.fields) ReadField(space.name, field, &out);
    }
    return out;
  }
  static void ReadField(std::string_view space, const wire::StructField& field, TestReply* out) {
    const std::string name = std::string(space) + "/" + std::string(field.name);
    if (field.kind == wire::StructKind::kString) out->metadata.emplace_back(name, field.text);
    if (field.kind == wire::StructKind::kNumber) {
      char text[32];
      std::snprintf(text, sizeof(text), "%.9g", field.number);
      out->metadata.emplace_back(name, text);
    }
    for (const wire::StructField& inner : field.fields) ReadField(name, inner, out);
  }

  runtime::EventLoop loop_;
  net::GrpcTestClient client_;
  wire::ExtProcClientWriter writer_;
  wire::ExtProcContext context_;
};

}  // namespace llmd::epp
