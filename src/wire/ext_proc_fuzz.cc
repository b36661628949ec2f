// Both readers on arbitrary bytes in arbitrary pieces: what they make of them does not depend on
// the cut; what the protobuf library accepts as well they read alike, once it is written anew
// (which leaves out what we refuse and the library tolerates: groups, wrong wire types). Input:
// number of cuts, that many cut bytes, the message (an even number of cuts: a request).
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "wire/ext_proc_oracle_testing.h"

namespace llmd::wire {
namespace {

template <class Reader>
base::Status Read(std::string_view message, const std::vector<size_t>& cuts, std::string* text) {
  base::BufferPool pool(0);
  base::Arena arena;
  Reader reader(&arena);
  const base::Status status = FeedCut(message, cuts, &pool, &reader);
  if (status.ok()) *text = Text(reader);
  return status;
}

template <class Reader, class Message>
void Check(std::string_view message, const std::vector<size_t>& cuts) {
  std::string whole, cut;
  const base::Status status = Read<Reader>(message, {}, &whole);
  const base::Status cut_status = Read<Reader>(message, cuts, &cut);
  LLMD_CHECK(status.ToString() == cut_status.ToString(), "the error depends on the cut");
  LLMD_CHECK(whole == cut, "the message depends on the cut");

  Message judge;
  if (!judge.ParseFromArray(message.data(), static_cast<int>(message.size()))) return;
  judge.DiscardUnknownFields();
  std::string text;
  const base::Status again = Read<Reader>(judge.SerializeAsString(), {}, &text);
  if (again.code() == base::StatusCode::kResourceExhausted) return;  // a limit of ours
  LLMD_CHECK(again.ok(), "a message of the library is refused");
  if (text.find("RESOURCE_EXHAUSTED") != text.npos) return;
  LLMD_CHECK(text == Text(judge), "the library reads another message");
}

}  // namespace
}  // namespace llmd::wire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  google::protobuf::SetLogHandler(nullptr);
  if (size < 1) return 0;
  const size_t cut_count = std::min<size_t>(data[0] % 16, size - 1);
  const std::string_view message(reinterpret_cast<const char*>(data) + 1 + cut_count,
                                 size - 1 - cut_count);
  std::vector<size_t> cuts;
  for (size_t i = 0; i < cut_count; ++i) cuts.push_back(data[1 + i] * message.size() / 255);
  std::sort(cuts.begin(), cuts.end());
  namespace wire = llmd::wire;
  if (data[0] % 2 == 0) {
    wire::Check<wire::ExtProcReader, wire::pb::ProcessingRequest>(message, cuts);
  } else {
    wire::Check<wire::ExtProcReplyReader, wire::pb::ProcessingResponse>(message, cuts);
  }
  return 0;
}
