#include "config/schema.h"

#include <charconv>
#include <cmath>

#include "base/strings.h"

namespace llmd::config {
namespace {

constexpr std::string_view kDurationPattern =
    "^[+-]?(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|ms|s|m|h))+)$";
constexpr std::string_view kQuantityPattern =
    "^[+-]?([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?";

std::string Number(double value) {
  char text[40];
  return std::string(text, std::to_chars(text, text + sizeof(text), value).ptr);
}

// `a string "80"`, `the number 5`, `a list`.
std::string WhatItIs(const Node& node) {
  constexpr size_t kShownMax = 60;
  std::string shown(node.text().substr(0, kShownMax));
  if (node.text().size() > kShownMax) shown.append("...");
  switch (node.kind()) {
    case NodeKind::kBool:
      return base::Concat("the boolean ", shown);
    case NodeKind::kInt:
    case NodeKind::kDouble:
      return base::Concat("the number ", shown);
    case NodeKind::kString: {
      std::string out = "the string ";
      base::AppendJsonString(&out, shown);
      return out;
    }
    default:
      return std::string(NodeKindName(node.kind()));
  }
}

bool Fail(const Node& node, const ReadOptions& options, std::string_view must,
          std::string_view hint = "") {
  options.errors->Add(node, base::Concat("is ", WhatItIs(node), ", must be ", must, hint));
  return false;
}

// "from 1 to 9", "of 1 or more", "of at most 9" or "".
std::string Bounds(bool low, std::string_view min, bool high, std::string_view max) {
  if (low && high) return base::Concat(" from ", min, " to ", max);
  if (low) return base::Concat(" of ", min, " or more");
  if (high) return base::Concat(" of at most ", max);
  return "";
}

std::string IntegerBounds(int64_t min, int64_t max) {
  return Bounds(min != INT64_MIN, std::to_string(min), max != INT64_MAX, std::to_string(max));
}

// The integer a node is: an integer, or a number without a fraction (Go prints 1.0 as 1 before it
// decodes).
std::optional<int64_t> IntegerOf(const Node& node) {
  if (node.kind() == NodeKind::kInt) return node.int_value();
  if (node.kind() != NodeKind::kDouble) return std::nullopt;
  const double value = node.double_value();
  if (!(std::fabs(value) <= 0x1p53) || value != std::floor(value)) return std::nullopt;
  return static_cast<int64_t>(value);
}

class BoolType final : public Type<bool> {
 public:
  bool Read(const Node& node, const ReadOptions& options, bool* out) const override {
    if (node.kind() != NodeKind::kBool) return Fail(node, options, "true or false");
    *out = node.bool_value();
    return true;
  }
  Value Write(const bool& value) const override { return value; }
  Value Describe() const override { return Value::EmptyMap().Set("type", "boolean"); }
};

class DoubleType final : public Type<double> {
 public:
  DoubleType(double min, double max) : min_(min), max_(max) {}
  bool Read(const Node& node, const ReadOptions& options, double* out) const override {
    const bool number = node.kind() == NodeKind::kInt || node.kind() == NodeKind::kDouble;
    const double value = number ? node.double_value() : NAN;
    if (!std::isfinite(value) || value < min_ || value > max_) {
      return Fail(node, options,
                  base::Concat("a number", Bounds(std::isfinite(min_), Number(min_),
                                                  std::isfinite(max_), Number(max_))));
    }
    *out = value;
    return true;
  }
  Value Write(const double& value) const override { return value; }
  Value Describe() const override {
    Value out = Value::EmptyMap().Set("type", "number");
    if (std::isfinite(min_)) out.Set("minimum", min_);
    if (std::isfinite(max_)) out.Set("maximum", max_);
    return out;
  }

 private:
  double min_, max_;
};

class StringType final : public Type<std::string> {
 public:
  StringType(size_t min, size_t max) : min_(min), max_(max) {}
  bool Read(const Node& node, const ReadOptions& options, std::string* out) const override {
    const NodeKind kind = node.kind();
    if (kind == NodeKind::kBool || kind == NodeKind::kInt || kind == NodeKind::kDouble) {
      return Fail(node, options, "a string", base::Concat("; did you mean \"", node.text(), "\"?"));
    }
    if (kind != NodeKind::kString) return Fail(node, options, "a string");
    const size_t size = node.text().size();
    if (size < min_ || size > max_) {
      const std::string max = std::to_string(max_);
      return Fail(node, options,
                  min_ == 1 && size == 0
                      ? std::string("a string that is not empty")
                      : base::Concat("a string of ", std::to_string(min_), " to ", max, " bytes"));
    }
    *out = node.text();
    return true;
  }
  Value Write(const std::string& value) const override { return value; }
  Value Describe() const override {
    Value out = Value::EmptyMap().Set("type", "string");
    if (min_ > 0) out.Set("minLength", min_);
    return out;
  }

 private:
  size_t min_, max_;
};

class GoDurationType final : public Type<base::Duration> {
 public:
  GoDurationType(base::Duration min, base::Duration max) : min_(min), max_(max) {}
  bool Read(const Node& node, const ReadOptions& options, base::Duration* out) const override {
    const bool text = node.kind() == NodeKind::kString;
    const auto ns = text ? base::ParseGoDurationNs(node.text()) : std::nullopt;
    if (!ns || base::Duration(*ns) < min_ || base::Duration(*ns) > max_) {
      const std::string bounds =
          Bounds(min_ != base::Duration::min(), FormatGoDuration(min_.count()),
                 max_ != base::Duration::max(), FormatGoDuration(max_.count()));
      const bool number = node.kind() == NodeKind::kInt;
      return Fail(node, options,
                  base::Concat("a duration", bounds, ns ? "" : " such as 200ms, 1.5s or 2h30m"),
                  number ? base::Concat("; did you mean ", node.text(), "s?") : "");
    }
    *out = base::Duration(*ns);
    return true;
  }
  Value Write(const base::Duration& value) const override {
    return FormatGoDuration(value.count());
  }
  Value Describe() const override {
    return Value::EmptyMap().Set("type", "string").Set("pattern", kDurationPattern);
  }

 private:
  base::Duration min_, max_;
};

class IntegerDurationType final : public Type<base::Duration> {
 public:
  IntegerDurationType(base::Duration unit, base::Duration min, base::Duration max)
      : unit_(unit),
        min_(Floor(min)),
        max_(max == base::Duration::max() ? INT64_MAX / unit.count() : Floor(max)) {}
  bool Read(const Node& node, const ReadOptions& options, base::Duration* out) const override {
    const auto value = IntegerOf(node);
    if (!value || *value < min_ || *value > max_) {
      const std::string bounds = Bounds(true, std::to_string(min_),
                                        max_ != INT64_MAX / unit_.count(), std::to_string(max_));
      return Fail(node, options, base::Concat("an integer", bounds, " (", UnitName(), ")"));
    }
    *out = unit_ * *value;
    return true;
  }
  Value Write(const base::Duration& value) const override { return value.count() / unit_.count(); }
  Value Describe() const override { return internal::DescribeInteger(min_, max_); }

 private:
  int64_t Floor(base::Duration d) const { return d.count() / unit_.count(); }
  std::string UnitName() const {
    if (unit_.count() == 1) return "nanoseconds";
    if (unit_ == std::chrono::milliseconds(1)) return "milliseconds";
    if (unit_ == std::chrono::seconds(1)) return "seconds";
    return base::Concat("units of ", FormatGoDuration(unit_.count()));
  }
  base::Duration unit_;
  int64_t min_, max_;
};

class QuantityType final : public Type<int64_t> {
 public:
  QuantityType(int64_t min, bool bytes) : min_(min), bytes_(bytes) {}
  bool Read(const Node& node, const ReadOptions& options, int64_t* out) const override {
    const bool scalar = node.kind() == NodeKind::kString || node.kind() == NodeKind::kInt ||
                        node.kind() == NodeKind::kDouble;
    const auto value = scalar ? ParseQuantity(node.text(), bytes_) : std::nullopt;
    if (!value || *value < min_) {
      return Fail(
          node, options,
          base::Concat("a quantity", Bounds(min_ != INT64_MIN, std::to_string(min_), false, ""),
                       value ? "" : " such as 5000, 1G or 500Mi"));
    }
    *out = *value;
    return true;
  }
  Value Write(const int64_t& value) const override { return value; }
  Value Describe() const override {
    Value pattern(base::Concat(kQuantityPattern, bytes_ ? "B?$" : "$"));
    return Value::EmptyMap()
        .Set("type", Value::EmptyList().Append("integer").Append("number").Append("string"))
        .Set("pattern", std::move(pattern));
  }

 private:
  int64_t min_;
  bool bytes_;
};

class StringMapType final : public Type<StringMapValue> {
 public:
  explicit StringMapType(size_t count_max) : count_max_(count_max) {}
  bool Read(const Node& node, const ReadOptions& options, StringMapValue* out) const override {
    if (node.kind() != NodeKind::kMap || node.size() > count_max_) {
      return Fail(node, options,
                  base::Concat("a map of at most ", std::to_string(count_max_), " strings"));
    }
    out->clear();
    bool ok = true;
    const StringType text(0, 64 << 10);
    for (size_t i = 0; i < node.size(); ++i) {
      std::string& value = (*out)[std::string(node.key(i))];
      if (!node.at(i).is_null()) ok &= text.Read(node.at(i), options, &value);
    }
    return ok;
  }
  Value Write(const StringMapValue& value) const override {
    Value out = Value::EmptyMap();
    for (const auto& [key, text] : value) out.Set(key, text);
    return out;
  }
  Value Describe() const override {
    return Value::EmptyMap()
        .Set("type", "object")
        .Set("additionalProperties", Value::EmptyMap().Set("type", "string"));
  }

 private:
  size_t count_max_;
};

class RawType final : public Type<Node> {
 public:
  bool Read(const Node& node, const ReadOptions& options, Node* out) const override {
    *out = node;
    return true;
  }
  Value Write(const Node& value) const override { return ToValue(value); }
  Value Describe() const override { return Value::EmptyMap(); }
};

std::string AllowedKeys(const std::vector<const internal::FieldName*>& fields) {
  std::string out;
  for (const auto* field : fields) {
    if (!out.empty()) out.append(", ");
    out.append(field->key);
  }
  return out;
}

}  // namespace

TypePtr<bool> Bool() { return std::make_shared<BoolType>(); }
TypePtr<double> Double(double min, double max) { return std::make_shared<DoubleType>(min, max); }
TypePtr<std::string> String(size_t bytes_min, size_t bytes_max) {
  return std::make_shared<StringType>(bytes_min, bytes_max);
}
TypePtr<base::Duration> GoDuration(base::Duration min, base::Duration max) {
  return std::make_shared<GoDurationType>(min, max);
}
TypePtr<base::Duration> IntegerDuration(base::Duration unit, base::Duration min,
                                        base::Duration max) {
  return std::make_shared<IntegerDurationType>(unit, min, max);
}
TypePtr<int64_t> Quantity(int64_t min, bool bytes) {
  return std::make_shared<QuantityType>(min, bytes);
}
TypePtr<StringMapValue> StringMap(size_t count_max) {
  return std::make_shared<StringMapType>(count_max);
}
TypePtr<Node> Raw() { return std::make_shared<RawType>(); }

namespace internal {
namespace {

// Finds out which entry of `node` belongs to which field: result[i] is the entry of fields[i] or
// -1. Reports unknown keys, case duplicates and missing required fields.
bool MatchKeys(const Node& node, const std::vector<const FieldName*>& fields,
               const ReadOptions& options, std::vector<int>* result) {
  result->assign(fields.size(), -1);
  bool ok = true;
  const auto fail = [&](size_t entry, std::string_view what) {
    std::string path = node.path();
    if (!path.empty()) path.push_back('.');
    options.errors->Add(node.document()->filename(), node.key_position(entry),
                        path.append(node.key(entry)), what);
    ok = false;
  };
  for (size_t entry = 0; entry < node.size(); ++entry) {
    const std::string_view key = node.key(entry);
    size_t field = fields.size();
    for (size_t i = 0; i < fields.size(); ++i) {
      if (fields[i]->key == key) {
        field = i;
        break;
      }
      if (options.ignore_case && base::EqualsIgnoreCase(fields[i]->key, key)) field = i;
    }
    if (field == fields.size()) {
      std::vector<std::string_view> names;
      for (const auto* f : fields) names.push_back(f->key);
      const std::string allowed = AllowedKeys(fields);
      fail(entry, base::Concat("unknown key, allowed ", allowed.empty() ? "are no keys" : "are ",
                               allowed, DidYouMean(key, names)));
    } else if ((*result)[field] >= 0) {
      const int line = node.key_position(static_cast<size_t>((*result)[field])).line;
      fail(entry, base::Concat("duplicate key (case does not matter here), first at line ",
                               std::to_string(line)));
    } else {
      (*result)[field] = static_cast<int>(entry);
    }
  }
  for (size_t i = 0; i < fields.size(); ++i) {
    if (fields[i]->presence != Presence::kRequired) continue;
    if ((*result)[i] >= 0 && !node.at(static_cast<size_t>((*result)[i])).is_null()) continue;
    std::string path = node.path();
    if (!path.empty()) path.push_back('.');
    options.errors->Add(node.document()->filename(), node.position(), path.append(fields[i]->key),
                        base::Concat("is missing: ", fields[i]->help));
    ok = false;
  }
  return ok;
}

}  // namespace

bool ExpectList(const Node& node, size_t count_max, const ReadOptions& options) {
  if (node.kind() != NodeKind::kList) return Fail(node, options, "a list");
  if (node.size() <= count_max) return true;
  options.errors->Add(node, base::Concat("has ", std::to_string(node.size()), " elements, at most ",
                                         std::to_string(count_max)));
  return false;
}

bool ReadEnumName(const Node& node, const ReadOptions& options,
                  const std::vector<std::string_view>& names, size_t* index) {
  std::string must = "one of ";
  for (size_t i = 0; i < names.size(); ++i) {
    if (node.kind() == NodeKind::kString && node.text() == names[i]) {
      *index = i;
      return true;
    }
    if (i) must.append(", ");
    must.append(names[i]);
  }
  return Fail(node, options, must, DidYouMean(node.text(), names));
}

bool ReadInteger(const Node& node, const ReadOptions& options, int64_t min, int64_t max,
                 int64_t* value) {
  const auto integer = IntegerOf(node);
  if (integer && *integer >= min && *integer <= max) {
    *value = *integer;
    return true;
  }
  const auto quoted = node.kind() == NodeKind::kString ? base::ParseInt(node.text()) : std::nullopt;
  return Fail(node, options, base::Concat("an integer", IntegerBounds(min, max)),
              quoted ? base::Concat("; did you mean ", node.text(), " without quotes?") : "");
}

Value DescribeInteger(int64_t min, int64_t max) {
  Value out = Value::EmptyMap().Set("type", "integer");
  if (min != INT64_MIN) out.Set("minimum", min);
  if (max != INT64_MAX) out.Set("maximum", max);
  return out;
}

void Members::Add(std::string_view key, std::string_view help, Presence presence,
                  std::unique_ptr<Member> member) {
  member->name = {std::string(key), std::string(help), presence};
  names_.push_back(&member->name);
  members_.push_back(std::move(member));
}

bool Members::Read(const Node& node, const ReadOptions& options, void* object) const {
  if (node.kind() != NodeKind::kMap) return Fail(node, options, "a map");
  std::vector<int> entries;
  bool ok = MatchKeys(node, names_, options, &entries);
  for (size_t i = 0; i < members_.size(); ++i) {
    if (entries[i] < 0) continue;
    const Node child = node.at(static_cast<size_t>(entries[i]));
    if (!child.is_null()) ok &= members_[i]->Read(child, options, object);
  }
  return ok;
}

Value Members::Write(const void* object) const {
  Value out = Value::EmptyMap();
  for (const auto& member : members_) {
    Value written = member->Write(object);
    if (!written.is_null()) out.Set(member->name.key, std::move(written));
  }
  return out;
}

Value Members::Describe(const void* defaults) const {
  Value properties = Value::EmptyMap();
  Value required = Value::EmptyList();
  for (const auto& member : members_) {
    const FieldName& name = member->name;
    Value described = member->Describe().Set("description", name.help);
    if (name.presence == Presence::kRequired) {
      required.Append(name.key);
    } else if (Value value = member->Write(defaults); !value.is_null()) {
      described.Set("default", std::move(value));
    }
    properties.Set(name.key, std::move(described));
  }
  Value out = Value::EmptyMap();
  out.Set("type", "object").Set("additionalProperties", false);
  out.Set("properties", std::move(properties));
  if (!required.empty()) out.Set("required", std::move(required));
  return out;
}

Value Members::SchemaDocument(const void* defaults) const {
  Value out = Value::EmptyMap();
  out.Set("$schema", "https://json-schema.org/draft/2020-12/schema").Set("title", name_);
  const Value body = Describe(defaults);
  for (const auto& [key, value] : std::get<Value::Map>(body.data())) out.Set(key, value);
  return out;
}

}  // namespace internal

LLMD_CONFIG_COMMON_TYPES()

}  // namespace llmd::config
