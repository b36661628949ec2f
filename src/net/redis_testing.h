// For tests that need a real redis-server: one process of their own, in a directory of its own.
#pragma once

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "net/net_testing.h"
#include "net/redis.h"
#include "runtime/thread_pool.h"

extern char** environ;

namespace llmd::net {

class RedisServer {
 public:
  static bool Installed() {
    for (const char* path : {"/usr/bin/redis-server", "/usr/local/bin/redis-server"}) {
      if (::access(path, X_OK) == 0) return true;
    }
    return false;
  }

  // `options` are further arguments, "--requirepass" and so on.
  explicit RedisServer(std::vector<std::string> options = {}) : options_(std::move(options)) {
    char name[] = "/tmp/llmd-redis-XXXXXX";
    directory_ = mkdtemp(name);
    const int fd = *runtime::ListenTcp(runtime::SocketAddress::Ipv4(kLoopback, 0));
    port_ = runtime::LocalAddress(fd)->port();
    runtime::CloseFd(fd);
    Start();
  }
  ~RedisServer() {
    Kill();
    std::filesystem::remove_all(directory_);
  }
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  // It listens some milliseconds later.
  void Start() {
    std::vector<std::string> arguments = {
        "redis-server", "--port",       std::to_string(port_), "--bind", "127.0.0.1",
        "--save",       "",             "--appendonly",        "no",     "--dir",
        directory_,     "--unixsocket", socket(),              "--logfile", directory_ + "/log"};
    arguments.insert(arguments.end(), options_.begin(), options_.end());
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    posix_spawnp(&pid_, "redis-server", nullptr, nullptr, pointers.data(), environ);
  }
  void Kill() { End(SIGKILL); }
  // The process stops to run until Resume.
  void Freeze() { ::kill(pid_, SIGSTOP); }
  void Resume() { ::kill(pid_, SIGCONT); }

  uint16_t port() const { return port_; }
  std::string socket() const { return directory_ + "/socket"; }
  std::string directory() const { return directory_; }
  std::string url() const { return "redis://127.0.0.1:" + std::to_string(port_); }

 private:
  void End(int signal) {
    if (pid_ <= 0) return;
    ::kill(pid_, signal);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

  std::vector<std::string> options_;
  std::string directory_;
  uint16_t port_ = 0;
  pid_t pid_ = 0;
};

// A copy of a reply, as text: 7, "text", (nil), !error, [a, b].
inline std::string RespText(const wire::RespValue& value) {
  using Type = wire::RespValue::Type;
  switch (value.type) {
    case Type::kNil: return "(nil)";
    case Type::kInteger: return std::to_string(value.integer);
    case Type::kError: return "!" + std::string(value.text);
    case Type::kText: return std::string(value.text);
    case Type::kArray: break;
  }
  std::string out = "[";
  for (const wire::RespValue& item : value.items) {
    if (out.size() > 1) out += ", ";
    out += RespText(item);
  }
  return out + "]";
}

// A program of given rounds that remembers what it was told.
struct RedisScript final : wire::RespProgram, RedisWaiter {
  using Command = std::vector<std::string>;

  RedisScript() = default;
  explicit RedisScript(std::vector<std::vector<Command>> given) : rounds(std::move(given)) {}

  size_t NextRound(std::string* commands) override {
    if (next == rounds.size()) return 0;
    for (const Command& command : rounds[next]) {
      const std::vector<std::string_view> arguments(command.begin(), command.end());
      wire::AppendRespCommand(arguments, commands);
    }
    return rounds[next++].size();
  }
  void OnReply(size_t, const wire::RespValue& reply) override {
    replies.push_back(RespText(reply));
  }
  void OnRedisEnd(const base::Status& s) override {
    ++ended;
    status = s;
    if (on_end) on_end();
  }

  std::vector<std::vector<Command>> rounds;
  size_t next = 0;
  std::vector<std::string> replies;
  int ended = 0;
  base::Status status;
  std::function<void()> on_end;
};

inline RedisOptions FastRedisOptions(const std::string& url) {
  RedisOptions options;
  options.address = *RedisAddress::Parse(url);
  options.reconnect_min = std::chrono::milliseconds(5);
  options.reconnect_max = std::chrono::milliseconds(20);
  return options;
}

}  // namespace llmd::net
