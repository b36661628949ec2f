// Declarative reading: one declaration per field serves reading, `config print` and the JSON
// schema.
//
//   struct QueueParams { int64_t max_queue = 128; base::Duration window = 1s; Mode mode = kFast; };
//   const ObjectType<QueueParams>& QueueParamsType() {
//     static const auto type = Object<QueueParams>("QueueParams")
//         .Field("maxQueue", "Requests that may wait.", &QueueParams::max_queue, Int<int64_t>(1,
//         1000)) .Field("window", "Time between two looks.", &QueueParams::window) .Field("mode",
//         "How to look.", &QueueParams::mode,
//                Enum<Mode>({{"fast", Mode::kFast}, {"exact", Mode::kExact}}))
//         .Build();
//     return *type;
//   }
//   ErrorList errors;
//   QueueParams params;                       // defaults are the struct's member initialisers
//   QueueParamsType().Read(node, {.errors = &errors}, &params);
//
// Reading is strict: unknown keys, wrong JSON types and values out of bounds are errors; every
// error is reported and the field keeps its default. null and an absent key mean the default (as Go
// decodes them). Types are immutable and thread-safe after Build. Keys match exactly, or with
// ReadOptions::ignore_case as Go's encoding/json matches plugin parameters (an exact match wins;
// two keys that differ only in case are a duplicate).
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/time.h"
#include "config/document.h"
#include "config/value.h"

namespace llmd::config {

struct ReadOptions {
  ErrorList* errors = nullptr;  // required
  bool ignore_case = false;
};

// How one value of C++ type M is read, written and described.
template <class M>
class Type {
 public:
  virtual ~Type() = default;
  // False when anything was wrong; then `*out` may be half filled. `node` is present and not null.
  virtual bool Read(const Node& node, const ReadOptions& options, M* out) const = 0;
  virtual Value Write(const M& value) const = 0;
  // JSON schema (draft 2020-12) of the value, without description and default.
  virtual Value Describe() const = 0;
};
template <class M>
using TypePtr = std::shared_ptr<const Type<M>>;

// ---- scalars; bounds are inclusive ----
TypePtr<bool> Bool();
template <std::integral T>
TypePtr<T> Int(T min = std::numeric_limits<T>::min(), T max = std::numeric_limits<T>::max());
TypePtr<double> Double(double min = -std::numeric_limits<double>::infinity(),
                       double max = std::numeric_limits<double>::infinity());
TypePtr<std::string> String(size_t bytes_min = 0, size_t bytes_max = 64 << 10);
// A Go duration string: "200ms".
TypePtr<base::Duration> GoDuration(base::Duration min = base::Duration(0),
                                   base::Duration max = base::Duration::max());
// A whole number of nanoseconds, seconds, ...: where upstream's field is a Go time.Duration without
// a text form (unit 1) or is named ...Ms, ...Seconds.
TypePtr<base::Duration> IntegerDuration(base::Duration unit, base::Duration min = base::Duration(0),
                                        base::Duration max = base::Duration::max());
// A Kubernetes quantity, string or number; with `bytes` a trailing B is allowed.
TypePtr<int64_t> Quantity(int64_t min = 0, bool bytes = false);
// One of the names; matching is exact.
template <class E>
TypePtr<E> Enum(std::vector<std::pair<std::string, E>> names);

// ---- composites ----
template <class U>
TypePtr<std::vector<U>> List(TypePtr<U> element, size_t count_max = 10'000);
template <class U>
TypePtr<std::optional<U>> Optional(TypePtr<U> inner);
using StringMapValue = std::map<std::string, std::string>;
TypePtr<StringMapValue> StringMap(size_t count_max = 10'000);
// Any content, kept as a view to be read later (plugin parameters).
TypePtr<Node> Raw();

// The type of a member that needs no bounds.
template <class M>
TypePtr<M> DefaultType();

enum class Presence : uint8_t { kOptional, kRequired };

namespace internal {

struct FieldName {
  std::string key;
  std::string help;  // one sentence
  Presence presence = Presence::kOptional;
};

// A member of an object that is known by its address alone, so that what all objects have in common
// is compiled once.
class Member {
 public:
  virtual ~Member() = default;
  virtual bool Read(const Node& node, const ReadOptions& options, void* object) const = 0;
  virtual Value Write(const void* object) const = 0;
  // The schema of its type.
  virtual Value Describe() const = 0;

  FieldName name;
};

template <class M>
class MemberOf final : public Member {
 public:
  MemberOf(size_t offset, TypePtr<M> type) : offset_(offset), type_(std::move(type)) {}
  bool Read(const Node& node, const ReadOptions& options, void* object) const override {
    M& member = *reinterpret_cast<M*>(static_cast<char*>(object) + offset_);
    M value = member;
    if (!type_->Read(node, options, &value)) return false;
    member = std::move(value);
    return true;
  }
  Value Write(const void* object) const override {
    return type_->Write(
        *reinterpret_cast<const M*>(static_cast<const char*>(object) + offset_));
  }
  Value Describe() const override { return type_->Describe(); }

 private:
  size_t offset_;
  TypePtr<M> type_;
};

class Members {
 public:
  explicit Members(std::string name) : name_(std::move(name)) {}
  void Add(std::string_view key, std::string_view help, Presence presence,
           std::unique_ptr<Member> member);
  bool Read(const Node& node, const ReadOptions& options, void* object) const;
  Value Write(const void* object) const;
  Value Describe(const void* defaults) const;
  Value SchemaDocument(const void* defaults) const;
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  std::vector<std::unique_ptr<Member>> members_;
  std::vector<const FieldName*> names_;
};

bool ExpectList(const Node& node, size_t count_max, const ReadOptions& options);
bool ReadEnumName(const Node& node, const ReadOptions& options,
                  const std::vector<std::string_view>& names, size_t* index);
bool ReadInteger(const Node& node, const ReadOptions& options, int64_t min, int64_t max,
                 int64_t* value);
Value DescribeInteger(int64_t min, int64_t max);

}  // namespace internal

template <class T>
class ObjectType final : public Type<T> {
 public:
  explicit ObjectType(std::string name) : members_(std::move(name)) {}
  bool Read(const Node& node, const ReadOptions& options, T* out) const override {
    if (where_) out->*where_ = node;
    return members_.Read(node, options, out);
  }
  Value Write(const T& value) const override { return members_.Write(&value); }
  Value Describe() const override {
    const T defaults{};
    return members_.Describe(&defaults);
  }
  // A whole schema document with $schema and title.
  Value SchemaDocument() const {
    const T defaults{};
    return members_.SchemaDocument(&defaults);
  }
  const std::string& name() const { return members_.name(); }

 private:
  template <class U>
  friend class ObjectBuilder;

  internal::Members members_;
  Node T::* where_ = nullptr;
};

template <class T>
class ObjectBuilder {
 public:
  explicit ObjectBuilder(std::string name)
      : type_(std::make_shared<ObjectType<T>>(std::move(name))) {}
  // The default is what `T{}` holds in `member`.
  template <class M>
  [[gnu::noinline]] ObjectBuilder& Field(std::string_view key, std::string_view help, M T::* member,
                                         std::type_identity_t<TypePtr<M>> type = DefaultType<M>(),
                                         Presence presence = Presence::kOptional) {
    const T probe{};
    const size_t offset = static_cast<size_t>(reinterpret_cast<const char*>(&(probe.*member)) -
                                              reinterpret_cast<const char*>(&probe));
    type_->members_.Add(key, help, presence,
                        std::make_unique<internal::MemberOf<M>>(offset, std::move(type)));
    return *this;
  }
  template <class M>
  ObjectBuilder& Required(std::string_view key, std::string_view help, M T::* member,
                          std::type_identity_t<TypePtr<M>> type = DefaultType<M>()) {
    return Field(key, help, member, std::move(type), Presence::kRequired);
  }
  // `member` receives the node of the object itself, so that later checks can say where.
  ObjectBuilder& Where(Node T::* member) {
    type_->where_ = member;
    return *this;
  }
  std::shared_ptr<const ObjectType<T>> Build() { return std::move(type_); }

 private:
  std::shared_ptr<ObjectType<T>> type_;
};

template <class T>
ObjectBuilder<T> Object(std::string name) {
  return ObjectBuilder<T>(std::move(name));
}

}  // namespace llmd::config

#include "config/schema_inl.h"
