// Tells when the content behind a path changed: edited in place, replaced by rename, or swapped
// through a Kubernetes ConfigMap (path -> ..data -> ..timestamped directory).
//
// The directory is watched (inotify), changes are gathered for `settle`, then the file is read and
// its hash compared, so that touching a file or several events for one edit give no call. Where
// inotify cannot be had the file is polled every `poll`.
// Thread safety: belongs to the loop's thread. Reading the file blocks the loop for its duration:
// keep watches on a control loop, not on a relay worker.
// Limits: files up to kFileBytesMax.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "runtime/loop.h"

namespace llmd::runtime {

struct FileWatchOptions {
  base::Duration settle = std::chrono::milliseconds(50);
  base::Duration poll = std::chrono::seconds(10);  // safety net beside inotify, and without it
};

class FileWatch {
 public:
  // `changed` gets the new content, or an error once when the file cannot be read any more. It is
  // not called for the content at construction (see initial()).
  FileWatch(EventLoop& loop, std::string path,
            std::move_only_function<void(base::Result<std::string>)> changed,
            FileWatchOptions options = {});
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

  // The content when the watch began; later changes relate to it.
  const base::Result<std::string>& initial() const;
  // Looks at once instead of waiting for an event.
  void Check();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::runtime
