// header-profile-handler: a request header names the scheduling profile to run.
//
// With one profile in the config that one always runs. A header that names none of several profiles
// (or, without the header, a default that is none) chooses nothing: the request is refused with
// 429, as upstream does, and the reason is logged. Parameters: headerName (EPP-Profile),
// defaultProfile (decode).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType HeaderProfileHandlerType();

}  // namespace llmd::plugins
