// weighted-random-picker: draws without replacement, each with a chance in proportion to its score.
//
// A-Res (Efraimidis and Spirakis 2006): the largest keys u^(1/score) win, u uniform in (0, 1).
// Compared are the logarithms, log(u) / score. A score of 0 is drawn only when no other is left,
// then in the order in which the cycle handed candidates over; when all scores are 0 the draw is
// uniform. Parameter: maxNumOfEndpoints (1).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType WeightedRandomPickerType();

}  // namespace llmd::plugins
