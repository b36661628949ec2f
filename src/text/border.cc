#include "text/border.h"

namespace llmd::text {

base::Status ToStatus(LlmdTextStatus status, const ErrorText& error) {
  switch (status) {
    case LLMD_TEXT_INVALID:
      return base::InvalidArgument(error.text());
    case LLMD_TEXT_FAILED:
      return base::FailedPrecondition(error.text());
    case LLMD_TEXT_UNSUPPORTED:
      return base::Unimplemented(error.text());
    case LLMD_TEXT_LIMIT:
      return base::ResourceExhausted(error.text());
    default:
      return base::Internal(error.text());
  }
}

}  // namespace llmd::text
