// The plugin list of llmd: every type that a configuration may name.
#pragma once

#include "plugin/catalogue.h"

namespace llmd {

plugin::Catalogue MakeCatalogue();

}  // namespace llmd
