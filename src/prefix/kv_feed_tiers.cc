#include "prefix/kv_feed_tiers.h"

#include <algorithm>

#include "base/strings.h"

namespace llmd::prefix {

base::Result<KvTiers> KvTiers::Create(std::span<const KvTierWeight> tiers) {
  KvTiers out;
  for (const KvTierWeight& tier : tiers) {
    const auto is_named = [&](const Listed& l) {
      return base::EqualsIgnoreCase(l.name, tier.name);
    };
    if (tier.name.empty()) return std::unexpected(base::InvalidArgument("a tier without a name"));
    if (std::any_of(out.listed_.begin(), out.listed_.end(), is_named)) {
      return std::unexpected(base::InvalidArgument("tier \"" + tier.name + "\" is listed twice"));
    }
    if (!(tier.weight >= 0 && tier.weight <= 1)) {
      return std::unexpected(
          base::InvalidArgument("the weight of tier \"" + tier.name + "\" is not in [0, 1]"));
    }
    const auto weight = static_cast<float>(tier.weight);
    const auto at = std::find(out.weights_.begin(), out.weights_.end(), weight);
    const auto number = static_cast<Tier>(at - out.weights_.begin());
    if (at == out.weights_.end()) {
      if (out.weights_.size() == kTiersMax) {
        return std::unexpected(base::InvalidArgument(
            "more than 4 different tier weights: give tiers that matter alike the same weight"));
      }
      out.weights_.push_back(weight);
      out.names_.push_back(base::ToLower(tier.name));
    }
    out.listed_.push_back({base::ToLower(tier.name), number});
  }
  if (out.listed_.empty()) return std::unexpected(base::InvalidArgument("no tiers"));
  const auto least = std::min_element(out.weights_.begin(), out.weights_.end());
  out.least_ = static_cast<Tier>(least - out.weights_.begin());
  return out;
}

KvTiers KvTiers::Default() {
  const KvTierWeight tiers[] = {{"gpu", 1.0}, {"cpu", 0.8}};
  return *Create(tiers);
}

Tier KvTiers::Number(std::string_view medium) const {
  if (medium.empty()) medium = "gpu";
  const auto find = [this](std::string_view name) {
    return std::find_if(listed_.begin(), listed_.end(),
                        [&](const Listed& l) { return base::EqualsIgnoreCase(l.name, name); });
  };
  auto it = find(medium);
  if (it == listed_.end()) it = find(medium.substr(0, medium.find('_')));
  return it == listed_.end() ? least_ : it->tier;
}

}  // namespace llmd::prefix
