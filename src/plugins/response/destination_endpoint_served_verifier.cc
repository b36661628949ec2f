#include "plugins/response/destination_endpoint_served_verifier.h"

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

class DestinationEndpointServedVerifier final : public plugin::Plugin,
                                                public plugin::ResponseProcessor {
 public:
  DestinationEndpointServedVerifier(const NoParameters&, plugin::PluginContext&) {}
  void OnResponseHead(plugin::RequestContext& request, const plugin::ResponseHead& head,
                      plugin::HeaderEdits* to_client) override {
    std::string_view result = head.served_endpoint.value_or("fail: missing envoy lb metadata");
    if (result.empty()) result = "fail: missing destination endpoint served metadata";
    to_client->Set(*request.arena, "x-conformance-test-served-endpoint", result);
  }
};

}  // namespace

plugin::PluginType DestinationEndpointServedVerifierType() {
  return MakeType<DestinationEndpointServedVerifier>(
      "destination-endpoint-served-verifier",
      "Tells in a response header which endpoint served the request; for tests.",
      NoParametersType);
}

}  // namespace llmd::plugins
