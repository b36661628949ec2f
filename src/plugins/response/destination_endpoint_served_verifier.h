// destination-endpoint-served-verifier: tells a conformance test which endpoint served the request,
// as the proxy says.
//
// Response header x-conformance-test-served-endpoint: "ip:port", or "fail: ..." when the proxy does
// not say.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType DestinationEndpointServedVerifierType();

}  // namespace llmd::plugins
