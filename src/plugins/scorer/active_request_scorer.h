// active-request-scorer: prefers endpoints to which few of our own requests are in flight.
//
// score = 1 when count <= idleThreshold, else (max - count) / max * maxBusyScore, max over the
// candidates. Reads InFlightLoad; without it every endpoint counts as idle.
// Parameters: idleThreshold (0), maxBusyScore (1), inFlightLoadProducerName (the default producer),
// requestTimeout (ignored, kept so that old configs load). Out of bounds is an error here, where
// upstream falls back to the default.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType ActiveRequestScorerType();

}  // namespace llmd::plugins
