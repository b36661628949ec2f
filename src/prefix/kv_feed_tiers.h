// KvTiers: the tiers that an operator weighs, and which of them a medium is that an engine names.
//
// Thread safety: immutable after construction. Limits: kTiersMax different weights.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "prefix/kv_index.h"

namespace llmd::prefix {

struct KvTierWeight {
  std::string name;  // lower case: "gpu", "cpu", "storage"
  double weight = 1;
};

// Which tier a medium is. Distinct weights are numbered in the order of their first mention; media
// of one weight share a number, since only the weight is ever asked for. A medium that is not
// listed counts as the part before its first '_' ("cpu_pinned" as "cpu"), else as the tier of least
// weight: better to undervalue it than to send requests there for nothing.
class KvTiers {
 public:
  static constexpr size_t kTiersMax = 4;  // of KvIndex

  // InvalidArgument: no tier, more than kTiersMax distinct weights, a weight outside [0, 1], a name
  // twice or empty.
  static base::Result<KvTiers> Create(std::span<const KvTierWeight> tiers);
  // gpu 1.0, cpu 0.8: upstream's defaults.
  static KvTiers Default();

  // Empty is "gpu". Upper or lower case.
  Tier Number(std::string_view medium) const;
  // By number; what KvIndex::Match takes.
  std::span<const float> weights() const { return weights_; }
  // Names of a number, the first one listed.
  std::string_view name(Tier tier) const { return names_[tier]; }

 private:
  struct Listed {
    std::string name;
    Tier tier;
  };
  std::vector<Listed> listed_;
  std::vector<float> weights_;
  std::vector<std::string> names_;
  Tier least_ = 0;
};

}  // namespace llmd::prefix
