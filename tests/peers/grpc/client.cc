// A grpc++ client for tests/peers/grpc_test.py: does what its third argument says against the
// server at argv[1] (argv[2]: a file of PEM to trust, or "-" for plain) and prints what it got.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "health.grpc.pb.h"

namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

int Check(Health::Stub& stub, const std::string& service) {
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  HealthCheckRequest request;
  HealthCheckResponse response;
  request.set_service(service);
  const grpc::Status status = stub.Check(&context, request, &response);
  std::cout << status.error_code() << " " << response.status() << std::endl;
  return 0;
}

// Prints each status until `count` came, then cancels.
int Watch(Health::Stub& stub, const std::string& service, int count) {
  grpc::ClientContext context;
  HealthCheckRequest request;
  request.set_service(service);
  auto reader = stub.Watch(&context, request);
  HealthCheckResponse response;
  for (int i = 0; i < count && reader->Read(&response); ++i) {
    std::cout << response.status() << std::endl;
  }
  context.TryCancel();
  std::cout << "end " << reader->Finish().error_code() << std::endl;
  return 0;
}

// Sends `count` messages of `bytes` on one stream; prints how many came back whole.
int Echo(const std::shared_ptr<grpc::Channel>& channel, size_t bytes, int count) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto wait = [&queue] {
    void* tag;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  auto call = stub.PrepareCall(&context, "/test.Peer/Echo", &queue);
  call->StartCall(nullptr);
  if (!wait()) return 1;
  int whole = 0;
  for (int i = 0; i < count; ++i) {
    std::string text(bytes, static_cast<char>('a' + i % 26));
    grpc::Slice slice(text);
    call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    if (!wait()) break;
    grpc::ByteBuffer answer;
    call->Read(&answer, nullptr);
    if (!wait()) break;
    grpc::Slice joined;
    if (!answer.DumpToSingleSlice(&joined).ok()) break;
    whole += std::string(reinterpret_cast<const char*>(joined.begin()), joined.size()) == text;
  }
  call->WritesDone(nullptr);
  wait();
  grpc::Status status;
  call->Finish(&status, nullptr);
  wait();
  std::cout << whole << " " << status.error_code() << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) return 2;
  const std::string trust = argv[2], what = argv[3], name = argv[4];
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (trust != "-") {
    std::ifstream file(trust);
    grpc::SslCredentialsOptions options;
    options.pem_root_certs.assign(std::istreambuf_iterator<char>(file), {});
    credentials = grpc::SslCredentials(options);
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  auto channel = grpc::CreateCustomChannel(argv[1], credentials, arguments);
  auto stub = Health::NewStub(channel);
  const int count = std::stoi(argv[5]);
  if (what == "check") return Check(*stub, name);
  if (what == "watch") return Watch(*stub, name, count);
  return Echo(channel, std::stoul(name), count);
}
