#include "runtime/signals.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/check.h"

namespace llmd::runtime {

struct SignalWatch::Impl final : IoHandler {
  Impl(EventLoop& event_loop, std::move_only_function<void(int)> callback)
      : loop(event_loop), on_signal(std::move(callback)) {
    signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    for (int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, number);
    pthread_sigmask(SIG_BLOCK, &set, &previous);
    fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    LLMD_CHECK(fd >= 0, "signalfd failed: out of file descriptors?");
    LLMD_CHECK(loop.WatchReadable(fd, *this).ok(), "signals cannot be watched");
  }
  ~Impl() {
    loop.Unwatch(fd, *this);
    ::close(fd);
    pthread_sigmask(SIG_SETMASK, &previous, nullptr);
  }
  void OnIo(IoEvents) override {
    signalfd_siginfo info;
    while (::read(fd, &info, sizeof(info)) == sizeof(info))
      on_signal(static_cast<int>(info.ssi_signo));
  }

  EventLoop& loop;
  std::move_only_function<void(int)> on_signal;
  sigset_t previous;
  int fd = -1;
};

SignalWatch::SignalWatch(EventLoop& loop, std::move_only_function<void(int)> on_signal)
    : impl_(std::make_unique<Impl>(loop, std::move(on_signal))) {}
SignalWatch::~SignalWatch() = default;

}  // namespace llmd::runtime
