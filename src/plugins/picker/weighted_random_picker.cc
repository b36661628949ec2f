#include "plugins/picker/weighted_random_picker.h"

#include <algorithm>
#include <cmath>

#include "plugins/factory.h"
#include "plugins/picker/picker_parameters.h"

namespace llmd::plugins {
namespace {

class WeightedRandomPicker final : public plugin::Plugin, public plugin::Picker {
 public:
  WeightedRandomPicker(const PickerParameters& parameters, plugin::PluginContext&)
      : endpoint_count_(static_cast<size_t>(parameters.max_num_of_endpoints)) {}
  size_t endpoint_count() const override { return endpoint_count_; }
  void Pick(plugin::RequestContext& request, std::span<plugin::ScoredCandidate> scored,
            size_t wanted) const override {
    const bool all_zero = std::all_of(scored.begin(), scored.end(),
                                      [](const auto& candidate) { return candidate.score <= 0; });
    auto* keys = static_cast<double*>(
        request.arena->Allocate(scored.size() * sizeof(double), alignof(double)));
    for (size_t i = 0; i < scored.size(); ++i) {
      const double weight = all_zero ? 1.0 : scored[i].score;
      // 1 - u lies in (0, 1], so the logarithm is finite.
      keys[i] = weight > 0 ? std::log(1.0 - request.random.Uniform()) / weight : -HUGE_VAL;
    }
    for (size_t i = 0; i < wanted; ++i) {
      const auto best =
          static_cast<size_t>(std::max_element(keys + i, keys + scored.size()) - keys);
      std::rotate(keys + i, keys + best, keys + best + 1);
      std::rotate(&scored[i], &scored[best], &scored[best] + 1);
    }
  }

 private:
  const size_t endpoint_count_;
};

}  // namespace

plugin::PluginType WeightedRandomPickerType() {
  return MakeType<WeightedRandomPicker>("weighted-random-picker",
                                        "Draws endpoints at random, in proportion to their scores.",
                                        PickerParametersType);
}

}  // namespace llmd::plugins
