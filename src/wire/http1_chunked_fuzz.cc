// Chunked bodies: no crash, the same body and the same end whole and byte by byte, pieces inside
// the input. What decodes is encoded again and must decode to the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "wire/http1.h"

namespace {

using Step = llmd::wire::ChunkedDecoder::Step;

void Check(bool good) {
  if (!good) std::abort();
}

struct Outcome {
  std::string body;
  Step last = Step::kNeedMore;
  size_t used = 0;
};

Outcome Decode(std::string_view bytes, size_t step_bytes) {
  llmd::wire::ChunkedDecoder decoder;
  Outcome out;
  while (out.used < bytes.size() && out.last == Step::kNeedMore) {
    std::string_view input = bytes.substr(out.used, step_bytes);
    const std::string_view whole = input;
    std::string_view piece;
    while ((out.last = decoder.Next(input, piece)) == Step::kData) {
      Check(!piece.empty() && piece.data() >= whole.data() &&
            piece.data() + piece.size() <= whole.data() + whole.size());
      out.body += piece;
    }
    out.used += whole.size() - input.size();
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Outcome whole = Decode(bytes, bytes.size() + 1);
  const Outcome single = Decode(bytes, 1);
  Check(whole.body == single.body && whole.last == single.last && whole.used == single.used);
  if (whole.last != Step::kEnd) return 0;
  char line[18];
  std::string again;
  if (!whole.body.empty()) {
    again.append(line, llmd::wire::WriteChunkSize(whole.body.size(), line));
    again += whole.body + "\r\n";
  }
  again += "0\r\n\r\n";
  const Outcome second = Decode(again, 7);
  Check(second.last == Step::kEnd && second.body == whole.body && second.used == again.size());
  return 0;
}
