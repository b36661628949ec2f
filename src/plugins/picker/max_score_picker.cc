#include "plugins/picker/max_score_picker.h"

#include <algorithm>

#include "plugins/factory.h"
#include "plugins/picker/picker_parameters.h"

namespace llmd::plugins {
namespace {

class MaxScorePicker final : public plugin::Plugin, public plugin::Picker {
 public:
  MaxScorePicker(const PickerParameters& parameters, plugin::PluginContext&)
      : endpoint_count_(static_cast<size_t>(parameters.max_num_of_endpoints)) {}
  size_t endpoint_count() const override { return endpoint_count_; }
  void Pick(plugin::RequestContext&, std::span<plugin::ScoredCandidate> scored,
            size_t wanted) const override {
    for (size_t i = 0; i < wanted; ++i) {
      size_t best = i;
      for (size_t j = i + 1; j < scored.size(); ++j) {
        if (scored[j].score > scored[best].score) best = j;
      }
      // Those between move up by one, so that ties further on keep their order.
      const plugin::ScoredCandidate chosen = scored[best];
      std::copy_backward(&scored[i], &scored[best], &scored[best] + 1);
      scored[i] = chosen;
    }
  }

 private:
  const size_t endpoint_count_;
};

}  // namespace

plugin::PluginType MaxScorePickerType() {
  return MakeType<MaxScorePicker>(
      "max-score-picker", "Picks the endpoints with the highest scores.", PickerParametersType);
}

}  // namespace llmd::plugins
