// Compiling a configuration in order to look at it, for `config` and `epp --check`.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "director/config.h"
#include "fleet/fleet.h"
#include "plugin/catalogue.h"

namespace llmd {

struct ConfigInput {
  std::string file, text;  // at most one; neither: the built-in defaults
  bool allow_experimental = false;
  bool endpoints_given = false;  // the document needs no discovery
};

base::Result<std::shared_ptr<const director::Generation>> CompileConfig(
    const ConfigInput& input, const plugin::Catalogue& catalogue, fleet::Fleet& fleet);

}  // namespace llmd
