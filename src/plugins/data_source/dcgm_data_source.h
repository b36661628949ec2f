// dcgm-data-source: fetches the page of NVIDIA's DCGM exporter (port 9400) beside every endpoint.
// See http_source.h for the parameters, without certificates; useNodeAddress needs Kubernetes and
// is refused when true.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType DcgmDataSourceType();

}  // namespace llmd::plugins
