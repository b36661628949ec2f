// random-picker: any endpoints, scores aside. Parameter: maxNumOfEndpoints (1).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType RandomPickerType();

}  // namespace llmd::plugins
