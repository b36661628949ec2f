// single-profile-handler: runs the one profile there is. More than one is a config error.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType SingleProfileHandlerType();

}  // namespace llmd::plugins
