// Any bytes: what one way of reading accepts, the other ways and another implementation accept too.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "wire/msgpack.h"

namespace {

using namespace llmd::wire;

size_t Depth(const nlohmann::json& value) {
  size_t depth = 0;
  if (value.is_structured()) {
    for (const auto& item : value) depth = std::max(depth, Depth(item));
    ++depth;
  }
  return depth;
}

// Reads one value by its parts, as deep as `depth`.
bool Walk(MsgpackReader* in, uint32_t depth) {
  uint64_t bits;
  double number;
  bool flag;
  std::string_view text;
  uint32_t count;
  if (in->ReadNil() || in->ReadBool(&flag) || in->ReadBits(&bits) || in->ReadNumber(&number) ||
      in->ReadText(&text) || in->ReadBinary(&text)) {
    return true;
  }
  const MsgpackType type = in->Peek();
  if (type == MsgpackType::kExtension) return in->Skip();
  uint64_t items;
  if (in->ReadArray(&count)) {
    items = count;
  } else if (in->ReadMap(&count)) {
    items = uint64_t{count} * 2;
  } else {
    return false;
  }
  if (depth + 1 == kMsgpackDepthMax) return false;
  for (; items > 0; --items) {
    if (!Walk(in, depth + 1)) return false;
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 4096) return 0;
  const std::vector<char> exact(data, data + size);  // so that one byte too far is seen
  const std::string_view bytes(exact.data(), exact.size());

  MsgpackReader skip(bytes), walk(bytes);
  const bool skipped = skip.Skip();
  LLMD_CHECK(skipped || skip.bytes_left() == size, "a refused value was moved over");
  LLMD_CHECK(skipped == Walk(&walk, 0), "Skip and the single reads disagree");
  LLMD_CHECK(!skipped || skip.bytes_left() == walk.bytes_left(), "they end at different places");

  const nlohmann::json theirs = nlohmann::json::from_msgpack(bytes, /*strict=*/true,
                                                             /*allow_exceptions=*/false);
  if (!theirs.is_discarded() && Depth(theirs) < kMsgpackDepthMax) {
    LLMD_CHECK(skipped && skip.bytes_left() == 0, "what another implementation reads is refused");
  }

  for (const size_t count : {size / 8, size / 4, size / 2}) {
    std::vector<uint32_t> run(count), single(count);
    MsgpackReader fast(bytes), slow(bytes);
    bool good = true;
    for (uint32_t& value : single) {
      uint64_t bits;
      good = good && slow.ReadUint(&bits) && bits <= UINT32_MAX;
      if (good) value = static_cast<uint32_t>(bits);
    }
    LLMD_CHECK(fast.ReadUint32s(run) == good, "a run is judged otherwise than its numbers");
    LLMD_CHECK(!good || (run == single && fast.bytes_left() == slow.bytes_left()),
               "a run is read otherwise than its numbers");
  }
  return 0;
}
