// header-based-testing-filter: keeps the endpoints that the request itself names, for conformance
// tests of gateways.
//
// Header test-epp-endpoint-selection: "ip" or "ip:port" pieces, comma-separated, IPv6 bare or in
// brackets; without the header nobody is kept. A piece without a port names the last endpoint of
// its address. The order of the list is not kept: the picker decides.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType HeaderBasedTestingFilterType();

}  // namespace llmd::plugins
