#include "runtime/machine.h"

#include <sched.h>
#include <dirent.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>

#include "base/strings.h"
#include "runtime/files.h"

namespace llmd::runtime {
namespace {

constexpr std::string_view kRoot = "/sys/fs/cgroup";

std::optional<std::string> ReadSmall(const std::string& path) {
  auto content = ReadFile(path, 1 << 20);
  if (!content) return std::nullopt;
  while (!content->empty() && content->back() == '\n') content->pop_back();
  return *std::move(content);
}

// The path of this process in the hierarchy of `controller` ("" for cgroup v2).
std::string CgroupPath(std::string_view controller) {
  const std::string text = ReadSmall("/proc/self/cgroup").value_or("");
  for (std::string_view line : base::Split(text, '\n')) {
    auto parts = base::Split(line, ':');
    if (parts.size() < 3) continue;
    for (std::string_view name : base::Split(parts[1], ',')) {
      if (name == controller)
        return std::string(line.substr(parts[0].size() + parts[1].size() + 2));
    }
  }
  return "/";
}

// Calls read(directory) for the process's group and all groups above; in a container whose own
// group is the visible root, the path of the host does not exist and only the root counts.
template <class Fn>
void ForEachGroup(const std::string& mount, std::string path, Fn read) {
  while (true) {
    read(mount + (path == "/" ? "" : path));
    if (path.empty() || path == "/") return;
    path.resize(path.rfind('/'));
  }
}

double QuotaCpus() {
  double cpus = std::numeric_limits<double>::infinity();
  ForEachGroup(std::string(kRoot), CgroupPath(""), [&](const std::string& dir) {
    const std::string text = ReadSmall(dir + "/cpu.max").value_or("");
    auto parts = base::Split(text, ' ');
    if (parts.size() != 2) return;
    auto quota = base::ParseDouble(parts[0]);
    auto period = base::ParseDouble(parts[1]);
    if (quota && period && *period > 0) cpus = std::min(cpus, *quota / *period);
  });
  ForEachGroup(std::string(kRoot) + "/cpu", CgroupPath("cpu"), [&](const std::string& dir) {
    auto quota = base::ParseDouble(ReadSmall(dir + "/cpu.cfs_quota_us").value_or(""));
    auto period = base::ParseDouble(ReadSmall(dir + "/cpu.cfs_period_us").value_or(""));
    if (quota && period && *quota > 0 && *period > 0) cpus = std::min(cpus, *quota / *period);
  });
  return cpus;
}

}  // namespace

size_t AvailableCpuCount() {
  cpu_set_t set;
  size_t count = 1;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) count = static_cast<size_t>(CPU_COUNT(&set));
  const double quota = QuotaCpus();
  if (quota < static_cast<double>(count)) count = static_cast<size_t>(quota + 0.999);
  return std::max<size_t>(count, 1);
}

uint64_t MemoryLimitBytes() {
  struct sysinfo info;
  uint64_t limit = std::numeric_limits<uint64_t>::max();
  if (sysinfo(&info) == 0) limit = static_cast<uint64_t>(info.totalram) * info.mem_unit;
  auto take = [&](const std::string& file) {
    auto value = base::ParseInt(ReadSmall(file).value_or(""));
    if (value && *value > 0) limit = std::min(limit, static_cast<uint64_t>(*value));
  };
  ForEachGroup(std::string(kRoot), CgroupPath(""),
               [&](const std::string& dir) { take(dir + "/memory.max"); });
  ForEachGroup(std::string(kRoot) + "/memory", CgroupPath("memory"),
               [&](const std::string& dir) { take(dir + "/memory.limit_in_bytes"); });
  return limit;
}

uint64_t ResidentBytes() {
  const std::string text = ReadSmall("/proc/self/statm").value_or("");
  auto parts = base::Split(text, ' ');
  if (parts.size() < 2) return 0;
  return static_cast<uint64_t>(base::ParseInt(parts[1]).value_or(0)) *
         static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

double ProcessCpuSeconds(int pid) {
  // The process's CPU clock counts nanoseconds where /proc/PID/stat counts ticks of 10 ms; threads
  // that ended are included in both. Linux gives no pid above 2^22, and a clock id has no room for
  // arbitrary ones.
  if (pid < 0 || pid > 1 << 22) return -1;
  clockid_t clock;
  timespec time;
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0) return -1;
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

size_t OpenFileCount() {
  DIR* directory = ::opendir("/proc/self/fd");
  if (!directory) return 0;
  size_t count = 0;
  while (const dirent* entry = ::readdir(directory)) count += entry->d_name[0] != '.';
  ::closedir(directory);
  return count - 1;  // the directory itself
}

size_t OpenFileLimit() {
  rlimit limit;
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

size_t RaiseOpenFileLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

}  // namespace llmd::runtime
