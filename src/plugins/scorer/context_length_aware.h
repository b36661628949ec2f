// context-length-aware: prefers endpoints that were set up for prompts of this length; with
// enableFiltering it also drops the others (it is a filter and a scorer).
//
// An endpoint says so in a label, "min-max" in tokens. Score of a prompt of n tokens: no label .5;
// a label that is no range 0; inside: .3 + .7 * (.7 / (1 + width/10000) + .3 * (max - n) / width),
// 1 when min = max; outside: .3 / (1 + distance/1000). The filter keeps endpoints in range and
// those without a label.
// Parameters: label (llm-d.ai/context-length-range), enableFiltering (false).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType ContextLengthAwareType();

}  // namespace llmd::plugins
