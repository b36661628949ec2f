#include "runtime/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/strings.h"

namespace llmd::runtime {

base::Result<AtomicFile> AtomicFile::Create(const std::string& path) {
  std::string temporary = base::Concat(path, ".", std::to_string(::getpid()), ".tmp");
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return std::unexpected(base::ErrnoStatus(errno, temporary));
  return AtomicFile(path, std::move(temporary), fd);
}

void AtomicFile::RemoveLeftovers(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr std::string_view kSuffix = ".tmp";
  const std::string prefix = fs::path(path).filename().string() + ".";
  const fs::path folder = fs::path(path).parent_path();
  std::error_code error;  // then there is nothing to remove
  for (fs::directory_iterator it(folder.empty() ? "." : folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::string_view pid = name;
    if (!pid.starts_with(prefix) || !pid.ends_with(kSuffix)) continue;
    pid.remove_prefix(prefix.size());
    if (pid.size() <= kSuffix.size()) continue;
    pid.remove_suffix(kSuffix.size());
    if (pid.find_first_not_of("0123456789") == std::string_view::npos) {
      ::unlink(it->path().c_str());
    }
  }
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)) {}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

base::Status AtomicFile::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return base::ErrnoStatus(errno, temporary_);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return base::OkStatus();
}

base::Status AtomicFile::Commit() {
  if (::fsync(fd_) != 0) return base::ErrnoStatus(errno, temporary_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return base::ErrnoStatus(errno, path_);
  ::close(std::exchange(fd_, -1));
  // The new name, too.
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return base::ErrnoStatus(errno, folder);
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  return result == 0 ? base::OkStatus() : base::ErrnoStatus(error, folder);
}

}  // namespace llmd::runtime
