// What the files of this room share at the C border of the crate llmd-text.
#pragma once

#include <llmd_text.h>

#include <array>
#include <string>
#include <string_view>

#include "base/status.h"

namespace llmd::text {

// An error's text: enough for a position, a name as long as a sane expression and the types.
class ErrorText {
 public:
  LlmdTextMessage* out() { return &message_; }
  std::string text() const { return std::string(buffer_.data(), message_.size); }

 private:
  std::array<char, 512> buffer_;
  LlmdTextMessage message_{.data = buffer_.data(), .capacity = buffer_.size(), .size = 0};
};

// `status` may not be LLMD_TEXT_OK.
base::Status ToStatus(LlmdTextStatus status, const ErrorText& error);

inline LlmdTextSlice ToSlice(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace llmd::text
