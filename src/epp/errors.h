// A refusal as the proxy is told of it: an ImmediateResponse with the OpenAI error body, or with
// upstream's text (llm-d-router, pkg/common/error/error.go). Pure; thread-safe.
#pragma once

#include "base/arena.h"
#include "director/session.h"
#include "epp/options.h"
#include "wire/ext_proc.h"

namespace llmd::epp {

// Texts and headers lie in `arena`.
wire::ExtProcImmediateReply ImmediateReplyOf(const director::Reply& reply, ErrorFormat format,
                                             base::Arena& arena);

}  // namespace llmd::epp
