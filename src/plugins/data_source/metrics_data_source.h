// metrics-data-source: what to scrape from every endpoint, how often and over which TLS.
//
// Parameters: scheme (http), path (/metrics), port (the endpoint's own), insecureSkipVerify (true,
// as upstream's), caCertPath, clientCertPath and clientKeyPath (both or none), interval (50ms; a Go
// duration, where upstream rounds to multiples of its refresh interval).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType MetricsDataSourceType();

}  // namespace llmd::plugins
