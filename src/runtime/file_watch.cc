#include "runtime/file_watch.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>

#include "base/hash.h"
#include "runtime/files.h"

namespace llmd::runtime {
namespace {

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

struct FileWatch::Impl final : IoHandler {
  Impl(EventLoop& event_loop, std::string file,
       std::move_only_function<void(base::Result<std::string>)> callback, FileWatchOptions opts)
      : loop(event_loop),
        path(std::move(file)),
        changed(std::move(callback)),
        options(opts),
        settle_timer(loop, [this] { Check(); }),
        poll_timer(loop, [this] { Check(); }) {
    inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (inotify_fd >= 0 && !loop.WatchReadable(inotify_fd, *this).ok()) {
      ::close(inotify_fd);
      inotify_fd = -1;
    }
    WatchDirectories();
    initial = ReadFile(path);
    Remember(initial);
    poll_timer.ArmAfter(options.poll);
  }
  ~Impl() {
    if (inotify_fd < 0) return;
    loop.Unwatch(inotify_fd, *this);
    ::close(inotify_fd);
  }

  void WatchDirectories() {
    if (inotify_fd < 0) return;
    constexpr uint32_t kEvents = IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE |
                                 IN_MOVED_FROM | IN_ATTRIB | IN_ONLYDIR;
    // The path's own directory sees renames and ConfigMap swaps; where the path leads through links
    // to a file elsewhere, edits happen in that directory. Watching one again changes nothing.
    inotify_add_watch(inotify_fd, DirectoryOf(path).c_str(), kEvents);
    char real[PATH_MAX];
    if (::realpath(path.c_str(), real)) {
      inotify_add_watch(inotify_fd, DirectoryOf(real).c_str(), kEvents);
    }
  }

  void OnIo(IoEvents) override {
    char events[4096];
    bool any = false;
    while (::read(inotify_fd, events, sizeof(events)) > 0) any = true;
    if (!any) return;
    if (!settle_timer.armed()) first_event = loop.now();
    settle_timer.ArmAt(std::min(loop.now() + options.settle, first_event + 10 * options.settle));
  }

  void Check() {
    settle_timer.Disarm();
    poll_timer.ArmAfter(options.poll);
    WatchDirectories();
    auto content = ReadFile(path);
    if (content.has_value() == readable && (!readable || base::Hash64(*content) == hash)) return;
    Remember(content);
    changed(std::move(content));
  }

  void Remember(const base::Result<std::string>& content) {
    readable = content.has_value();
    hash = readable ? base::Hash64(*content) : 0;
  }

  EventLoop& loop;
  std::string path;
  std::move_only_function<void(base::Result<std::string>)> changed;
  FileWatchOptions options;
  Timer settle_timer;
  Timer poll_timer;
  base::TimePoint first_event{};
  int inotify_fd = -1;
  bool readable = false;
  uint64_t hash = 0;
  base::Result<std::string> initial;
};

FileWatch::FileWatch(EventLoop& loop, std::string path,
                     std::move_only_function<void(base::Result<std::string>)> changed,
                     FileWatchOptions options)
    : impl_(std::make_unique<Impl>(loop, std::move(path), std::move(changed), options)) {}
FileWatch::~FileWatch() = default;
const base::Result<std::string>& FileWatch::initial() const { return impl_->initial; }
void FileWatch::Check() { impl_->Check(); }

}  // namespace llmd::runtime
