// header-label-affinity-scorer: 1 for endpoints whose label has the value of a request header,
// else 0; without the header 0 for all.
//
// Parameters, both required: headerName, labelKey.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType HeaderLabelAffinityScorerType();

}  // namespace llmd::plugins
