#include "plugins/picker/random_picker.h"

#include <utility>

#include "plugins/factory.h"
#include "plugins/picker/picker_parameters.h"

namespace llmd::plugins {
namespace {

class RandomPicker final : public plugin::Plugin, public plugin::Picker {
 public:
  RandomPicker(const PickerParameters& parameters, plugin::PluginContext&)
      : endpoint_count_(static_cast<size_t>(parameters.max_num_of_endpoints)) {}
  size_t endpoint_count() const override { return endpoint_count_; }
  void Pick(plugin::RequestContext& request, std::span<plugin::ScoredCandidate> scored,
            size_t wanted) const override {
    for (size_t i = 0; i < wanted; ++i) {
      std::swap(scored[i], scored[i + request.random.Below(scored.size() - i)]);
    }
  }

 private:
  const size_t endpoint_count_;
};

}  // namespace

plugin::PluginType RandomPickerType() {
  return MakeType<RandomPicker>("random-picker", "Picks endpoints at random.",
                                PickerParametersType);
}

}  // namespace llmd::plugins
