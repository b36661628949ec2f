// dcgm-extractor: GPU use of an endpoint, 0 to 1, as endpoint attribute GPUUtilization, from the
// page of NVIDIA's DCGM exporter: the largest DCGM_FI_DEV_GPU_UTIL / 100 among the samples whose
// label `pod` is the endpoint's name or absent.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType DcgmExtractorType();

}  // namespace llmd::plugins
