// A file that appears whole or not at all, also after a crash: written beside its place for its
// owner's eyes only, made durable, then renamed.
//
// Thread safety: none. Blocking: for pool threads and the end of the process.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace llmd::runtime {

class AtomicFile {
 public:
  // `path` is replaced by Commit; until then the bytes are in "PATH.PID.tmp".
  static base::Result<AtomicFile> Create(const std::string& path);
  // Removes what processes left that were killed while they wrote.
  static void RemoveLeftovers(const std::string& path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();  // takes back what was not committed

  base::Status Write(std::string_view bytes);
  base::Status Commit();

 private:
  AtomicFile(std::string path, std::string temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

  std::string path_, temporary_;
  int fd_;
};

}  // namespace llmd::runtime
