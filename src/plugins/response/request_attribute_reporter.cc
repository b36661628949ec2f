#include "plugins/response/request_attribute_reporter.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "plugins/factory.h"
#include "telemetry/log.h"
#include "text/cel.h"

namespace llmd::plugins {
namespace {

struct Key {
  std::string name_space = "envoy.lb";
  std::string name;
};
struct Attribute {
  Key key;
  std::string expression, condition;
  config::Node node;
};
struct Parameters {
  std::vector<Attribute> attributes;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto key =
      config::Object<Key>("AttributeKey")
          .Field("namespace", "Top-level key of the dynamic metadata.", &Key::name_space)
          .Required("name", "Key inside of it.", &Key::name, config::String(1))
          .Build();
  static const auto attribute =
      config::Object<Attribute>("ReportedAttribute")
          .Required("key", "Where the number goes.", &Attribute::key, key)
          .Required("expression", "CEL over `usage` that gives the number.",
                    &Attribute::expression, config::String(1))
          .Field("condition", "CEL over `usage` that says whether to report it.",
                 &Attribute::condition)
          .Where(&Attribute::node)
          .Build();
  static const auto type =
      config::Object<Parameters>("RequestAttributeReporterParameters")
          .Required("attributes", "Exactly one.", &Parameters::attributes,
                    config::List<Attribute>(attribute, 1))
          .Build();
  return *type;
}

constexpr std::string_view kInputs[] = {"usage.prompt_tokens", "usage.completion_tokens",
                                        "usage.total_tokens",
                                        "usage.prompt_tokens_details.cached_tokens"};
using Inputs = std::array<std::optional<int64_t>, std::size(kInputs)>;

// Doubles above do not fit; they saturate, as Go's conversion does not promise to.
int64_t ToWhole(double number) {
  constexpr double kMax = 9.2e18;
  if (std::isnan(number)) return 0;
  return static_cast<int64_t>(std::clamp(std::trunc(number), -kMax, kMax));
}

class RequestAttributeReporter final : public plugin::Plugin, public plugin::ResponseProcessor {
 public:
  RequestAttributeReporter(const Parameters& parameters, plugin::PluginContext& context) {
    if (parameters.attributes.empty()) {
      context.errors().Add(context.parameters().FindOrSelf("attributes"),
                           "must contain exactly one entry");
      return;
    }
    const Attribute& attribute = parameters.attributes[0];
    key_ = attribute.key;
    if (key_.name_space.empty()) key_.name_space = Key().name_space;
    const auto compile = [&](std::string_view field, const std::string& source,
                             std::optional<text::CelExpression>* out) {
      auto compiled = text::CelExpression::Compile(source, kInputs);
      if (compiled) {
        out->emplace(*std::move(compiled));
      } else {
        context.errors().Add(attribute.node.FindOrSelf(field), compiled.error().message());
      }
    };
    compile("expression", attribute.expression, &expression_);
    if (!attribute.condition.empty()) compile("condition", attribute.condition, &condition_);
  }

  void OnResponseEnd(plugin::RequestContext& request, const plugin::ResponseEnd& end,
                     plugin::MetadataList* metadata) override {
    const protocol::Usage& usage = end.usage;
    const Inputs inputs = {usage.prompt_tokens, usage.completion_tokens, usage.total_tokens,
                           usage.has_cached ? std::optional(usage.cached_tokens) : std::nullopt};
    if (condition_) {
      const auto holds = Evaluate(request, *condition_, inputs);
      if (!holds || !std::holds_alternative<bool>(*holds) || !std::get<bool>(*holds)) return;
    }
    const auto value = Evaluate(request, *expression_, inputs);
    if (!value || std::holds_alternative<bool>(*value)) return;
    const int64_t* whole = std::get_if<int64_t>(&*value);
    const int64_t number = whole ? *whole : ToWhole(std::get<double>(*value));
    if (number == 0) return;
    metadata->Set({.name_space = key_.name_space, .name = key_.name, .value = number});
  }

 private:
  static std::optional<text::CelValue> Evaluate(const plugin::RequestContext& request,
                                                const text::CelExpression& expression,
                                                const Inputs& inputs) {
    auto value = expression.Evaluate(inputs);
    if (value) return *value;
    LLMD_LOG(kDebug, "a reported attribute has no value", {"request_id", request.request_id},
             {"error", value.error()});
    return std::nullopt;
  }

  Key key_;
  std::optional<text::CelExpression> expression_, condition_;
};

}  // namespace

plugin::PluginType RequestAttributeReporterType() {
  return MakeType<RequestAttributeReporter>(
      "request-attribute-reporter",
      "Puts a number computed from the reply's usage into the proxy's dynamic metadata.",
      ParametersType);
}

}  // namespace llmd::plugins
