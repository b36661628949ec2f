// models-data-extractor: which models an endpoint serves, from the page of models-data-source;
// shown in /debug/plugins/state.
//
// Limits: 1,000 names per endpoint, as many endpoints as there can be; a page that is no list of
// models is skipped.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType ModelsDataExtractorType();

}  // namespace llmd::plugins
