// Objects: what InferenceObjectives and InferenceModelRewrites say, as requests ask for it: the
// priority of an objective, the models that stand in for a model.
//
//   auto objects = ReadObjects(text, "objects.yaml", "my-pool");
//   if (objects) source.Publish(*objects);
//
// An immutable snapshot, thread-safe. Source of the formats: llm-d-router, apix/v1alpha2.
// Invariants: every rule has a target that can be drawn; a name is there once per kind. Limits:
// kObjectsMax objects, kRewriteTargetsMax targets, kObjectsBytesMax of text; beyond, it is refused.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/status.h"

namespace llmd::director {

// A site has objectives in tens and rewrites in hundreds; the numbers keep a broken generator of
// manifests from filling the memory (100 bytes each: a few MiB).
inline constexpr size_t kObjectsMax = 10'000;
inline constexpr size_t kRewriteTargetsMax = 100'000;
inline constexpr size_t kObjectsBytesMax = 16 << 20;

// One rule of an InferenceModelRewrite.
struct RewriteRule {
  struct Target {
    std::string model;
    uint64_t weights_until = 0;  // sum of the weights up to and with this one
  };
  std::string rewrite;  // name of the object, for the metric
  // Those that can be drawn: all have a weight, or none of the rule has one and each counts 1.
  std::vector<Target> targets;

  const std::string& Draw(base::Random& random) const;
};

class Objects {
 public:
  Objects(const Objects&) = delete;
  Objects& operator=(const Objects&) = delete;

  // nullopt: there is no such objective. One that sets no priority has 0.
  std::optional<int32_t> PriorityOf(std::string_view objective) const;
  // The rule for the model that a client asked for, or nullptr: one that names the model before one
  // for every model; of these the one of the oldest object, then the first in its list.
  const RewriteRule* RuleFor(std::string_view model) const;
  // There is a rule for every model: a request need not name one.
  bool has_generic_rule() const { return generic_ != nullptr; }
  size_t objective_count() const { return objectives_.size(); }
  size_t rule_count() const { return rules_.size(); }
  // Every model name that rewrites mention; metrics show them whatever the cap on model names.
  std::span<const std::string> model_names() const { return model_names_; }
  // What was passed over and why, one sentence with its place each.
  std::span<const std::string> warnings() const { return warnings_; }

 private:
  friend class ObjectsReader;
  Objects() = default;

  std::vector<std::pair<std::string, int32_t>> objectives_;      // sorted by name
  std::vector<std::unique_ptr<const RewriteRule>> rules_;        // in order of precedence
  std::vector<std::pair<std::string, const RewriteRule*>> exact_;  // sorted by model
  const RewriteRule* generic_ = nullptr;
  std::vector<std::string> model_names_;  // sorted, once each
  std::vector<std::string> warnings_;
};

// Reads manifests, separated by lines of "---", or lists of them as kubectl prints them: kinds
// InferenceObjective and InferenceModelRewrite of llm-d.ai/v1alpha2 and of the older
// inference.networking.x-k8s.io/v1alpha2. Where a kind is there under both, the older one's objects
// are passed over (as upstream, where both CRDs are installed). Strict, but for `status` and the
// metadata that an API server adds. Objects of another pool than `pool` ("" = any), those being
// deleted and other kinds are passed over with a warning. On errors the Status carries all of them,
// one file:line:col key.path per line. An empty text has no objects.
base::Result<std::shared_ptr<const Objects>> ReadObjects(std::string_view text,
                                                         std::string_view filename,
                                                         std::string_view pool);

}  // namespace llmd::director
