// endpoint-attribute-scorer: scores by a number that an extractor reports of endpoints.
//
// score = (value - min) / (max - min), or 1 minus that, within 0 and 1; an endpoint without the
// number scores 0; with an adaptive range (min and max of the candidates), all equal score 1.
// Parameters: attributeKey (required), producer (core-metrics-extractor when absent, "" = whoever
// reports it), algorithm {type linear_lower_is_better or linear_higher_is_better, normalization
// {fixedRange {min, max} or adaptiveRange {} (the default)}}.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType EndpointAttributeScorerType();

}  // namespace llmd::plugins
