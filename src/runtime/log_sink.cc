#include "runtime/log_sink.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/clock.h"

namespace llmd::runtime {
namespace {

base::Result<int> OpenOutput(const std::string& path) {
  if (path.empty()) return STDERR_FILENO;
  if (path == "-") return STDOUT_FILENO;
  int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return std::unexpected(base::ErrnoStatus(errno, "log file " + path));
  return fd;
}

void CloseOutput(int fd) {
  if (fd > STDERR_FILENO) ::close(fd);
}

// What cannot be written (disk full, reader gone) is lost: there is nobody left to tell.
void WriteOut(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      // A terminal or pipe that someone else made non-blocking.
      pollfd wait{.fd = fd, .events = POLLOUT, .revents = 0};
      ::poll(&wait, 1, 1000);
      continue;
    }
    if (n < 0) return;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

struct AsyncLogSink::Impl {
  LogSinkOptions options;
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable idle;
  std::string waiting;  // guarded by mutex, like all below
  std::string writing;  // the thread's own between taking and giving back
  int fd = -1;
  bool busy = false;
  bool hurry = false;
  bool stop = false;
  std::atomic<uint64_t> dropped{0};
  std::thread thread;

  void Run() {
    std::unique_lock lock(mutex);
    while (true) {
      wake.wait(lock, [&] { return stop || !waiting.empty(); });
      if (waiting.empty()) return;
      wake.wait_for(lock, options.gather,
                    [&] { return stop || hurry || waiting.size() > options.buffer_bytes_max / 2; });
      writing.swap(waiting);
      busy = true;
      const int output = fd;
      lock.unlock();
      WriteOut(output, writing);
      writing.clear();
      lock.lock();
      busy = false;
      if (waiting.empty()) {
        hurry = false;
        idle.notify_all();
      }
    }
  }
};

base::Result<std::unique_ptr<AsyncLogSink>> AsyncLogSink::Open(LogSinkOptions options) {
  LLMD_ASSIGN_OR_RETURN(const int fd, OpenOutput(options.path));
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  impl->fd = fd;
  return std::unique_ptr<AsyncLogSink>(new AsyncLogSink(std::move(impl)));
}

AsyncLogSink::AsyncLogSink(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  impl_->thread = std::thread([impl = impl_.get()] {
    pthread_setname_np(pthread_self(), "log");
    impl->Run();
  });
}

AsyncLogSink::~AsyncLogSink() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stop = true;
  }
  impl_->wake.notify_one();
  impl_->thread.join();
  CloseOutput(impl_->fd);
}

base::WallTime AsyncLogSink::Now() { return WallNow(); }

void AsyncLogSink::WriteLine(std::string_view line) {
  bool notify;
  {
    std::lock_guard lock(impl_->mutex);
    const size_t before = impl_->waiting.size();
    const size_t half = impl_->options.buffer_bytes_max / 2;
    if (before + line.size() > impl_->options.buffer_bytes_max) {
      impl_->dropped.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    impl_->waiting.append(line);
    // The thread waits for the first line of a batch, and for a batch that grows large.
    notify = before == 0 || (before <= half && before + line.size() > half);
  }
  if (notify) impl_->wake.notify_one();
}

void AsyncLogSink::Flush() {
  std::unique_lock lock(impl_->mutex);
  if (impl_->waiting.empty() && !impl_->busy) return;
  impl_->hurry = true;
  impl_->wake.notify_one();
  impl_->idle.wait(lock, [&] { return impl_->waiting.empty() && !impl_->busy; });
}

base::Status AsyncLogSink::Reopen() {
  LLMD_ASSIGN_OR_RETURN(const int fresh, OpenOutput(impl_->options.path));
  Flush();
  std::unique_lock lock(impl_->mutex);
  impl_->idle.wait(lock, [&] { return !impl_->busy; });
  CloseOutput(std::exchange(impl_->fd, fresh));
  return {};
}

uint64_t AsyncLogSink::dropped_count() const {
  return impl_->dropped.load(std::memory_order_relaxed);
}

}  // namespace llmd::runtime
