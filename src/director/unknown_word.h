// What is said of a word in a document that is none of those allowed there. Thread-safe.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/strings.h"
#include "config/document.h"

namespace llmd::director {

// `unknown WHAT "WORD", allowed are A, B`, and which of them may have been meant.
inline std::string UnknownWord(std::string_view what, std::string_view word,
                               std::span<const std::string_view> allowed) {
  std::string text = base::Concat("unknown ", what, " \"", word, "\", allowed ",
                                  allowed.size() == 1 ? "is" : "are");
  for (size_t i = 0; i < allowed.size(); ++i) text += base::Concat(i ? ", " : " ", allowed[i]);
  return text + config::DidYouMean(word, allowed);
}

}  // namespace llmd::director
