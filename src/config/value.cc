#include "config/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/check.h"
#include "base/strings.h"

namespace llmd::config {

Value::Value() = default;
Value::~Value() = default;
Value::Value(const Value& other) = default;
Value::Value(Value&& other) noexcept = default;
Value& Value::operator=(const Value& other) = default;
Value& Value::operator=(Value&& other) noexcept = default;
Value::Value(bool v) : data_(v) {}
Value::Value(int64_t v) : data_(v) {}
Value::Value(double v) : data_(v) {}
Value::Value(std::string v) : data_(std::move(v)) {}
Value::Value(std::string_view v) : data_(std::string(v)) {}
Value::Value(const char* v) : data_(std::string(v)) {}
Value::Value(List v) : data_(std::move(v)) {}
Value::Value(Map v) : data_(std::move(v)) {}
Value Value::EmptyList() { return Value(List{}); }
Value Value::EmptyMap() { return Value(Map{}); }

bool Value::is_null() const { return std::holds_alternative<std::monostate>(data_); }

Value& Value::Append(Value v) {
  if (is_null()) data_ = List{};
  LLMD_CHECK(std::holds_alternative<List>(data_), "Append needs a list");
  std::get<List>(data_).push_back(std::move(v));
  return *this;
}

Value& Value::Set(std::string key, Value v) {
  if (is_null()) data_ = Map{};
  LLMD_CHECK(std::holds_alternative<Map>(data_), "Set needs a map");
  Map& map = std::get<Map>(data_);
  const auto at = std::find_if(map.begin(), map.end(), [&](auto& e) { return e.first == key; });
  if (at != map.end()) {
    at->second = std::move(v);
  } else {
    map.emplace_back(std::move(key), std::move(v));
  }
  return *this;
}

const Value* Value::Find(std::string_view key) const {
  const Map* map = std::get_if<Map>(&data_);
  if (!map) return nullptr;
  const auto at = std::find_if(map->begin(), map->end(), [&](auto& e) { return e.first == key; });
  return at == map->end() ? nullptr : &at->second;
}

bool Value::empty() const {
  if (const List* list = std::get_if<List>(&data_)) return list->empty();
  if (const Map* map = std::get_if<Map>(&data_)) return map->empty();
  return is_null();
}

Value ToValue(const Node& node) {
  if (node.is_null()) return {};
  switch (node.kind()) {
    case NodeKind::kNull:
      return {};
    case NodeKind::kBool:
      return node.bool_value();
    case NodeKind::kInt:
      return node.int_value();
    case NodeKind::kDouble:
      return node.double_value();
    case NodeKind::kString:
      return node.text();
    case NodeKind::kList: {
      Value out = Value::EmptyList();
      for (size_t i = 0; i < node.size(); ++i) out.Append(ToValue(node.at(i)));
      return out;
    }
    case NodeKind::kMap: {
      Value::Map map;
      map.reserve(node.size());
      for (size_t i = 0; i < node.size(); ++i) map.emplace_back(node.key(i), ToValue(node.at(i)));
      return map;
    }
  }
  return {};
}

namespace {

void AppendDouble(std::string* out, double value) {
  char text[40];
  out->append(text, std::to_chars(text, text + sizeof(text), value).ptr);
}

// Conservative: what is not obviously a word is quoted.
bool IsPlainYaml(std::string_view text) {
  const auto word = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '/' || c == '.' || c == '-' || c == '+' || c == ':';
  };
  if (text.empty() || text[0] == '-' || text[0] == ':' || text.back() == ':') return false;
  return std::all_of(text.begin(), text.end(), word) &&
         ResolvePlainScalar(text).kind == NodeKind::kString;
}

// Characters that YAML does not print (C1 controls, DEL, U+FFFE, surrogates) are rare enough that
// JSON's escapes of ASCII controls suffice; yaml-cpp reads the rest as they are.
void AppendYamlString(std::string* out, std::string_view text) {
  if (IsPlainYaml(text)) {
    out->append(text);
  } else {
    base::AppendJsonString(out, text);
  }
}

// `key:`; a key that YAML would not take as a simple one (1024 characters, YAML 1.1 section 9.1.3)
// in its long form.
void AppendYamlKey(std::string* out, std::string_view key, size_t indent) {
  constexpr size_t kSimpleKeyMax = 1000;
  const size_t begin = out->size();
  AppendYamlString(out, key);
  if (out->size() - begin > kSimpleKeyMax) {
    out->insert(begin, "? ");
    out->push_back('\n');
    out->append(indent, ' ');
  }
  out->push_back(':');
}

void AppendYamlScalar(std::string* out, const Value& value) {
  const auto& data = value.data();
  if (const bool* b = std::get_if<bool>(&data)) {
    out->append(*b ? "true" : "false");
  } else if (const int64_t* i = std::get_if<int64_t>(&data)) {
    out->append(std::to_string(*i));
  } else if (const double* d = std::get_if<double>(&data)) {
    if (std::isfinite(*d)) {
      AppendDouble(out, *d);
    } else {
      out->append(std::isnan(*d) ? ".nan" : *d > 0 ? ".inf" : "-.inf");
    }
  } else if (const std::string* s = std::get_if<std::string>(&data)) {
    AppendYamlString(out, *s);
  } else if (std::holds_alternative<Value::List>(data)) {
    out->append("[]");
  } else if (std::holds_alternative<Value::Map>(data)) {
    out->append("{}");
  } else {
    out->append("null");
  }
}

bool IsBlock(const Value& value) {
  return !value.empty() && (std::holds_alternative<Value::List>(value.data()) ||
                            std::holds_alternative<Value::Map>(value.data()));
}

// `indent` is that of the block's lines; the first line's indent is already written.
void AppendYamlBlock(std::string* out, const Value& value, size_t indent) {
  bool first = true;
  const auto begin_line = [&] {
    if (!first) out->append(indent, ' ');
    first = false;
  };
  if (const auto* list = std::get_if<Value::List>(&value.data())) {
    for (const Value& element : *list) {
      begin_line();
      out->append("- ");
      if (IsBlock(element)) {
        AppendYamlBlock(out, element, indent + 2);
      } else {
        AppendYamlScalar(out, element);
        out->push_back('\n');
      }
    }
    return;
  }
  for (const auto& [key, element] : std::get<Value::Map>(value.data())) {
    begin_line();
    AppendYamlKey(out, key, indent);
    if (!IsBlock(element)) {
      out->push_back(' ');
      AppendYamlScalar(out, element);
      out->push_back('\n');
      continue;
    }
    // Lists stand at their key's column, as kubectl prints them.
    const bool list = std::holds_alternative<Value::List>(element.data());
    const size_t inner = list ? indent : indent + 2;
    out->push_back('\n');
    out->append(inner, ' ');
    AppendYamlBlock(out, element, inner);
  }
}

void AppendJson(std::string* out, const Value& value, size_t indent) {
  const auto line = [&](size_t spaces) {
    out->push_back('\n');
    out->append(spaces, ' ');
  };
  if (const auto* list = std::get_if<Value::List>(&value.data()); list && !list->empty()) {
    out->push_back('[');
    for (const Value& element : *list) {
      if (&element != &list->front()) out->push_back(',');
      line(indent + 2);
      AppendJson(out, element, indent + 2);
    }
    line(indent);
    out->push_back(']');
  } else if (const auto* map = std::get_if<Value::Map>(&value.data()); map && !map->empty()) {
    out->push_back('{');
    for (const auto& entry : *map) {
      if (&entry != &map->front()) out->push_back(',');
      line(indent + 2);
      base::AppendJsonString(out, entry.first);
      out->append(": ");
      AppendJson(out, entry.second, indent + 2);
    }
    line(indent);
    out->push_back('}');
  } else if (const auto* s = std::get_if<std::string>(&value.data())) {
    base::AppendJsonString(out, *s);
  } else if (const auto* d = std::get_if<double>(&value.data()); d && !std::isfinite(*d)) {
    out->append("null");  // JSON has no other word for it
  } else {
    AppendYamlScalar(out, value);
  }
}

}  // namespace

std::string ToYaml(const Value& value) {
  std::string out;
  if (IsBlock(value)) {
    AppendYamlBlock(&out, value, 0);
  } else {
    AppendYamlScalar(&out, value);
    out.push_back('\n');
  }
  return out;
}

std::string ToJson(const Value& value) {
  std::string out;
  AppendJson(&out, value, 0);
  out.push_back('\n');
  return out;
}

}  // namespace llmd::config
