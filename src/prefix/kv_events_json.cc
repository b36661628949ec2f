#include "prefix/kv_events_json.h"

#include <simdjson.h>

namespace llmd::prefix {
namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

// Recursion: the parser refuses documents deeper than kMsgpackDepthMax.
void Put(element value, wire::MsgpackWriter* out) {
  switch (value.type()) {
    case element_type::ARRAY: {
      const simdjson::dom::array array = value.get_array().value_unsafe();
      size_t count = 0;
      for ([[maybe_unused]] const element item : array) ++count;
      out->Array(count);
      for (const element item : array) Put(item, out);
      break;
    }
    case element_type::OBJECT: {
      const simdjson::dom::object object = value.get_object().value_unsafe();
      size_t count = 0;
      for ([[maybe_unused]] const auto field : object) ++count;
      out->Map(count);
      for (const auto field : object) {
        out->Text(field.key);
        Put(field.value, out);
      }
      break;
    }
    case element_type::INT64: out->Int(value.get_int64().value_unsafe()); break;
    case element_type::UINT64: out->Uint(value.get_uint64().value_unsafe()); break;
    case element_type::DOUBLE: out->Float(value.get_double().value_unsafe()); break;
    case element_type::STRING: out->Text(value.get_string().value_unsafe()); break;
    case element_type::BOOL: out->Bool(value.get_bool().value_unsafe()); break;
    case element_type::NULL_VALUE: out->Nil(); break;
  }
}

}  // namespace

bool JsonToMsgpack(std::string_view json, wire::MsgpackWriter* out) {
  simdjson::dom::parser parser;
  if (parser.allocate(json.size(), wire::kMsgpackDepthMax) != simdjson::SUCCESS) return false;
  element document;
  if (parser.parse(json.data(), json.size()).get(document) != simdjson::SUCCESS) return false;
  Put(document, out);
  return true;
}

}  // namespace llmd::prefix
