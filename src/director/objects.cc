#include "director/objects.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <map>

#include "base/strings.h"
#include "config/schema.h"
#include "director/unknown_word.h"

namespace llmd::director {

using base::Concat;
using config::ErrorList;
using config::List;
using config::Node;
using config::Object;
using config::ObjectType;
using config::Optional;

namespace {

constexpr std::string_view kObjective = "InferenceObjective";
constexpr std::string_view kRewrite = "InferenceModelRewrite";
constexpr std::string_view kGroupVersion = "llm-d.ai/v1alpha2";
constexpr std::string_view kOldGroupVersion = "inference.networking.x-k8s.io/v1alpha2";
constexpr std::string_view kPoolGroup = "inference.networking.k8s.io";
constexpr std::string_view kPoolKind = "InferencePool";

// ---- the manifests as typed structs ----

struct Metadata {
  Node where;
  std::string name;
  std::string created;
  std::string deleted;
  Node unread;
};

struct PoolRef {
  std::string group{kPoolGroup};
  std::string kind{kPoolKind};
  std::string name;
};

struct ObjectiveSpec {
  std::optional<int32_t> priority;
  PoolRef pool;
};

struct ModelMatch {
  std::string type = "Exact";
  std::string value;
};
struct Match {
  ModelMatch model;
};
struct Target {
  Node where;
  std::optional<int32_t> weight;
  std::string model;
};
struct Rule {
  Node where;
  std::vector<Match> matches;
  std::vector<Target> targets;
};
struct RewriteSpec {
  PoolRef pool;
  std::vector<Rule> rules;
};

template <class Spec>
struct Manifest {
  Node where;
  std::string api_version, kind;
  Metadata metadata;
  Spec spec;
  Node status;
};

const std::shared_ptr<const ObjectType<Metadata>>& MetadataType() {
  static const auto type = [] {
    auto builder = Object<Metadata>("ObjectMeta");
    builder.Where(&Metadata::where)
        .Required("name", "Name of the object.", &Metadata::name, config::String(1, 253))
        .Field("creationTimestamp", "RFC 3339.", &Metadata::created)
        .Field("deletionTimestamp", "RFC 3339.", &Metadata::deleted);
    for (const char* key :
         {"namespace", "labels", "annotations", "uid", "resourceVersion", "generation",
          "generateName", "selfLink", "managedFields", "ownerReferences", "finalizers",
          "deletionGracePeriodSeconds"}) {
      builder.Field(key, "Not read.", &Metadata::unread, config::Raw());
    }
    return builder.Build();
  }();
  return type;
}

const std::shared_ptr<const ObjectType<PoolRef>>& PoolRefType() {
  static const auto type =
      Object<PoolRef>("PoolObjectReference")
          .Field("group", "API group of the pool.", &PoolRef::group, config::String(0, 253))
          .Field("kind", "Kind of the pool.", &PoolRef::kind, config::String(1, 63))
          .Required("name", "Name of the pool.", &PoolRef::name, config::String(1, 253))
          .Build();
  return type;
}

const std::shared_ptr<const ObjectType<ObjectiveSpec>>& ObjectiveSpecType() {
  static const auto type =
      Object<ObjectiveSpec>("InferenceObjectiveSpec")
          .Field("priority", "Higher is more important; 0 if absent.", &ObjectiveSpec::priority)
          .Required("poolRef", "The pool it is for.", &ObjectiveSpec::pool, PoolRefType())
          .Build();
  return type;
}

const std::shared_ptr<const ObjectType<RewriteSpec>>& RewriteSpecType() {
  static const auto model =
      Object<ModelMatch>("ModelMatch")
          .Field("type", "How to compare.", &ModelMatch::type)
          .Required("value", "Name of the model.", &ModelMatch::value, config::String(1))
          .Build();
  static const auto match = Object<Match>("Match")
                                .Required("model", "Which model.", &Match::model, model)
                                .Build();
  static const auto target =
      Object<Target>("TargetModel")
          .Where(&Target::where)
          .Field("weight", "Share of the requests.", &Target::weight,
                 Optional<int32_t>(config::Int<int32_t>(1, 1'000'000)))
          .Required("modelRewrite", "The model in its place.", &Target::model, config::String(1))
          .Build();
  static const auto rule =
      Object<Rule>("InferenceModelRewriteRule")
          .Where(&Rule::where)
          .Field("matches", "Models it is for; all if absent.", &Rule::matches, List<Match>(match))
          .Required("targets", "Models in their place.", &Rule::targets, List<Target>(target))
          .Build();
  static const auto type =
      Object<RewriteSpec>("InferenceModelRewriteSpec")
          .Required("poolRef", "The pool it is for.", &RewriteSpec::pool, PoolRefType())
          .Required("rules", "What to rewrite.", &RewriteSpec::rules, List<Rule>(rule))
          .Build();
  return type;
}

template <class Spec>
std::shared_ptr<const ObjectType<Manifest<Spec>>> ManifestType(
    std::string_view name, const std::shared_ptr<const ObjectType<Spec>>& spec) {
  using M = Manifest<Spec>;
  return Object<M>(std::string(name))
      .Where(&M::where)
      .Required("apiVersion", "llm-d.ai/v1alpha2.", &M::api_version)
      .Required("kind", "What it is.", &M::kind)
      .Required("metadata", "Its name and age.", &M::metadata, MetadataType())
      .Required("spec", "What is wanted.", &M::spec, spec)
      .Field("status", "Not read.", &M::status, config::Raw())
      .Build();
}

// "2026-01-31T12:00:00Z", with fraction and offset where given, to seconds since the Unix epoch
// (RFC 3339).
std::optional<int64_t> ParseTimestamp(std::string_view text) {
  const auto number = [&](size_t at, size_t digits, int64_t low, int64_t high) {
    if (at + digits > text.size()) return int64_t{-1};
    const std::string_view part = text.substr(at, digits);
    if (part.find_first_not_of("0123456789") != std::string_view::npos) return int64_t{-1};
    const int64_t value = base::ParseInt(part).value_or(-1);
    return value < low || value > high ? int64_t{-1} : value;
  };
  constexpr std::string_view kShape = "dddd-dd-ddTdd:dd:dd";
  if (text.size() <= kShape.size()) return std::nullopt;
  for (size_t i = 0; i < kShape.size(); ++i) {
    if (kShape[i] != 'd' && (text[i] & ~0x20) != (kShape[i] & ~0x20)) return std::nullopt;
  }
  const int64_t fields[] = {number(0, 4, 0, 9999),  number(5, 2, 1, 12),  number(8, 2, 1, 31),
                            number(11, 2, 0, 23), number(14, 2, 0, 59), number(17, 2, 0, 60)};
  if (std::ranges::find(fields, -1) != std::end(fields)) return std::nullopt;
  const std::chrono::year_month_day day{std::chrono::year(static_cast<int>(fields[0])),
                                        std::chrono::month(static_cast<unsigned>(fields[1])),
                                        std::chrono::day(static_cast<unsigned>(fields[2]))};
  if (!day.ok()) return std::nullopt;
  const int64_t days = std::chrono::sys_days(day).time_since_epoch().count();
  int64_t seconds = days * 86400 + fields[3] * 3600 + fields[4] * 60 + fields[5];
  size_t at = kShape.size();
  if (text[at] == '.') at = std::min(text.find_first_not_of("0123456789", at + 1), text.size());
  const std::string_view zone = text.substr(at);
  if (zone == "Z" || zone == "z") return seconds;
  const int64_t hours = number(at + 1, 2, 0, 23), minutes = number(at + 4, 2, 0, 59);
  if (zone.size() != 6 || zone[3] != ':' || hours < 0 || minutes < 0) return std::nullopt;
  if (zone[0] != '+' && zone[0] != '-') return std::nullopt;
  return seconds - (zone[0] == '+' ? 1 : -1) * (hours * 3600 + minutes * 60);
}

}  // namespace

// Reads all manifests, then sorts out which count.
class ObjectsReader {
 public:
  ObjectsReader(std::string_view filename, std::string_view pool)
      : filename_(filename), pool_(pool), out_(new Objects) {}

  base::Result<std::shared_ptr<const Objects>> Read(std::string_view text) {
    if (text.size() > kObjectsBytesMax) {
      return std::unexpected(base::InvalidArgument(
          Concat(filename_, ": is ", std::to_string(text.size()), " bytes, at most ",
                 std::to_string(kObjectsBytesMax), " are allowed")));
    }
    ReadDocuments(text);
    TakeObjectives();
    TakeRewrites();
    if (!errors_.ok()) return std::unexpected(errors_.ToStatus());
    return out_;
  }

 private:
  template <class Spec>
  struct Found {
    Manifest<Spec> manifest;
    bool old_group = false;
    int64_t created = std::numeric_limits<int64_t>::min();  // Go's zero time is the oldest
  };
  template <class Spec>
  using FoundList = std::vector<Found<Spec>>;

  void ReadDocuments(std::string_view text);
  void ReadDocument(std::string_view text, int first_line);
  void ReadObject(const Node& node);
  template <class Spec>
  void ReadManifest(const ObjectType<Manifest<Spec>>& type, const Node& node,
                    FoundList<Spec>* list);
  template <class Spec>
  void DropOldGroup(std::string_view kind, FoundList<Spec>* list);
  void TakeObjectives();
  void TakeRewrites();
  void TakeRule(const Found<RewriteSpec>& rewrite, const Rule& rule);
  bool IsForPool(const PoolRef& ref) const {
    return pool_.empty() ||
           (ref.name == pool_ && ref.group == kPoolGroup && ref.kind == kPoolKind);
  }
  void Warn(const Node& at, std::string_view what) {
    const config::Position p = at.position();
    out_->warnings_.push_back(Concat(filename_, ":", std::to_string(p.line), ":",
                                     std::to_string(p.column), " ", what));
  }

  const std::string filename_;
  const std::string_view pool_;
  ErrorList errors_;
  std::vector<std::shared_ptr<const config::Document>> documents_;  // nodes point into them
  FoundList<ObjectiveSpec> objectives_;
  FoundList<RewriteSpec> rewrites_;
  size_t targets_ = 0;
  std::map<std::string, const RewriteRule*, std::less<>> exact_;
  std::shared_ptr<Objects> out_;
};

// YAML lets no value have "---" at the start of a line, so that the text may be cut there first.
void ObjectsReader::ReadDocuments(std::string_view text) {
  int line = 1, first_line = 1;
  size_t begin = 0;
  for (size_t at = 0; at < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view this_line = text.substr(at, end - at);
    const bool separator = this_line.starts_with("---") &&
                           (this_line.size() == 3 || this_line[3] == ' ' ||
                            this_line[3] == '\t' || this_line[3] == '\r');
    if (separator) {
      ReadDocument(text.substr(begin, at - begin), first_line);
      begin = at;  // the separator stays: something may stand behind it
      first_line = line;
    }
    at = end + 1;
  }
  ReadDocument(text.substr(begin), first_line);
}

void ObjectsReader::ReadDocument(std::string_view text, int first_line) {
  const auto document = config::Document::Parse(text, filename_, &errors_, first_line);
  if (!document || document->root().is_null()) return;
  documents_.push_back(document);
  ReadObject(document->root());
}

void ObjectsReader::ReadObject(const Node& node) {
  if (node.kind() != config::NodeKind::kMap) {
    errors_.Add(node, "is no manifest: a map with apiVersion, kind, metadata and spec");
    return;
  }
  const Node kind_node = node.Find("kind");
  const std::string_view kind = kind_node.text();
  const std::string_view api_version = node.Find("apiVersion").text();
  if (kind.empty() || api_version.empty()) {
    errors_.Add(node, kind.empty() ? "kind is missing" : "apiVersion is missing");
    return;
  }
  if (kind == "List" || kind == Concat(kObjective, "List") || kind == Concat(kRewrite, "List")) {
    const Node items = node.Find("items");
    for (size_t i = 0; i < items.size(); ++i) ReadObject(items.at(i));
    return;
  }
  if (kind != kObjective && kind != kRewrite) {
    Warn(node, Concat("a ", kind, " of ", api_version, " is ignored: only ", kObjective, " and ",
                      kRewrite, " are read"));
    return;
  }
  if (api_version != kGroupVersion && api_version != kOldGroupVersion) {
    errors_.Add(node.FindOrSelf("apiVersion"),
                UnknownWord(Concat(kind, " apiVersion"), api_version,
                            {{kGroupVersion, kOldGroupVersion}}));
    return;
  }
  static const auto objective = ManifestType(kObjective, ObjectiveSpecType());
  static const auto rewrite = ManifestType(kRewrite, RewriteSpecType());
  if (kind == kObjective) {
    ReadManifest(*objective, node, &objectives_);
  } else {
    ReadManifest(*rewrite, node, &rewrites_);
  }
}

template <class Spec>
void ObjectsReader::ReadManifest(const ObjectType<Manifest<Spec>>& type, const Node& node,
                                 FoundList<Spec>* list) {
  Found<Spec> found;
  if (!type.Read(node, {.errors = &errors_}, &found.manifest)) return;
  const Manifest<Spec>& m = found.manifest;
  found.old_group = m.api_version == kOldGroupVersion;
  if (!m.metadata.created.empty()) {
    const auto created = ParseTimestamp(m.metadata.created);
    if (!created) {
      errors_.Add(m.metadata.where.FindOrSelf("creationTimestamp"),
                  Concat("\"", m.metadata.created, "\" is no RFC 3339 time"));
      return;
    }
    found.created = *created;
  }
  const std::string what = Concat(m.kind, " \"", m.metadata.name, "\"");
  if (!m.metadata.deleted.empty()) {
    Warn(node, Concat(what, " is ignored: it is being deleted"));
    return;
  }
  if (!IsForPool(m.spec.pool)) {
    Warn(node, Concat(what, " is ignored: it is for ", m.spec.pool.kind, " \"", m.spec.pool.name,
                      "\" of ", m.spec.pool.group, ", not for ", kPoolKind, " \"", pool_,
                      "\" of ", kPoolGroup));
    return;
  }
  if (objectives_.size() + rewrites_.size() >= kObjectsMax) {
    errors_.Add(node, Concat("too many objects, at most ", std::to_string(kObjectsMax)));
    return;
  }
  list->push_back(std::move(found));
}

template <class Spec>
void ObjectsReader::DropOldGroup(std::string_view kind, FoundList<Spec>* list) {
  const auto old = [](const Found<Spec>& f) { return f.old_group; };
  const auto olds = static_cast<size_t>(std::ranges::count_if(*list, old));
  if (olds == 0) return;
  const Node at = std::ranges::find_if(*list, old)->manifest.where;
  if (olds == list->size()) {
    Warn(at, Concat(kind, " of ", kOldGroupVersion, " is deprecated: use ", kGroupVersion));
    return;
  }
  Warn(at, Concat(std::to_string(olds), " objects ", kind, " of ", kOldGroupVersion,
                  " are ignored: there are some of ", kGroupVersion));
  std::erase_if(*list, old);
}

namespace {

// Reports a second object of a name.
template <class Lines>
bool IsNew(Lines* lines, const Metadata& metadata, std::string_view kind, ErrorList* errors) {
  const int line = metadata.where.position().line;
  const auto [first, is_new] = lines->emplace(metadata.name, line);
  if (!is_new) {
    errors->Add(metadata.where.FindOrSelf("name"),
                Concat("duplicate ", kind, " \"", metadata.name, "\", first at line ",
                       std::to_string(first->second)));
  }
  return is_new;
}

}  // namespace

void ObjectsReader::TakeObjectives() {
  DropOldGroup(kObjective, &objectives_);
  std::map<std::string, int, std::less<>> lines;
  for (const Found<ObjectiveSpec>& f : objectives_) {
    if (!IsNew(&lines, f.manifest.metadata, kObjective, &errors_)) continue;
    out_->objectives_.emplace_back(f.manifest.metadata.name,
                                   f.manifest.spec.priority.value_or(0));
  }
  std::ranges::sort(out_->objectives_);
}

void ObjectsReader::TakeRewrites() {
  DropOldGroup(kRewrite, &rewrites_);
  std::map<std::string, int, std::less<>> lines;
  std::vector<const Found<RewriteSpec>*> oldest_first;
  for (const Found<RewriteSpec>& f : rewrites_) {
    if (IsNew(&lines, f.manifest.metadata, kRewrite, &errors_)) oldest_first.push_back(&f);
  }
  // Of equal age, in the file's order: they lie so in rewrites_.
  std::ranges::sort(oldest_first, {}, [](const auto* f) { return std::pair(f->created, f); });
  for (const Found<RewriteSpec>* f : oldest_first) {
    for (const Rule& rule : f->manifest.spec.rules) TakeRule(*f, rule);
  }
  out_->exact_.assign(exact_.begin(), exact_.end());
  auto& names = out_->model_names_;
  std::ranges::sort(names);
  names.erase(std::ranges::unique(names).begin(), names.end());
}

// Rules come in the order of their precedence.
void ObjectsReader::TakeRule(const Found<RewriteSpec>& rewrite, const Rule& rule) {
  const auto has_weight = [](const Target& t) { return t.weight.has_value(); };
  const auto weighted = static_cast<size_t>(std::ranges::count_if(rule.targets, has_weight));
  auto compiled = std::make_unique<RewriteRule>();
  compiled->rewrite = rewrite.manifest.metadata.name;
  uint64_t sum = 0;
  for (const Target& t : rule.targets) {
    if (++targets_ > kRewriteTargetsMax) {
      errors_.Add(t.where,
                  Concat("too many targets, at most ", std::to_string(kRewriteTargetsMax)));
      return;
    }
    if (weighted > 0 && !t.weight) {
      Warn(t.where, Concat("\"", t.model, "\" is never chosen: other targets have weights"));
      continue;
    }
    sum += static_cast<uint64_t>(t.weight.value_or(1));
    compiled->targets.push_back({.model = t.model, .weights_until = sum});
    out_->model_names_.push_back(t.model);
  }
  if (compiled->targets.empty()) {
    errors_.Add(rule.where.FindOrSelf("targets"), "has no targets, one is needed");
    return;
  }
  for (const Match& match : rule.matches) {
    if (match.model.type != "Exact") {
      errors_.Add(rule.where.FindOrSelf("matches"),
                  UnknownWord("match type", match.model.type, {{"Exact"}}));
    }
    out_->model_names_.push_back(match.model.value);
    exact_.emplace(match.model.value, compiled.get());
  }
  if (rule.matches.empty() && !out_->generic_) out_->generic_ = compiled.get();
  out_->rules_.push_back(std::move(compiled));
}

const std::string& RewriteRule::Draw(base::Random& random) const {
  if (targets.size() == 1) return targets[0].model;
  const uint64_t drawn = random.Below(targets.back().weights_until);
  return std::ranges::upper_bound(targets, drawn, {}, &Target::weights_until)->model;
}

namespace {

template <class Pairs>
auto FindIn(const Pairs& pairs, std::string_view name) {
  const auto at = std::ranges::lower_bound(
      pairs, name, {}, [](const auto& pair) { return std::string_view(pair.first); });
  return at != pairs.end() && at->first == name ? &at->second : nullptr;
}

}  // namespace

std::optional<int32_t> Objects::PriorityOf(std::string_view objective) const {
  const int32_t* priority = FindIn(objectives_, objective);
  return priority ? std::optional(*priority) : std::nullopt;
}

const RewriteRule* Objects::RuleFor(std::string_view model) const {
  const RewriteRule* const* exact = FindIn(exact_, model);
  return exact ? *exact : generic_;
}

base::Result<std::shared_ptr<const Objects>> ReadObjects(std::string_view text,
                                                         std::string_view filename,
                                                         std::string_view pool) {
  return ObjectsReader(filename, pool).Read(text);
}

}  // namespace llmd::director
