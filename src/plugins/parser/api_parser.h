// The parser plugins that read bodies: each claims the paths of one family of APIs; the reading is
// protocol/'s.
#pragma once

#include <string>
#include <vector>

#include "plugin/catalogue.h"
#include "plugin/plugin.h"

namespace llmd::plugins {

// A path beside those of the family's ApiInfo.
using ExtraClaims = std::span<const plugin::Parser::Claim>;
// `protocols` and `extra` live as long as the program.
plugin::PluginType ApiParserType(std::string type, std::string help, protocol::ApiFamily family,
                                 std::span<const plugin::AppProtocol> protocols,
                                 ExtraClaims extra = {});

// For APIs over plain HTTP, which HTTP/2 carries as well, and for gRPC, which needs it.
inline constexpr plugin::AppProtocol kHttpApis[] = {plugin::AppProtocol::kH2c,
                                                    plugin::AppProtocol::kHttp};
inline constexpr plugin::AppProtocol kGrpcApis[] = {plugin::AppProtocol::kH2c};

}  // namespace llmd::plugins
