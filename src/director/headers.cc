#include "director/headers.h"

#include "base/strings.h"
#include "protocol/error.h"

namespace llmd::director {

bool IsControlHeader(std::string_view name) {
  if (name.size() < 2 || (name[0] | 0x20) != 'x' || name[1] != '-') return false;
  for (const ControlHeader& h : {kFairnessIdHeader, kObjectiveHeader, kModelRewriteHeader,
                                 kTtftSloHeader, kTpotSloHeader}) {
    if (base::EqualsIgnoreCase(name, h.name) || base::EqualsIgnoreCase(name, h.alias)) return true;
  }
  for (std::string_view h : {kDestinationHeader, kDestinationSubsetHeader, kDestinationServedHeader,
                             protocol::kDroppedReasonHeader}) {
    if (base::EqualsIgnoreCase(name, h)) return true;
  }
  return false;
}

}  // namespace llmd::director
