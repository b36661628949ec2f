// endpoint-attribute-filter: keeps endpoints by a number that an extractor reports of them.
//
// Parameters: attribute (required), producer (core-metrics-extractor when absent, "" = whoever
// reports it), onMissing Pass or Fail (Pass): endpoints without the number; fallbackOnEmpty
// (false): keep all instead of none; algorithm {type: threshold, threshold: {operator LessThan,
// LessThanOrEqual, GreaterThan, GreaterThanOrEqual, Equal or NotEqual, value}}.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType EndpointAttributeFilterType();

}  // namespace llmd::plugins
