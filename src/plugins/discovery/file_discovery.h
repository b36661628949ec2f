// file-discovery: endpoints from a YAML or JSON file.
//
//   endpoints:
//     - name: vllm-0
//       namespace: default            # the default
//       address: 10.0.0.1             # IPv4, IPv6 or DNS name (upstream: IPv4 only)
//       port: "8000"                  # text as upstream's, or a number
//       labels: {llm-d.ai/role: decode}
//
// Parameters: path (required), watchFile (false; true reads the file again when it changes). The
// label `llmd.ai/draining: "true"` takes an endpoint out gently: it finishes what it has and gets
// nothing new. Read reports all errors at once and then nothing of the file counts, so that a bad
// edit keeps the old set. Limits: 1 MiB (config::kDocumentBytesMax), fleet::kEndpointsMax
// endpoints.
#pragma once

#include <string_view>

#include "plugin/catalogue.h"

namespace llmd::plugins {

inline constexpr std::string_view kDrainingLabel = "llmd.ai/draining";

plugin::PluginType FileDiscoveryType();

// IPv4, IPv6 without brackets, or a DNS name (RFC 1123: letters, digits, hyphens inside, 253
// bytes).
bool IsValidAddress(std::string_view address);

}  // namespace llmd::plugins
