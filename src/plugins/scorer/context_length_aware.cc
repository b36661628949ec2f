#include "plugins/scorer/context_length_aware.h"

#include "base/strings.h"
#include "plugin/keys.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

constexpr double kOutsideMax = 0.3;  // an endpoint out of range never beats one in range

struct Parameters {
  std::string label = "llm-d.ai/context-length-range";
  bool enable_filtering = false;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("ContextLengthAwareParameters")
          .Field("label", "Label with an endpoint's range of prompt lengths, min-max in tokens.",
                 &Parameters::label, config::String(1))
          .Field("enableFiltering", "Also drop endpoints whose range the prompt is out of.",
                 &Parameters::enable_filtering)
          .Build();
  return *type;
}

struct Range {
  int64_t min = 0, max = 0;
  bool Holds(int64_t n) const { return n >= min && n <= max; }
};

std::optional<Range> ReadRange(std::string_view text) {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos) return {};
  const auto min = base::ParseInt(base::Trim(text.substr(0, dash)));
  const auto max = base::ParseInt(base::Trim(text.substr(dash + 1)));
  if (!min || !max || *min < 0 || *min > *max) return {};
  return Range{*min, *max};
}

double ScoreOf(const Range& range, int64_t n) {
  if (!range.Holds(n)) {
    const auto distance = static_cast<double>(n > range.max ? n - range.max : range.min - n);
    return kOutsideMax / (1 + distance / 1000);
  }
  const auto width = static_cast<double>(range.max - range.min);
  if (width == 0) return 1;
  const double tightness = 1 / (1 + width / 10'000);
  const double headroom = static_cast<double>(range.max - n) / width;
  return kOutsideMax + (1 - kOutsideMax) * (0.7 * tightness + 0.3 * headroom);
}

class ContextLengthAware final : public plugin::Plugin,
                                 public plugin::Filter,
                                 public plugin::Scorer {
 public:
  ContextLengthAware(const Parameters& parameters, plugin::PluginContext& context)
      : parameters_(parameters), tokens_(context.Consumes<plugin::TokenizedPrompt>("")) {}
  plugin::ScorerCategory category() const override { return plugin::ScorerCategory::kAffinity; }

  void Apply(const plugin::RequestContext& request, plugin::Candidates& candidates) const override {
    if (!parameters_.enable_filtering) return;
    const int64_t length = Length(request);
    candidates.KeepIf([&](plugin::EndpointNumber n) {
      const std::string* label = LabelOf(request, n);
      if (!label) return true;
      const auto range = ReadRange(*label);
      return range && range->Holds(length);
    });
  }

  void Score(const plugin::RequestContext& request,
             std::span<const plugin::EndpointNumber> candidates,
             std::span<double> scores) const override {
    const int64_t length = Length(request);
    for (size_t i = 0; i < candidates.size(); ++i) {
      const std::string* label = LabelOf(request, candidates[i]);
      const auto range = label ? ReadRange(*label) : std::nullopt;
      scores[i] = range ? ScoreOf(*range, length) : label ? 0 : 0.5;
    }
  }

 private:
  const std::string* LabelOf(const plugin::RequestContext& request,
                             plugin::EndpointNumber n) const {
    return request.fleet->endpoint(n).spec.Label(parameters_.label);
  }
  int64_t Length(const plugin::RequestContext& request) const {
    const plugin::TokenizedPrompt* prompt = request.attributes.Get(tokens_);
    return prompt ? static_cast<int64_t>(prompt->token_count) : 0;
  }

  const Parameters parameters_;
  const plugin::Slot<plugin::TokenizedPrompt> tokens_;
};

}  // namespace

plugin::PluginType ContextLengthAwareType() {
  return MakeType<ContextLengthAware>(
      "context-length-aware", "Prefers endpoints that were set up for prompts of this length.",
      ParametersType);
}

}  // namespace llmd::plugins
