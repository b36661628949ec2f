#include "plugins/parser/api_parser.h"

#include <memory>

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

class ApiParser final : public plugin::Plugin, public plugin::Parser {
 public:
  ApiParser(protocol::ApiFamily family, std::span<const plugin::AppProtocol> protocols,
            ExtraClaims extra)
      : protocols_(protocols), claims_(extra.begin(), extra.end()) {
    for (int i = 0; i < protocol::kApiCount; ++i) {
      const protocol::ApiInfo& info = protocol::InfoOf(static_cast<protocol::Api>(i));
      if (info.family != family || info.path_suffix.empty()) continue;
      claims_.push_back({info.path_suffix, info.api, info.exact_path});
    }
  }
  std::span<const Claim> claims() const override { return claims_; }
  std::span<const plugin::AppProtocol> protocols() const override { return protocols_; }

 private:
  std::span<const plugin::AppProtocol> protocols_;
  std::vector<Claim> claims_;
};

}  // namespace

plugin::PluginType ApiParserType(std::string type, std::string help, protocol::ApiFamily family,
                                 std::span<const plugin::AppProtocol> protocols,
                                 ExtraClaims extra) {
  plugin::PluginType entry;
  entry.type = std::move(type);
  entry.kinds = KindsOf<ApiParser>();
  entry.help = std::move(help);
  entry.factory = [=](plugin::PluginContext& context) -> std::unique_ptr<plugin::Plugin> {
    NoParameters none;
    if (!context.ReadParameters(NoParametersType(), &none)) return nullptr;
    return std::make_unique<ApiParser>(family, protocols, extra);
  };
  return entry;
}

}  // namespace llmd::plugins
