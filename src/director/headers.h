// Headers that steer a request (llm-d-router: pkg/epp/metadata, pkg/common/routing). Names are
// lower-case; compare ignoring case. Constants, thread-safe.
#pragma once

#include <string_view>

namespace llmd::director {

// A header and the deprecated name that is read as well.
struct ControlHeader {
  std::string_view name;
  std::string_view alias;
};

inline constexpr ControlHeader kFairnessIdHeader{"x-llm-d-inference-fairness-id",
                                                 "x-gateway-inference-fairness-id"};
inline constexpr ControlHeader kObjectiveHeader{"x-llm-d-inference-objective",
                                                "x-gateway-inference-objective"};
inline constexpr ControlHeader kModelRewriteHeader{"x-llm-d-model-name-rewrite",
                                                   "x-gateway-model-name-rewrite"};
inline constexpr ControlHeader kTtftSloHeader{"x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"};
inline constexpr ControlHeader kTpotSloHeader{"x-llm-d-slo-tpot-ms", "x-slo-tpot-ms"};
inline constexpr std::string_view kDestinationHeader = "x-gateway-destination-endpoint";
inline constexpr std::string_view kDestinationSubsetHeader =
    "x-gateway-destination-endpoint-subset";
inline constexpr std::string_view kDestinationServedHeader =
    "x-gateway-destination-endpoint-served";

inline constexpr std::string_view kDefaultFairnessId = "default-flow";

}  // namespace llmd::director
