// CHECK, DCHECK and BUG: what to do when an invariant does not hold.
//
// LLMD_CHECK is always on and ends the process: for what cannot happen unless our own code is
// wrong. Never on input from network, configuration or Kubernetes. LLMD_DCHECK is the same in
// builds without NDEBUG, for checks that cost. LLMD_BUG says "wrong, but we can go on": logs each
// site once, counts every time, and is fatal when SetBugFatalForTest(true) was called. The code
// after it is the tested way on. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

namespace llmd::base {

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              std::string_view message);

// One per LLMD_BUG expansion; lives in static storage and links itself into a list on first use.
struct BugSite {
  BugSite(const char* at_file, int at_line) : file(at_file), line(at_line) {}
  const char* const file;
  const int line;
  std::atomic<uint64_t> count{0};
  BugSite* next = nullptr;
};
void ReportBug(BugSite& site, std::string_view message);
// Head of the list of sites that fired, for internal_bug_total{site}.
const BugSite* FirstBugSite();
void SetBugFatalForTest(bool fatal);

}  // namespace llmd::base

#define LLMD_CHECK(condition, message)                                                  \
  do {                                                                                  \
    if (!(condition)) [[unlikely]]                                                      \
      ::llmd::base::CheckFailed(__FILE__, __LINE__, #condition, (message));             \
  } while (false)

#ifdef NDEBUG
#define LLMD_DCHECK(condition, message) \
  do {                                  \
  } while (false && (condition))
#else
#define LLMD_DCHECK(condition, message) LLMD_CHECK(condition, message)
#endif

#define LLMD_BUG(message)                                              \
  do {                                                                 \
    static ::llmd::base::BugSite llmd_bug_site(__FILE__, __LINE__);    \
    ::llmd::base::ReportBug(llmd_bug_site, (message));                 \
  } while (false)
