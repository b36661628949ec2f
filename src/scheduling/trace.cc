#include "scheduling/trace.h"

namespace llmd::scheduling {

std::string_view ExtensionPointName(ExtensionPoint point) {
  switch (point) {
    case ExtensionPoint::kProfilePicker: return "ProfilePicker";
    case ExtensionPoint::kFilter: return "Filter";
    case ExtensionPoint::kScorer: return "Scorer";
    case ExtensionPoint::kPicker: return "Picker";
    case ExtensionPoint::kProcessProfilesResults: return "ProcessProfilesResults";
    case ExtensionPoint::kAdmission: return "Admission";
    case ExtensionPoint::kDataProducer: return "DataProducer";
    case ExtensionPoint::kPreRequest: return "PreRequest";
    case ExtensionPoint::kRequestHeader: return "RequestHeader";
    case ExtensionPoint::kRequestParsing: return "RequestParsing";
    case ExtensionPoint::kResponseReceived: return "ResponseReceived";
    case ExtensionPoint::kResponseStreaming: return "ResponseStreaming";
    case ExtensionPoint::kResponseComplete: return "ResponseComplete";
  }
  return "";
}

}  // namespace llmd::scheduling
