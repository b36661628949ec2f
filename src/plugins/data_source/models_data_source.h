// models-data-source: fetches /v1/models of every endpoint. See http_source.h for the parameters;
// there is no port.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType ModelsDataSourceType();

}  // namespace llmd::plugins
