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

  // Copying and the like are in the .cc, so that not every user compiles a variant's.
  Value();  // null
  ~Value();
  Value(const Value& other);
  Value(Value&& other) noexcept;
  Value& operator=(const Value& other);
  Value& operator=(Value&& other) noexcept;
  Value(bool v);
  Value(int64_t v);
  template <std::integral T>
    requires(!std::same_as<T, bool> && !std::same_as<T, int64_t>)
  Value(T v) : Value(static_cast<int64_t>(v)) {}
  Value(double v);
  Value(std::string v);
  Value(std::string_view v);
  Value(const char* v);
  Value(List v);
  Value(Map v);
  static Value EmptyList();
  static Value EmptyMap();

  // Appends to a list or a map; the value must be one (a null becomes one).
  Value& Append(Value v);
  Value& Set(std::string key, Value v);  // replaces a key that exists
  const Value* Find(std::string_view key) const;
  bool is_null() const;
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
