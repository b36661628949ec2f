// A request is the same for any cutting of its body, its model's place holds its model, and a
// rewritten body reads back with the new model. Input: API, number of cuts, that many cut bytes,
// the body.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "protocol/request_testing.h"

namespace llmd::protocol {
namespace {

std::vector<size_t> Cuts(const uint8_t* bytes, size_t count, size_t size) {
  std::vector<size_t> cuts;
  for (size_t i = 0; i < count; ++i) cuts.push_back(bytes[i] * size / 256);
  std::sort(cuts.begin(), cuts.end());
  return cuts;
}

void CheckRewrite(Api api, std::string_view body) {
  base::Arena arena;
  Request request;
  RequestParser parser(api, arena, &request, {.model_required = false});
  parser.Feed(body);
  if (!parser.Finish().ok() || !InfoOf(api).takes_model) return;
  const wire::Edit edit = ModelEdit(request, "new \"model\"", arena);
  const std::string rewritten =
      base::Concat(body.substr(0, edit.begin), edit.bytes.view(), body.substr(edit.end));
  Request again;
  RequestParser second(api, arena, &again);
  second.Feed(rewritten);
  LLMD_CHECK(second.Finish().ok(), "a rewritten body is refused");
  LLMD_CHECK(again.model == "new \"model\"", "a rewritten body has another model");
  LLMD_CHECK(again.text_bytes == request.text_bytes, "a rewrite changed the content");
}

}  // namespace
}  // namespace llmd::protocol

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace llmd::protocol;
  if (size < 2) return 0;
  const Api api = static_cast<Api>(data[0] % kApiCount);
  const size_t cut_count = std::min<size_t>(data[1] % 16, size - 2);
  const std::string_view body(reinterpret_cast<const char*>(data) + 2 + cut_count,
                              size - 2 - cut_count);
  const std::string whole = DescribeRequest(api, body, {});
  const std::string cut = DescribeRequest(api, body, Cuts(data + 2, cut_count, body.size()));
  // A value that is no JSON and stands where none of its kind may is wrong for two reasons; which
  // of them is met first depends on the cut.
  const auto malformed = [](const std::string& outcome) {
    return outcome.find("malformed ") != outcome.npos;
  };
  const bool both_errors = whole.starts_with("INVALID") && cut.starts_with("INVALID");
  const bool loose = both_errors && (malformed(whole) || malformed(cut));
  LLMD_CHECK(whole == cut || loose, "the request depends on the cut");
  CheckRewrite(api, body);
  return 0;
}
