#include "plugins/picker/max_score_picker.h"

#include <algorithm>

#include "plugins/factory.h"
#include "plugins/picker/picker_parameters.h"

namespace llmd::plugins {
namespace {

constexpr size_t kOnePassMax = 16;  // a pick and its fallbacks; whoever wants more pays for it

// Moves the `count` best to the front, best first and equal ones as they stood, in one pass. The
// others keep their order.
void BringForward(std::span<plugin::ScoredCandidate> scored, size_t count) {
  size_t best[kOnePassMax];
  size_t found = 0;
  for (size_t i = 0; i < scored.size(); ++i) {
    const double score = scored[i].score;
    if (found == count && !(scored[best[count - 1]].score < score)) continue;
    size_t at = found < count ? found++ : count - 1;
    for (; at > 0 && scored[best[at - 1]].score < score; --at) best[at] = best[at - 1];
    best[at] = i;
  }
  plugin::ScoredCandidate chosen[kOnePassMax];
  for (size_t k = 0; k < count; ++k) chosen[k] = scored[best[k]];
  std::sort(best, best + count);
  for (size_t k = count; k > 0; --k) {  // those between two chosen ones move up over the later ones
    const size_t begin = k > 1 ? best[k - 2] + 1 : 0, end = best[k - 1];
    std::copy_backward(scored.data() + begin, scored.data() + end,
                       scored.data() + end + (count + 1 - k));
  }
  std::copy_n(chosen, count, scored.begin());
}

class MaxScorePicker final : public plugin::Plugin, public plugin::Picker {
 public:
  MaxScorePicker(const PickerParameters& parameters, plugin::PluginContext&)
      : endpoint_count_(static_cast<size_t>(parameters.max_num_of_endpoints)) {}
  size_t endpoint_count() const override { return endpoint_count_; }
  bool takes_highest() const override { return true; }
  void Pick(plugin::RequestContext&, std::span<plugin::ScoredCandidate> scored,
            size_t wanted) const override {
    for (size_t i = 0; i < wanted; i += kOnePassMax) {
      BringForward(scored.subspan(i), std::min(kOnePassMax, wanted - i));
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
