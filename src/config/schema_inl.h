// Template bodies of schema.h; include that instead.
#pragma once

#include "config/schema.h"

namespace llmd::config {
namespace internal {

template <class T>
class IntType final : public Type<T> {
 public:
  IntType(T min, T max) : min_(min), max_(max) {}
  bool Read(const Node& node, const ReadOptions& options, T* out) const override {
    int64_t value;
    if (!ReadInteger(node, options, Clip(min_), Clip(max_), &value)) return false;
    *out = static_cast<T>(value);
    return true;
  }
  Value Write(const T& value) const override { return Value(value); }
  Value Describe() const override { return DescribeInteger(Clip(min_), Clip(max_)); }

 private:
  // Integers of a document are int64, so larger bounds bind nothing.
  static int64_t Clip(T bound) {
    return std::in_range<int64_t>(bound) ? static_cast<int64_t>(bound) : INT64_MAX;
  }
  T min_, max_;
};

template <class E>
class EnumType final : public Type<E> {
 public:
  explicit EnumType(std::vector<std::pair<std::string, E>> names) : names_(std::move(names)) {
    for (const auto& [name, value] : names_) views_.push_back(name);
  }
  bool Read(const Node& node, const ReadOptions& options, E* out) const override {
    size_t index;
    if (!ReadEnumName(node, options, views_, &index)) return false;
    *out = names_[index].second;
    return true;
  }
  Value Write(const E& value) const override {
    for (const auto& [name, named] : names_) {
      if (named == value) return Value(name);
    }
    return Value();
  }
  Value Describe() const override {
    Value names = Value::EmptyList();
    for (std::string_view name : views_) names.Append(name);
    return Value::EmptyMap().Set("type", "string").Set("enum", std::move(names));
  }

 private:
  std::vector<std::pair<std::string, E>> names_;
  std::vector<std::string_view> views_;
};

template <class U>
class ListType final : public Type<std::vector<U>> {
 public:
  ListType(TypePtr<U> element, size_t count_max)
      : element_(std::move(element)), count_max_(count_max) {}
  bool Read(const Node& node, const ReadOptions& options, std::vector<U>* out) const override {
    if (!ExpectList(node, count_max_, options)) return false;
    out->clear();
    bool ok = true;
    for (size_t i = 0; i < node.size(); ++i) {
      U element{};
      const Node child = node.at(i);
      // As Go decodes it: a null element is a default element.
      if (!child.is_null()) ok &= element_->Read(child, options, &element);
      out->push_back(std::move(element));
    }
    return ok;
  }
  Value Write(const std::vector<U>& value) const override {
    Value out = Value::EmptyList();
    for (const U& element : value) out.Append(element_->Write(element));
    return out;
  }
  Value Describe() const override {
    return Value::EmptyMap().Set("type", "array").Set("items", element_->Describe());
  }

 private:
  TypePtr<U> element_;
  size_t count_max_;
};

template <class U>
class OptionalType final : public Type<std::optional<U>> {
 public:
  explicit OptionalType(TypePtr<U> inner) : inner_(std::move(inner)) {}
  bool Read(const Node& node, const ReadOptions& options, std::optional<U>* out) const override {
    return inner_->Read(node, options, &out->emplace());
  }
  Value Write(const std::optional<U>& value) const override {
    return value ? inner_->Write(*value) : Value();
  }
  Value Describe() const override { return inner_->Describe(); }

 private:
  TypePtr<U> inner_;
};

template <class M>
struct DefaultTypeOf;
template <>
struct DefaultTypeOf<bool> {
  static TypePtr<bool> Make() { return Bool(); }
};
template <std::integral T>
struct DefaultTypeOf<T> {
  static TypePtr<T> Make() { return Int<T>(); }
};
template <>
struct DefaultTypeOf<double> {
  static TypePtr<double> Make() { return Double(); }
};
template <>
struct DefaultTypeOf<std::string> {
  static TypePtr<std::string> Make() { return String(); }
};
template <>
struct DefaultTypeOf<base::Duration> {
  static TypePtr<base::Duration> Make() { return GoDuration(); }
};
template <>
struct DefaultTypeOf<StringMapValue> {
  static TypePtr<StringMapValue> Make() { return StringMap(); }
};
template <>
struct DefaultTypeOf<Node> {
  static TypePtr<Node> Make() { return Raw(); }
};
template <class U>
struct DefaultTypeOf<std::vector<U>> {
  static TypePtr<std::vector<U>> Make() { return List<U>(DefaultTypeOf<U>::Make()); }
};
template <class U>
struct DefaultTypeOf<std::optional<U>> {
  static TypePtr<std::optional<U>> Make() { return Optional<U>(DefaultTypeOf<U>::Make()); }
};

}  // namespace internal

template <std::integral T>
TypePtr<T> Int(T min, T max) {
  return std::make_shared<internal::IntType<T>>(min, max);
}
template <class E>
TypePtr<E> Enum(std::vector<std::pair<std::string, E>> names) {
  return std::make_shared<internal::EnumType<E>>(std::move(names));
}
template <class U>
TypePtr<std::vector<U>> List(TypePtr<U> element, size_t count_max) {
  return std::make_shared<internal::ListType<U>>(std::move(element), count_max);
}
template <class U>
TypePtr<std::optional<U>> Optional(TypePtr<U> inner) {
  return std::make_shared<internal::OptionalType<U>>(std::move(inner));
}
template <class M>
TypePtr<M> DefaultType() {
  return internal::DefaultTypeOf<M>::Make();
}

// The common ones are compiled in schema.cc alone: `keyword` is extern here and nothing there.
#define LLMD_CONFIG_COMMON_TYPE(keyword, ...)                       \
  keyword template TypePtr<__VA_ARGS__> DefaultType<__VA_ARGS__>(); \
  keyword template class internal::MemberOf<__VA_ARGS__>;
#define LLMD_CONFIG_COMMON_INT(keyword, type) \
  LLMD_CONFIG_COMMON_TYPE(keyword, type)      \
  keyword template TypePtr<type> Int(type, type);
#define LLMD_CONFIG_COMMON_TYPES(keyword)                         \
  LLMD_CONFIG_COMMON_TYPE(keyword, bool)                          \
  LLMD_CONFIG_COMMON_TYPE(keyword, double)                        \
  LLMD_CONFIG_COMMON_TYPE(keyword, std::string)                   \
  LLMD_CONFIG_COMMON_TYPE(keyword, base::Duration)                \
  LLMD_CONFIG_COMMON_TYPE(keyword, StringMapValue)                \
  LLMD_CONFIG_COMMON_TYPE(keyword, Node)                          \
  LLMD_CONFIG_COMMON_INT(keyword, int32_t)                        \
  LLMD_CONFIG_COMMON_INT(keyword, uint32_t)                       \
  LLMD_CONFIG_COMMON_INT(keyword, int64_t)                        \
  LLMD_CONFIG_COMMON_INT(keyword, uint64_t)                       \
  LLMD_CONFIG_COMMON_TYPE(keyword, std::vector<std::string>)      \
  keyword template TypePtr<std::vector<std::string>> List(TypePtr<std::string>, size_t);
LLMD_CONFIG_COMMON_TYPES(extern)

}  // namespace llmd::config
