// Decision records as JSON text for /debug/decisions: who was there, what each scorer said, how old
// the inputs were, what was chosen and how it ended.
//
// Pure; thread-safe as long as its arguments are. Names come from the generation and the members of
// the moment: a record of an older generation shows its scorers by number, an endpoint that has
// left shows its number.
#pragma once

#include <span>
#include <string>

#include "director/config.h"
#include "director/record.h"
#include "fleet/fleet.h"

namespace llmd::director {

// {"decisions":[...]} with a newline at the end.
std::string ExplainRecords(std::span<const DecisionRecord> records, const Generation& generation,
                           const fleet::Members& members);

}  // namespace llmd::director
