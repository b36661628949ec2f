#include "plugins/parser/passthrough_parser.h"

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

class PassthroughParser final : public plugin::Plugin, public plugin::Parser {
 public:
  PassthroughParser(const NoParameters&, plugin::PluginContext&) {}
  std::span<const Claim> claims() const override { return {}; }
};

}  // namespace

plugin::PluginType PassthroughParserType() {
  return MakeType<PassthroughParser>(
      "passthrough-parser", "Forwards what no other parser reads, unread.", NoParametersType);
}

}  // namespace llmd::plugins
