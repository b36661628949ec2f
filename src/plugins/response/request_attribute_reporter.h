// request-attribute-reporter: a number computed from the usage that the reply told, for the proxy's
// dynamic metadata (rate limits and billing read it there).
//
// Parameters: attributes (exactly one) of {key {namespace (envoy.lb), name}, expression,
// condition}: expressions in CEL over usage.prompt_tokens, usage.completion_tokens,
// usage.total_tokens and, where the reply told it, usage.prompt_tokens_details.cached_tokens. An
// expression gives a number, cut to a whole one; 0 is not reported. A condition that is not true
// reports nothing. What fails when it is evaluated is logged (at debug level: it may be every
// request) and reports nothing.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType RequestAttributeReporterType();

}  // namespace llmd::plugins
