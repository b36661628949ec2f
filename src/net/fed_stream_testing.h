// A connection for fuzzers: what the peer sends is known, what it is sent is thrown away.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "base/check.h"
#include "runtime/stream.h"

namespace llmd::net {

// Gives what it is fed, at most `cut` bytes at a time; takes writes, at most eight times that.
class FedStream final : public runtime::Stream {
 public:
  FedStream(std::string_view input, size_t cut) : input_(input), cut_(cut) {}
  runtime::IoResult Read(std::span<char> room) override {
    if (input_.empty()) return {0, runtime::IoStatus::kDrained};
    const size_t n = std::min({input_.size(), room.size(), cut_});
    std::copy_n(input_.data(), n, room.data());
    input_.remove_prefix(n);
    return {n, runtime::IoStatus::kOk};
  }
  runtime::IoResult Write(std::span<const iovec> parts) override {
    size_t wanted = 0;
    for (const iovec& part : parts) {
      LLMD_CHECK(part.iov_len > 0, "an empty part");
      wanted += part.iov_len;
    }
    const size_t n = std::min(wanted, cut_ * 8);
    return {n, n < wanted ? runtime::IoStatus::kDrained : runtime::IoStatus::kOk};
  }
  void ShutdownWrite() override {}
  void ResetOnClose() override {}
  int error() const override { return 0; }
  std::string error_text() const override { return ""; }
  int fd() const override { return -1; }
  bool empty() const { return input_.empty(); }

 private:
  std::string_view input_;
  size_t cut_;
};

}  // namespace llmd::net
