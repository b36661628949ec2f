#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace llmd::base {
namespace {

std::atomic<BugSite*> g_first_site{nullptr};
std::atomic<bool> g_bug_fatal{false};

}  // namespace

void CheckFailed(const char* file, int line, const char* condition, std::string_view message) {
  std::fprintf(stderr, "CHECK failed at %s:%d: %s (%.*s)\n", file, line, condition,
               static_cast<int>(message.size()), message.data());
  std::abort();
}

void ReportBug(BugSite& site, std::string_view message) {
  if (g_bug_fatal.load(std::memory_order_relaxed)) {
    CheckFailed(site.file, site.line, "BUG", message);
  }
  if (site.count.fetch_add(1, std::memory_order_relaxed) != 0) return;
  std::fprintf(stderr, "BUG at %s:%d: %.*s (logged once, counted in internal_bug_total)\n",
               site.file, site.line, static_cast<int>(message.size()), message.data());
  // Only the thread that counted from zero links the site, so `next` is written once.
  BugSite* head = g_first_site.load(std::memory_order_acquire);
  do {
    site.next = head;
  } while (!g_first_site.compare_exchange_weak(head, &site, std::memory_order_release));
}

const BugSite* FirstBugSite() { return g_first_site.load(std::memory_order_acquire); }

void SetBugFatalForTest(bool fatal) { g_bug_fatal.store(fatal, std::memory_order_relaxed); }

}  // namespace llmd::base
