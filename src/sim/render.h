// What vLLM's render routes answer: a request as the engine would get it, its prompts as token ids
// (captures chat_render.txt and completions_render.txt).
//
// Pure: appends to the caller's string.
#pragma once

#include <string>
#include <string_view>

#include "sim/request.h"

namespace llmd::sim {

// Of prompt `index` of the request. `id` is the reply's, `model` what it names.
void AppendRendered(const SimRequest& request, size_t index, std::string_view id,
                    std::string_view model, std::string* out);

}  // namespace llmd::sim
