// A grpc++ ext_proc client for peers.py: plays one request with a prompt of argv[4] bytes and its
// streamed reply, in duplex as Envoy does, argv[3] times on one channel to the picker at argv[1]
// (argv[2]: a file of PEM to trust, or "-" for plain). Prints a line for each: the endpoint named,
// the prompt's bytes if the request came back as sent, whether the reply did, the stream's status.
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "envoy/service/ext_proc/v3/external_processor.grpc.pb.h"

namespace {

using envoy::service::ext_proc::v3::ExternalProcessor;
using envoy::service::ext_proc::v3::HttpHeaders;
using envoy::service::ext_proc::v3::ProcessingRequest;
using envoy::service::ext_proc::v3::ProcessingResponse;
using Stream = grpc::ClientReaderWriter<ProcessingRequest, ProcessingResponse>;

constexpr size_t kPieceBytes = 40'000;

void Add(HttpHeaders* headers, const std::string& name, const std::string& value) {
  auto* header = headers->mutable_headers()->add_headers();
  header->set_key(name);
  header->set_raw_value(value);
}

// Sends `body` in pieces while reading what comes back until its end; returns what came back.
template <typename Body>
std::string Relay(Stream& stream, const std::string& body, Body body_of, std::string* endpoint) {
  for (size_t at = 0; at < body.size(); at += kPieceBytes) {
    ProcessingRequest request;
    auto* piece = body_of(request);
    piece->set_body(body.substr(at, kPieceBytes));
    piece->set_end_of_stream(at + kPieceBytes >= body.size());
    if (!stream.Write(request)) return {};
  }
  std::string back;
  ProcessingResponse response;
  while (stream.Read(&response)) {
    for (const auto& option :
         response.request_headers().response().header_mutation().set_headers()) {
      if (option.header().key() == "x-gateway-destination-endpoint") {
        *endpoint = option.header().raw_value();
      }
    }
    const auto& bodies = response.has_request_body() ? response.request_body()
                                                     : response.response_body();
    const auto& piece = bodies.response().body_mutation().streamed_response();
    back += piece.body();
    if (piece.end_of_stream()) break;
  }
  return back;
}

void Process(ExternalProcessor::Stub& stub, size_t bytes) {
  grpc::ClientContext context;
  auto stream = stub.Process(&context);
  const std::string body =
      R"({"model":"m","stream":true,"prompt":")" + std::string(bytes, 'x') + "\"}";
  ProcessingRequest head;
  Add(head.mutable_request_headers(), ":method", "POST");
  Add(head.mutable_request_headers(), ":path", "/v1/completions");
  Add(head.mutable_request_headers(), "content-type", "application/json");
  std::string endpoint = "none";
  stream->Write(head);
  const std::string sent =
      Relay(*stream, body, [](auto& r) { return r.mutable_request_body(); }, &endpoint);
  std::string reply;
  for (int i = 0; i < 2'000; ++i) reply += "data: {\"choices\":[{\"text\":\"x\"}]}\n\n";
  ProcessingRequest answer;
  Add(answer.mutable_response_headers(), ":status", "200");
  Add(answer.mutable_response_headers(), "content-type", "text/event-stream");
  stream->Write(answer);
  const std::string relayed =
      Relay(*stream, reply, [](auto& r) { return r.mutable_response_body(); }, &endpoint);
  stream->WritesDone();
  ProcessingResponse more;
  while (stream->Read(&more)) {
  }
  std::cout << endpoint << " " << (sent == body ? bytes : 0) << " "
            << (relayed == reply ? "whole" : "changed") << " " << stream->Finish().error_code()
            << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (const std::string trust = argv[2]; trust != "-") {
    std::ifstream file(trust);
    grpc::SslCredentialsOptions options;
    options.pem_root_certs.assign(std::istreambuf_iterator<char>(file), {});
    credentials = grpc::SslCredentials(options);
  }
  auto stub = ExternalProcessor::NewStub(grpc::CreateChannel(argv[1], credentials));
  for (int i = 0; i < std::stoi(argv[3]); ++i) Process(*stub, std::stoul(argv[4]));
  return 0;
}
