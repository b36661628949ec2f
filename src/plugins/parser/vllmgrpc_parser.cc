#include "plugins/parser/vllmgrpc_parser.h"

#include "plugins/parser/api_parser.h"

namespace llmd::plugins {
namespace {

constexpr plugin::Parser::Claim kOtherMethods[] = {
    {"vllm.grpc.engine.VllmEngine/HealthCheck", protocol::Api::kVllmGrpcOther},
    {"vllm.grpc.engine.VllmEngine/Abort", protocol::Api::kVllmGrpcOther},
    {"vllm.grpc.engine.VllmEngine/GetModelInfo", protocol::Api::kVllmGrpcOther},
    {"vllm.grpc.engine.VllmEngine/GetServerInfo", protocol::Api::kVllmGrpcOther},
};

}  // namespace

plugin::PluginType VllmGrpcParserType() {
  return ApiParserType(
      "vllmgrpc-parser",
      "Reads requests and token usage of vLLM's gRPC service (Generate, Embed; its other methods "
      "are routed unread). For pools with appProtocol kubernetes.io/h2c; compressed messages are "
      "refused; there is no model in them to rewrite.",
      protocol::ApiFamily::kVllmGrpc, kGrpcApis, kOtherMethods);
}

}  // namespace llmd::plugins
