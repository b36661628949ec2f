// The catalogue for people: a list for the terminal, and docs/plugins.md. Pure; thread-safe.
#pragma once

#include <string>

#include "plugin/catalogue.h"

namespace llmd {

// One line per type: name, kinds, what it does.
std::string PluginList(const plugin::Catalogue& catalogue);
// Every type with its parameters, and the names that are known but not built.
std::string PluginPage(const plugin::Catalogue& catalogue);

}  // namespace llmd
