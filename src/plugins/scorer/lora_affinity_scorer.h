// lora-affinity-scorer: prefers endpoints that have the request's LoRA adapter at hand.
//
// Score: 1 the adapter is loaded, or else in use; .8 there is room for another one; .6 a request
// waits for it already; 0 else. Where a server says which adapters are in memory
// (vllm:lora_adapter_loaded), that counts and not which are in use.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType LoraAffinityScorerType();

}  // namespace llmd::plugins
