// Any bytes, as a message and as gRPC frames, give the same events wherever they are cut. Input: a
// cut byte, then the bytes.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "wire/grpc_frames.h"
#include "wire/proto_scan.h"

namespace {

using namespace llmd::wire;

// Fields below 4 are entered, those below 8 taken; taken content without its parts' borders.
std::string Scan(std::string_view message, size_t cut) {
  ProtoScanner scan;
  scan.Begin(message.size());
  std::string out;
  for (const std::string_view part : {message.substr(0, cut), message.substr(cut)}) {
    const std::vector<char> chunk(part.begin(), part.end());
    scan.Feed({chunk.data(), chunk.size()});
    for (ProtoEvent e; (e = scan.Next()) != ProtoEvent::kMore;) {
      if (e == ProtoEvent::kBytes) {
        out.append(scan.part());
        continue;
      }
      if (e == ProtoEvent::kLength && scan.field() < 4 && scan.depth() < kProtoScanDepthMax) {
        scan.Enter();
      } else if (e == ProtoEvent::kLength && scan.field() < 8) {
        scan.Take();
      }
      out += std::to_string(static_cast<int>(e)) + "," + std::to_string(scan.field()) + "," +
             std::to_string(scan.value()) + ";";
      if (e == ProtoEvent::kError || e == ProtoEvent::kEnd) return out;
    }
  }
  LLMD_CHECK(false, "a message that is all there has neither an end nor an error");
  return out;
}

std::string Frames(std::string_view body, size_t cut) {
  GrpcFrames frames;
  std::string out;
  for (const std::string_view part : {body.substr(0, cut), body.substr(cut)}) {
    const std::vector<char> chunk(part.begin(), part.end());
    frames.Feed({chunk.data(), chunk.size()});
    for (GrpcFrames::Event e; (e = frames.Next()) != GrpcFrames::Event::kMore;) {
      if (e == GrpcFrames::Event::kMessage) {
        out += (frames.compressed() ? "z" : "#") + std::to_string(frames.length());
      } else {
        out.append(frames.part());
      }
    }
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = data[0] * bytes.size() / 256;
  LLMD_CHECK(Scan(bytes, cut) == Scan(bytes, 0), "the events depend on the cut");
  LLMD_CHECK(Frames(bytes, cut) == Frames(bytes, 0), "the messages depend on the cut");
  return 0;
}
