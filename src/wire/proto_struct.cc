#include "wire/proto_struct.h"

#include <string>

#include "base/check.h"
#include "base/strings.h"
#include "wire/arena_list.h"

namespace llmd::wire {
namespace {

// Field numbers of google/protobuf/struct.proto. Struct.fields and ListValue.values are both 1.
constexpr uint32_t kElements = 1;
constexpr uint32_t kEntryKey = 1;
constexpr uint32_t kEntryValue = 2;
constexpr uint32_t kValueNull = 1;
constexpr uint32_t kValueNumber = 2;
constexpr uint32_t kValueString = 3;
constexpr uint32_t kValueBool = 4;
constexpr uint32_t kValueStruct = 5;
constexpr uint32_t kValueList = 6;

constexpr std::string_view kWhere = "google.protobuf.Struct";

class StructReader {
 public:
  explicit StructReader(base::Arena* arena) : arena_(arena) {}

  // Appends the elements of a Struct (named) or of a ListValue.
  base::Status Elements(std::string_view message, bool named, size_t depth,
                        ArenaList<StructField>* out) {
    if (depth > kStructDepthMax) {
      return base::ResourceExhausted(base::Concat(
          kWhere, " is nested deeper than ", std::to_string(kStructDepthMax), " levels"));
    }
    ProtoReader in(message);
    for (ProtoField f; in.Next(&f);) {
      if (f.number != kElements || !in.Expect(f, ProtoWire::kBytes)) continue;
      if (++fields_ > kStructFieldsMax) {
        return base::ResourceExhausted(base::Concat(
            kWhere, " has more than ", std::to_string(kStructFieldsMax), " fields"));
      }
      StructField field;
      LLMD_RETURN_IF_ERROR(named ? Entry(f.bytes, depth, &field) : Value(f.bytes, depth, &field));
      out->Push(field);
    }
    return ProtoStatus(in.error(), kWhere);
  }

 private:
  base::Status Entry(std::string_view message, size_t depth, StructField* field) {
    ProtoReader in(message);
    for (ProtoField f; in.Next(&f);) {
      if (f.number == kEntryKey && in.Expect(f, ProtoWire::kBytes)) {
        field->name = f.bytes;
      } else if (f.number == kEntryValue && in.Expect(f, ProtoWire::kBytes)) {
        LLMD_RETURN_IF_ERROR(Value(f.bytes, depth, field));
      }
    }
    return ProtoStatus(in.error(), kWhere);
  }

  // The last kind set counts; a Struct or list that comes twice is merged, as messages are.
  base::Status Value(std::string_view message, size_t depth, StructField* field) {
    ArenaList<StructField> children(arena_);
    ProtoReader in(message);
    for (ProtoField f; in.Next(&f);) {
      switch (f.number) {
        case kValueNull:
          if (in.Expect(f, ProtoWire::kVarint)) field->kind = StructKind::kNull;
          break;
        case kValueNumber:
          if (!in.Expect(f, ProtoWire::kFixed64)) break;
          field->kind = StructKind::kNumber;
          field->number = f.number64();
          break;
        case kValueString:
          if (!in.Expect(f, ProtoWire::kBytes)) break;
          field->kind = StructKind::kString;
          field->text = f.bytes;
          break;
        case kValueBool:
          if (!in.Expect(f, ProtoWire::kVarint)) break;
          field->kind = StructKind::kBool;
          field->flag = f.flag();
          break;
        case kValueStruct:
        case kValueList: {
          if (!in.Expect(f, ProtoWire::kBytes)) break;
          const bool named = f.number == kValueStruct;
          const StructKind kind = named ? StructKind::kStruct : StructKind::kList;
          if (field->kind != kind) children.Clear();
          field->kind = kind;
          LLMD_RETURN_IF_ERROR(Elements(f.bytes, named, depth + 1, &children));
          field->fields = children.items();
          break;
        }
        default: break;
      }
    }
    return ProtoStatus(in.error(), kWhere);
  }

  base::Arena* arena_;
  size_t fields_ = 0;
};

void WriteElements(std::span<const StructField> fields, bool named, size_t depth,
                   ProtoWriter* out);

void WriteValue(const StructField& field, size_t depth, ProtoWriter* out) {
  switch (field.kind) {
    case StructKind::kNull: return out->Varint(kValueNull, 0);
    case StructKind::kNumber: return out->Double(kValueNumber, field.number);
    case StructKind::kString: return out->Bytes(kValueString, field.text);
    case StructKind::kBool: return out->Varint(kValueBool, field.flag);
    case StructKind::kStruct:
    case StructKind::kList: break;
  }
  if (depth == kStructDepthMax) {
    LLMD_BUG("a Struct to write is nested too deep");
    return out->Varint(kValueNull, 0);
  }
  const bool named = field.kind == StructKind::kStruct;
  const size_t mark = out->size();
  WriteElements(field.fields, named, depth + 1, out);
  out->Wrap(named ? kValueStruct : kValueList, mark);
}

void WriteElements(std::span<const StructField> fields, bool named, size_t depth,
                   ProtoWriter* out) {
  for (size_t i = fields.size(); i-- > 0;) {
    const size_t mark = out->size();
    WriteValue(fields[i], depth, out);
    if (named) {
      out->Wrap(kEntryValue, mark);
      out->Bytes(kEntryKey, fields[i].name);
    }
    out->Wrap(kElements, mark);
  }
}

}  // namespace

base::Result<std::span<const StructField>> ReadStruct(std::string_view message,
                                                      base::Arena* arena) {
  ArenaList<StructField> fields(arena);
  LLMD_RETURN_IF_ERROR(StructReader(arena).Elements(message, true, 1, &fields));
  return fields.items();
}

const StructField* FindField(std::span<const StructField> fields, std::string_view name) {
  for (size_t i = fields.size(); i-- > 0;) {
    if (fields[i].name == name) return &fields[i];
  }
  return nullptr;
}

void WriteStruct(std::span<const StructField> fields, ProtoWriter* out) {
  WriteElements(fields, true, 1, out);
}

void WriteStructField(uint32_t number, std::span<const StructField> fields, ProtoWriter* out) {
  if (fields.empty()) return;
  const size_t mark = out->size();
  WriteStruct(fields, out);
  out->Wrap(number, mark);
}

}  // namespace llmd::wire
