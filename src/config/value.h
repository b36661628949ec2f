// A plain tree of values, for writing: the effective configuration as YAML, schemas as JSON.
// Maps keep their order. Thread-compatible value type.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "config/document.h"

namespace llmd::config {

class Value {
 public:
  using List = std::vector<Value>;
  using Map = std::vector<std::pair<std::string, Value>>;

  Value() = default;  // null
  Value(bool v) : data_(v) {}
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  Value(T v) : data_(static_cast<int64_t>(v)) {}
  Value(double v) : data_(v) {}
  Value(std::string v) : data_(std::move(v)) {}
  Value(std::string_view v) : data_(std::string(v)) {}
  Value(const char* v) : data_(std::string(v)) {}
  Value(List v) : data_(std::move(v)) {}
  Value(Map v) : data_(std::move(v)) {}
  static Value EmptyList() { return Value(List{}); }
  static Value EmptyMap() { return Value(Map{}); }

  // Appends to a list or a map; the value must be one (a null becomes one).
  Value& Append(Value v);
  Value& Set(std::string key, Value v);  // replaces a key that exists
  const Value* Find(std::string_view key) const;
  bool is_null() const { return std::holds_alternative<std::monostate>(data_); }
  bool empty() const;  // null, or a list or map without elements

  const std::variant<std::monostate, bool, int64_t, double, std::string, List, Map>& data() const {
    return data_;
  }

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, List, Map> data_;
};

// The node's content, aliases expanded.
Value ToValue(const Node& node);
// Block YAML that reads back as the same value; strings that would read as something else are
// quoted.
std::string ToYaml(const Value& value);
// JSON with two-space indentation and a newline at the end.
std::string ToJson(const Value& value);

}  // namespace llmd::config
