#include "plugins/parser/passthrough_parser.h"

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

class PassthroughParser final : public plugin::Plugin, public plugin::Parser {
 public:
  PassthroughParser(const NoParameters&, plugin::PluginContext&) {}
  std::span<const Claim> claims() const override { return {}; }
  std::span<const plugin::AppProtocol> protocols() const override { return {}; }
};

}  // namespace

plugin::PluginType PassthroughParserType() {
  return MakeType<PassthroughParser>(
      "passthrough-parser",
      "Routes what no other parser claims, unread: no model, no prompt, no token usage. Name it "
      "last: parsers behind it are not used.",
      NoParametersType);
}

}  // namespace llmd::plugins
