// Golden pairs, one folder of testdata/ each: a request as clients send it, the reply as engines
// send it, and what is read from the two, wherever they are cut. `*.hex` files are gRPC bodies.
// The first line of request.want names the API.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "protocol/golden_testing.h"
#include "protocol/request_testing.h"

namespace llmd::protocol {
namespace {

namespace fs = std::filesystem;

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::string FromHex(const std::string& text) {
  std::istringstream in(text);
  std::string out;
  for (std::string byte; in >> byte;) {
    out.push_back(static_cast<char>(std::stoi(byte, nullptr, 16)));
  }
  return out;
}

Api ApiNamed(std::string_view name) {
  for (int i = 0; i < kApiCount; ++i) {
    if (InfoOf(static_cast<Api>(i)).name == name) return static_cast<Api>(i);
  }
  ADD_FAILURE() << "no API is called " << name;
  return Api::kOpaque;
}

// The file of that stem, as bytes; its extension.
std::string Load(const fs::path& folder, std::string_view stem, std::string* extension) {
  for (const std::string_view ext : {".json", ".sse", ".hex"}) {
    const fs::path path = folder / base::Concat(stem, ext);
    if (!fs::exists(path)) continue;
    *extension = ext;
    return ext == ".hex" ? FromHex(ReadFile(path)) : ReadFile(path);
  }
  ADD_FAILURE() << "no " << stem << " in " << folder;
  return {};
}

class Golden : public ::testing::TestWithParam<fs::path> {};

TEST_P(Golden, WhateverTheCut) {
  const std::string want = ReadFile(GetParam() / "request.want");
  const size_t line_end = std::min(want.find('\n'), want.size() - 1);
  const Api api = ApiNamed(std::string_view(want).substr(0, line_end));
  std::string extension;
  const std::string request = Load(GetParam(), "request", &extension);
  EXPECT_EQ(DescribeRequest(api, request, {}), want.substr(line_end + 1));
  for (size_t cut = 0; cut <= request.size(); ++cut) {
    ASSERT_EQ(DescribeRequest(api, request, {cut}), want.substr(line_end + 1)) << "cut at " << cut;
  }
  const std::string reply = Load(GetParam(), "reply", &extension);
  const ReplyKind kind = extension == ".hex"   ? ReplyKind::kGrpc
                         : extension == ".sse" ? ReplyKind::kEvents
                                               : ReplyKind::kDocument;
  const std::string reply_want = ReadFile(GetParam() / "reply.want");
  for (size_t cut = 0; cut <= reply.size(); ++cut) {
    ASSERT_EQ(DescribeReply(api, kind, reply, cut), reply_want) << "cut at " << cut;
  }
}

std::vector<fs::path> Folders() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(LLMD_SOURCE_DIR "/src/protocol/testdata")) {
    folders.push_back(entry.path());
  }
  std::ranges::sort(folders);
  return folders;
}

INSTANTIATE_TEST_SUITE_P(Testdata, Golden, ::testing::ValuesIn(Folders()),
                         [](const auto& info) { return info.param.filename().string(); });

TEST(GoldenFolders, EveryApiHasOne) {
  std::set<Api> seen = {Api::kOpaque};
  for (const fs::path& folder : Folders()) {
    std::ifstream in(folder / "request.want");
    std::string name;
    std::getline(in, name);
    seen.insert(ApiNamed(name));
  }
  for (int i = 0; i < kApiCount; ++i) {
    EXPECT_TRUE(seen.contains(static_cast<Api>(i))) << InfoOf(static_cast<Api>(i)).name;
  }
}

}  // namespace
}  // namespace llmd::protocol
