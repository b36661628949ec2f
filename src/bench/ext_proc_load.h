// The same requests as Envoy would put them to an endpoint picker: one ext_proc stream each,
// FULL_DUPLEX_STREAMED both ways, over a few HTTP/2 connections.
//
// A stream: request headers, the body in messages of 32 KiB, an empty one that ends it; the
// picker's headers reply and the whole body echoed; then the response as the options say; then
// RST_STREAM, as Envoy does. What is timed: from the last request byte handed to the kernel to the
// headers reply
// (`decision`), and of a streamed response from each chunk sent to its echo (`chunk_echo`).
// A stream fails when the picker refuses (an immediate reply), names no endpoint, or echoes another
// number of bytes than it got.
#pragma once

#include <memory>

#include "bench/load_worker.h"
#include "bench/run_plan.h"
#include "runtime/loop.h"
#include "workload/pacer.h"

namespace llmd::bench {

// `loop` and `plan` outlive the client; plan.ext_proc is set.
std::unique_ptr<LoadClient> NewExtProcLoad(runtime::EventLoop& loop, const RunPlan& plan,
                                           const workload::PacerOptions& pacing);

}  // namespace llmd::bench
