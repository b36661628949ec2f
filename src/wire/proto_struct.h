// google.protobuf.Struct, the protobuf form of a JSON object, as a tree of views: what Envoy's
// filter metadata and ext_proc's dynamic metadata are made of.
//
// Thread safety: plain values and pure functions.
// Invariant: a tree owns nothing; names, texts and spans live where the caller or the arena put
// them. Limits: kStructDepthMax, kStructFieldsMax.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/arena.h"
#include "base/status.h"
#include "wire/protobuf.h"

namespace llmd::wire {

enum class StructKind : uint8_t { kNull, kNumber, kString, kBool, kStruct, kList };

// One field of a Struct, or one value of a list (then without a name).
struct StructField {
  std::string_view name;
  StructKind kind = StructKind::kNull;
  bool flag = false;                     // kBool
  double number = 0;                     // kNumber
  std::string_view text;                 // kString
  std::span<const StructField> fields;   // kStruct, kList

  static StructField Number(std::string_view name, double number) {
    return {.name = name, .kind = StructKind::kNumber, .number = number};
  }
  static StructField String(std::string_view name, std::string_view text) {
    return {.name = name, .kind = StructKind::kString, .text = text};
  }
  static StructField Bool(std::string_view name, bool flag) {
    return {.name = name, .kind = StructKind::kBool, .flag = flag};
  }
  static StructField Struct(std::string_view name, std::span<const StructField> fields) {
    return {.name = name, .kind = StructKind::kStruct, .fields = fields};
  }
  static StructField List(std::string_view name, std::span<const StructField> values) {
    return {.name = name, .kind = StructKind::kList, .fields = values};
  }
};

// Metadata is two or three levels deep. Protobuf libraries stop at 100 nested messages, and a level
// here is three of them.
constexpr size_t kStructDepthMax = 24;
// A subset hint names every endpoint of a pool: ten thousand in the largest, one field each.
constexpr size_t kStructFieldsMax = 32 << 10;

// The fields of the serialized Struct `message`; views of it, spans in `arena`. A name that occurs
// twice stays twice (FindField takes the last, as protobuf does).
base::Result<std::span<const StructField>> ReadStruct(std::string_view message,
                                                      base::Arena* arena);
// The last field of that name, nullptr when there is none.
const StructField* FindField(std::span<const StructField> fields, std::string_view name);

// Writes the content of a Struct (no tag, no length). What lies deeper than kStructDepthMax is
// written as null and reported as a bug: trees come from our own code.
void WriteStruct(std::span<const StructField> fields, ProtoWriter* out);
// Writes a Struct as field `number`; nothing when it is empty.
void WriteStructField(uint32_t number, std::span<const StructField> fields, ProtoWriter* out);

}  // namespace llmd::wire
