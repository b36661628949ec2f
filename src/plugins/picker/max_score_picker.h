// max-score-picker: the highest scores, best first.
//
// Of equal scores the one that comes first wins; the cycle hands candidates over in the order in
// which ties are to be broken (fewest in flight, then at random). Parameter: maxNumOfEndpoints (1).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType MaxScorePickerType();

}  // namespace llmd::plugins
