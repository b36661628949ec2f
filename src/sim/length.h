// How long a reply is in `random` mode, distributed as llm-d-inference-sim's (pkg/dataset).
// Pure: chance comes from the caller's generator.
#pragma once

#include <cstdint>

#include "base/random.h"

namespace llmd::sim {

// With max_tokens: 1 to `most`. Probabilities .2, .3, .2, .05, .1 over five buckets below `most`,
// and .15 for `most` itself. Above 101 tokens the buckets are 20 wide and the fourth takes the
// rest.
uint32_t RandomLengthUpTo(uint32_t most, base::Random* random);

// Without: normal with mean 40 and deviation 20, within 1 to `most`; uniform if `most` is below 20.
uint32_t RandomLength(uint32_t most, base::Random* random);

}  // namespace llmd::sim
