// Report: what a run found, for people (a table) and for programs (JSON).
//
// The JSON has inference-perf's names where it measures the same (load_summary, successes.latency
// with mean, min, max, median and pNN in seconds, throughput, prompt_tokens, failures.by_label) and
// its own beside them (processes, generator, warnings, config).
// Value type; the functions are pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bench/measure.h"
#include "bench/options.h"
#include "bench/process_watch.h"

namespace llmd::bench {

struct GeneratorCost {
  double cpu_s = 0;           // of all worker threads in the measured part
  double busiest_worker = 0;  // CPU time / elapsed of the busiest one
  uint32_t workers = 1;
};

struct Report {
  BenchOptions options;  // with the model that was found; the API key removed
  Measurements measured;
  double send_s = 0;     // from the start of the measured part to the last request sent
  double elapsed_s = 0;  // to the last reply
  bool interrupted = false;
  GeneratorCost generator;
  std::vector<ProcessCost> processes;

  double achieved_rate() const;  // requests sent per second of sending
  double throughput() const;     // successful requests per second
};

// Sentences for whatever makes the numbers doubtful; empty for a sound run.
std::vector<std::string> Warnings(const Report& report);
// "16 connections, chat, streamed, 1024-byte prompts, 16 output tokens".
std::string Describe(const BenchOptions& options);
std::string ToTable(const Report& report);
std::string ToJson(const Report& report);

}  // namespace llmd::bench
