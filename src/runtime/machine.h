// What this process may use of the machine, for defaults: cgroup v1 and v2 limits are respected.
// Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llmd::runtime {

// CPUs in the affinity mask, at most the cgroup quota rounded up; at least 1.
size_t AvailableCpuCount();
// The smaller of physical memory and the cgroup's limit.
uint64_t MemoryLimitBytes();
// Resident set of this process.
uint64_t ResidentBytes();
// User plus system CPU seconds of process `pid` so far, negative when it is gone. 0 means this one.
double ProcessCpuSeconds(int pid);
// Open file descriptors of this process.
size_t OpenFileCount();
// Soft limit of open files.
size_t OpenFileLimit();
// Raises the soft limit of open files to the hard one; returns the soft limit now in force.
size_t RaiseOpenFileLimit();

}  // namespace llmd::runtime
