// A YAML (or JSON) document as a tree of nodes that know where they stand.
//
// Document::Parse is strict: duplicate keys, several documents, anchors that do not exist and
// anything over a limit are errors with a position; all of them are reported, not only the first
// (after a syntax error the rest cannot be read). Scalars are typed as the Go decoders of the
// originals do it (sigs.k8s.io/yaml: YAML 1.1 core words, then JSON types), so a quoted number is a
// string and `yes` is a bool.
//
// Thread safety: a Document is immutable after Parse; Node is a view (pointer and number) that is
// valid as long as its Document lives. Keep the Document (a shared_ptr) beside what was read from
// it to report positions later. Invariants: 1. Keys of a map are unique. 2. Merge keys (`<<`) and
// aliases are resolved; a node that an alias reaches reports the position and path of its
// anchor. 3. Expanding all aliases gives at most kNodesMax nodes. Limits: kDocumentBytesMax,
// kDepthMax, kNodesMax.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace llmd::config {

inline constexpr size_t kDocumentBytesMax = 1u << 20;  // upstream's limit for discovery files
inline constexpr size_t kDepthMax = 64;                // the deepest sample config has 12
// 10,000 endpoints of a discovery file take about 12 nodes each; aliases count expanded.
inline constexpr size_t kNodesMax = 1u << 18;

// 1-based; 0 means unknown.
struct Position {
  int line = 0;
  int column = 0;
  friend bool operator==(const Position&, const Position&) = default;
};

class Document;
class ErrorList;

enum class NodeKind : uint8_t { kNull, kBool, kInt, kDouble, kString, kList, kMap };
// "a string", "a list", "null", ...
std::string_view NodeKindName(NodeKind kind);

class Node {
 public:
  struct Entry;

  Node() = default;  // absent
  explicit operator bool() const { return document_ != nullptr; }

  NodeKind kind() const;  // of a present node
  bool is_null() const { return !document_ || kind() == NodeKind::kNull; }
  // Scalars: the text as written, quotes and escapes undone. Empty for lists and maps.
  std::string_view text() const;
  bool bool_value() const;      // kind kBool
  int64_t int_value() const;    // kind kInt
  double double_value() const;  // kind kInt or kDouble

  // Lists: elements; maps: values in file order.
  size_t size() const;
  Node at(size_t i) const;
  // Maps: the i-th key and its position.
  std::string_view key(size_t i) const;
  Position key_position(size_t i) const;
  // Maps: the value under exactly `key`, or absent.
  Node Find(std::string_view key) const;
  // The child `key` if there is one, else this node: where to put an error about a field that may
  // be missing.
  Node FindOrSelf(std::string_view key) const;

  Position position() const;
  std::string path() const;  // "plugins[2].parameters.maxQueue"; "" at the root
  const Document* document() const { return document_; }

 private:
  friend class Document;
  Node(const Document* document, uint32_t id) : document_(document), id_(id) {}

  const Document* document_ = nullptr;
  uint32_t id_ = 0;
};

class Document {
 public:
  // Appends what is wrong to `errors` and returns nullptr if anything is. `filename` is what error
  // texts show; `first_line` is the line of the file that `text` begins with (one of several
  // documents). An empty document has an absent-like null root.
  static std::shared_ptr<const Document> Parse(std::string_view text, std::string filename,
                                               ErrorList* errors, int first_line = 1);
  ~Document();

  Node root() const { return Node(this, 0); }
  const std::string& filename() const { return filename_; }

 private:
  friend class Node;
  friend class TreeBuilder;
  struct Tree;
  Document();

  std::string filename_;
  std::unique_ptr<Tree> tree_;
};

// Everything that is wrong with a configuration, in file order. Keeps the first kErrorsMax and
// counts the rest. Thread-compatible.
class ErrorList {
 public:
  static constexpr size_t kErrorsMax = 50;

  // `what` reads "what is wrong, what is allowed; did you mean X?" and follows the path.
  void Add(const Node& at, std::string_view what);
  void Add(std::string_view filename, Position position, std::string_view path,
           std::string_view what);
  // Without a place in a file (flags, several files together).
  void Add(std::string_view what) { Add("", {}, "", what); }

  bool ok() const { return total_ == 0; }
  size_t total() const { return total_; }
  // "file:line:col path: what" each, sorted by file and position; the last may be "and N more
  // errors".
  std::vector<std::string> Lines() const;
  std::string ToString() const;   // Lines joined by newlines
  base::Status ToStatus() const;  // OK or InvalidArgument(ToString())

 private:
  struct Error {
    std::string filename;
    Position position;
    std::string text;
  };
  std::vector<Error> errors_;
  size_t total_ = 0;
};

// What a plain (unquoted) scalar means.
struct Scalar {
  NodeKind kind = NodeKind::kString;
  bool boolean = false;
  int64_t integer = 0;
  double number = 0;  // for kInt, too
};
Scalar ResolvePlainScalar(std::string_view text);

// "; did you mean X?" or "".
std::string DidYouMean(std::string_view word, std::span<const std::string_view> allowed);

// Kubernetes quantity ("5000", "1G", "500Mi", "2e3", "1500m") as a whole number, rounded up as
// resource.Quantity.Value does. With `bytes`, a trailing B is allowed ("1GB", "500MiB").
std::optional<int64_t> ParseQuantity(std::string_view text, bool bytes = false);

// The shortest Go duration string ("1h30m0s", "200ms", "1.5s", "0s"), as time.Duration prints it.
std::string FormatGoDuration(int64_t ns);

}  // namespace llmd::config
