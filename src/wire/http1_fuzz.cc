// Request and response heads: no crash, the same answer whole and byte by byte, views inside the
// input, and what parses has exactly one framing.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "wire/http1.h"

namespace {

using llmd::wire::HeadParser;
using llmd::wire::HttpFraming;
using llmd::wire::ParseState;
using llmd::wire::RequestHead;
using llmd::wire::ResponseHead;

void Check(bool good) {
  if (!good) std::abort();
}

bool Inside(std::string_view part, std::string_view whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

template <class Head, class Parse>
void CheckHead(std::string_view bytes, Head& whole, Head& pieces, Parse parse) {
  HeadParser at_once;
  const ParseState state = parse(at_once, bytes, whole);
  HeadParser bit_by_bit;
  ParseState last = ParseState::kNeedMore;
  for (size_t size = 1; size <= bytes.size() && last == ParseState::kNeedMore; ++size) {
    last = parse(bit_by_bit, bytes.substr(0, size), pieces);
  }
  // A parser that was fed in pieces tells a bad byte only when the line or the head is complete.
  Check(last == state || (state == ParseState::kError && last == ParseState::kNeedMore));
  if (state != ParseState::kDone) return;
  Check(whole.head_bytes <= bytes.size() && whole.head_bytes == pieces.head_bytes);
  Check(whole.fields.size() == pieces.fields.size() && whole.framing == pieces.framing);
  for (const auto& field : whole.fields) {
    Check(!field.name.empty() && Inside(field.name, bytes) && Inside(field.value, bytes));
  }
  Check((whole.framing == HttpFraming::kLength) <= (whole.content_length > 0));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 4096) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  static RequestHead request, request_pieces;
  CheckHead(bytes, request, request_pieces,
            [](HeadParser& p, std::string_view b, RequestHead& h) { return p.ParseRequest(b, h); });
  static ResponseHead response, response_pieces;
  CheckHead(bytes, response, response_pieces,
            [](HeadParser& p, std::string_view b, ResponseHead& h) {
              return p.ParseResponse(b, h, false);
            });
  return 0;
}
