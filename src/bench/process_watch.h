// CPU time and resident memory of named processes, so that cost per request is measured, not
// guessed.
//
// CPU time is user plus system of all threads, those that ended included. A process that is gone
// keeps its last reading and is marked.
// Thread safety: none. Reads /proc on the caller's thread: a few tens of microseconds per process.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/options.h"

namespace llmd::bench {

struct ProcessCost {
  std::string name;
  double cpu_s = 0;                 // between Begin and the last Sample
  uint64_t resident_bytes = 0;      // at the last Sample
  uint64_t resident_bytes_max = 0;  // of all samples
  bool gone = false;
};

class ProcessWatch {
 public:
  explicit ProcessWatch(std::vector<WatchedProcess> watched);

  // From here CPU time counts. kNotFound when a process does not exist.
  base::Status Begin();
  void Sample();
  const std::vector<ProcessCost>& costs() const { return costs_; }

 private:
  std::vector<WatchedProcess> watched_;
  std::vector<std::vector<double>> cpu_at_begin_;
  std::vector<std::vector<double>> cpu_last_;
  std::vector<ProcessCost> costs_;
};

}  // namespace llmd::bench
