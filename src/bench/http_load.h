// OpenAI requests over HTTP/1.1: sends them, follows their replies, stamps every event of a stream.
#pragma once

#include <memory>

#include "bench/load_worker.h"
#include "bench/run_plan.h"
#include "runtime/loop.h"
#include "workload/pacer.h"

namespace llmd::bench {

// `loop` and `plan` outlive the client.
std::unique_ptr<LoadClient> NewHttpLoad(runtime::EventLoop& loop, const RunPlan& plan,
                                        const workload::PacerOptions& pacing);

}  // namespace llmd::bench
