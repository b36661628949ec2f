#include "plugins/parser/openai_parser.h"

#include <vector>

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

class OpenAiParser final : public plugin::Plugin, public plugin::Parser {
 public:
  OpenAiParser(const NoParameters&, plugin::PluginContext&) {
    for (const protocol::ApiInfo& info : protocol::OpenAiApis()) {
      claims_.push_back({info.path_suffix, info.api});
    }
  }
  std::span<const Claim> claims() const override { return claims_; }

 private:
  std::vector<Claim> claims_;
};

}  // namespace

plugin::PluginType OpenAiParserType() {
  return MakeType<OpenAiParser>("openai-parser", "Reads requests of the OpenAI API.",
                                NoParametersType);
}

}  // namespace llmd::plugins
