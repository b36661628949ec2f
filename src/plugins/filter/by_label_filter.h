// by-label (deprecated): keeps endpoints by the value of one label.
//
// Parameters: label (required), validValues, allowsNoLabel (false): keep endpoints without the
// label. One of the two must allow something.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType ByLabelType();

}  // namespace llmd::plugins
