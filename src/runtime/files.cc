#include "runtime/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/strings.h"

namespace llmd::runtime {
namespace {

base::Status WriteAll(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return base::ErrnoStatus(errno, "write " + path);
    content.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

}  // namespace

base::Result<std::string> ReadFile(const std::string& path, size_t bytes_max) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::unexpected(base::ErrnoStatus(errno, path));
  std::string content;
  struct stat info;
  if (::fstat(fd, &info) == 0 && info.st_size > 0) {
    content.reserve(std::min(bytes_max, static_cast<size_t>(info.st_size)) + 1);
  }
  char chunk[16 << 10];
  base::Status status;
  while (true) {
    ssize_t n = ::read(fd, chunk, sizeof(chunk));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) status = base::ErrnoStatus(errno, path);
    if (n <= 0) break;
    content.append(chunk, static_cast<size_t>(n));
    if (content.size() > bytes_max) {
      status = base::ResourceExhausted(
          base::Concat(path, ": larger than ", std::to_string(bytes_max), " bytes"));
      break;
    }
  }
  ::close(fd);
  if (!status.ok()) return std::unexpected(std::move(status));
  return content;
}

base::Status WriteFileAtomically(const std::string& path, std::string_view content) {
  const std::string temporary = base::Concat(path, ".", std::to_string(::getpid()), ".tmp");
  int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return base::ErrnoStatus(errno, temporary);
  base::Status status = WriteAll(fd, content, temporary);
  if (::close(fd) != 0 && status.ok()) status = base::ErrnoStatus(errno, "close " + temporary);
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = base::ErrnoStatus(errno, "rename to " + path);
  }
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

}  // namespace llmd::runtime
