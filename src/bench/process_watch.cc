#include "bench/process_watch.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "runtime/files.h"
#include "runtime/machine.h"

namespace llmd::bench {
namespace {

uint64_t ResidentBytesOf(int pid) {
  const auto text = runtime::ReadFile("/proc/" + std::to_string(pid) + "/statm", 4096);
  if (!text) return 0;
  const auto fields = base::Split(*text, ' ');
  if (fields.size() < 2) return 0;
  return static_cast<uint64_t>(base::ParseInt(fields[1]).value_or(0)) *
         static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

ProcessWatch::ProcessWatch(std::vector<WatchedProcess> watched) : watched_(std::move(watched)) {
  for (const WatchedProcess& process : watched_) {
    costs_.push_back({.name = process.name});
    cpu_at_begin_.emplace_back(process.pids.size(), 0.0);
    cpu_last_.emplace_back(process.pids.size(), 0.0);
  }
}

base::Status ProcessWatch::Begin() {
  for (size_t i = 0; i < watched_.size(); ++i) {
    for (size_t j = 0; j < watched_[i].pids.size(); ++j) {
      const double cpu_s = runtime::ProcessCpuSeconds(watched_[i].pids[j]);
      if (cpu_s < 0) {
        return base::NotFound(base::Concat("watched process ", watched_[i].name, ": no process ",
                                           std::to_string(watched_[i].pids[j])));
      }
      cpu_at_begin_[i][j] = cpu_last_[i][j] = cpu_s;
    }
  }
  Sample();
  return {};
}

void ProcessWatch::Sample() {
  for (size_t i = 0; i < watched_.size(); ++i) {
    ProcessCost& cost = costs_[i];
    cost.cpu_s = 0;
    cost.resident_bytes = 0;
    for (size_t j = 0; j < watched_[i].pids.size(); ++j) {
      const double cpu_s = runtime::ProcessCpuSeconds(watched_[i].pids[j]);
      if (cpu_s < 0) {
        cost.gone = true;
      } else {
        cpu_last_[i][j] = cpu_s;
      }
      cost.cpu_s += cpu_last_[i][j] - cpu_at_begin_[i][j];
      cost.resident_bytes += ResidentBytesOf(watched_[i].pids[j]);
    }
    cost.resident_bytes_max = std::max(cost.resident_bytes_max, cost.resident_bytes);
  }
}

}  // namespace llmd::bench
