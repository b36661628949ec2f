// What all workers of a run share: where requests go and what they hold. Plain values, const while
// the workers run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "bench/options.h"
#include "net/http_client.h"
#include "workload/body.h"
#include "workload/prompts.h"

namespace llmd::bench {

// OpenAI requests over HTTP/1.1.
struct HttpTarget {
  net::TargetSpec spec;
  std::string head;  // request line and fields, up to the value of Content-Length
};

// What Envoy would say to an endpoint picker of the same requests.
struct ExtProcTarget {
  net::TargetSpec spec;
  std::string authority;
  ExtProcOptions options;
  struct Header {
    std::string name;
    std::string value;
  };
  // Of every request, but content-length and x-request-id.
  std::vector<Header> headers;
};

struct RunPlan {
  std::vector<HttpTarget> targets;        // requests take turns
  std::optional<ExtProcTarget> ext_proc;  // instead of targets
  workload::PromptSource prompts;
  workload::BodyTemplate body;
  bool stream = false;
  base::Duration request_timeout{};
  base::Duration drain_timeout{};
};

}  // namespace llmd::bench
