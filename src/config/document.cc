// The one file that knows yaml-cpp: its events become our tree, its exceptions become errors.
#include "config/document.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>
#include <unordered_map>

#include "base/check.h"
#include "base/strings.h"

namespace llmd::config {
namespace {

constexpr uint32_t kNone = UINT32_MAX;

Position PositionOf(const YAML::Mark& mark, int first_line) {
  return {mark.line + first_line, mark.column + 1};
}

}  // namespace

struct Node::Entry {
  std::string key;  // maps only
  Position key_position;
  uint32_t node = 0;
};

struct Document::Tree {
  struct Data {
    NodeKind kind = NodeKind::kNull;
    Position position;
    uint32_t parent = kNone;
    uint32_t slot = 0;      // which entry of the parent
    uint32_t expanded = 1;  // nodes below and including this one, aliases expanded
    uint32_t height = 1;
    std::string text;
    Scalar scalar;
    std::vector<Node::Entry> entries;
  };
  std::vector<Data> nodes;
};

// Receives yaml-cpp's events. After the first limit error the rest is ignored (handlers cannot stop
// the parser without throwing).
class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(Document::Tree* tree, const std::string& filename, int first_line,
              ErrorList* errors)
      : nodes_(tree->nodes), filename_(filename), first_line_(first_line), errors_(*errors) {}

  bool stopped() const { return stopped_; }
  bool has_content() const { return !nodes_.empty(); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ == 2) {
      Fail(mark, "a second document begins here, one is allowed; remove the ---");
      stopped_ = true;
    }
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Scalar null;
    null.kind = NodeKind::kNull;
    AddScalar(mark, anchor, "null", null, false);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    // "!" is a quoted scalar; an explicit !!str is a string, too.
    const bool quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    AddScalar(mark, anchor, value, quoted ? Scalar{} : ResolvePlainScalar(value), quoted);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override;
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, anchor, NodeKind::kList);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, anchor, NodeKind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Level {
    uint32_t node = 0;
    bool has_key = false;  // maps: a key was read, its value comes next
    bool key_plain = false;
    std::string key;
    Position key_position;
    std::vector<std::pair<uint32_t, Position>> merges;  // values of `<<`
    std::unordered_map<std::string, uint32_t> keys;     // key -> entry
  };

  Position PositionOf(const YAML::Mark& mark) const {
    return config::PositionOf(mark, first_line_);
  }
  void Fail(const YAML::Mark& mark, std::string_view what) { Fail(PositionOf(mark), what); }
  void Fail(Position at, std::string_view what) {
    errors_.Add(filename_, at, nodes_.empty() ? "" : PathHere(), what);
  }
  std::string PathHere() const;
  bool MapWantsKey() const {
    return !levels_.empty() && nodes_[levels_.back().node].kind == NodeKind::kMap &&
           !levels_.back().has_key;
  }
  uint32_t NewNode(const YAML::Mark& mark, NodeKind kind);
  void AddScalar(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& text,
                 const Scalar& scalar, bool quoted);
  void Open(const YAML::Mark& mark, YAML::anchor_t anchor, NodeKind kind);
  void Close();
  void Attach(uint32_t node, Position at);
  void Merge(Level* level);
  void MergeMap(Level* level, uint32_t from, Position at);
  void Measure(uint32_t node);

  std::vector<Document::Tree::Data>& nodes_;
  const std::string& filename_;
  const int first_line_;
  ErrorList& errors_;
  std::vector<Level> levels_;
  std::unordered_map<YAML::anchor_t, uint32_t> anchors_;
  int documents_ = 0;
  int ignored_depth_ = 0;  // levels inside of a key that is not a scalar
  bool stopped_ = false;
};

namespace {

void AppendPathKey(std::string* path, std::string_view key) {
  const bool plain = !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  if (plain) {
    if (!path->empty()) path->push_back('.');
    path->append(key);
  } else {
    path->push_back('[');
    base::AppendJsonString(path, key);
    path->push_back(']');
  }
}

}  // namespace

std::string TreeBuilder::PathHere() const {
  std::string path;
  for (const Level& level : levels_) {
    const auto& data = nodes_[level.node];
    if (data.kind == NodeKind::kList) {
      path.append("[").append(std::to_string(data.entries.size())).append("]");
    } else if (level.has_key) {
      AppendPathKey(&path, level.key);
    }
  }
  return path;
}

uint32_t TreeBuilder::NewNode(const YAML::Mark& mark, NodeKind kind) {
  if (nodes_.size() >= kNodesMax) {
    Fail(mark, base::Concat("too many values, at most ", std::to_string(kNodesMax)));
    stopped_ = true;
    return kNone;
  }
  nodes_.emplace_back();
  nodes_.back().kind = kind;
  nodes_.back().position = PositionOf(mark);
  return static_cast<uint32_t>(nodes_.size() - 1);
}

void TreeBuilder::AddScalar(const YAML::Mark& mark, YAML::anchor_t anchor, const std::string& text,
                            const Scalar& scalar, bool quoted) {
  if (stopped_ || ignored_depth_ > 0) return;
  if (MapWantsKey()) {
    Level& level = levels_.back();
    level.has_key = true;
    level.key = text;
    level.key_plain = !quoted;
    level.key_position = PositionOf(mark);
    return;
  }
  const uint32_t node = NewNode(mark, scalar.kind);
  if (node == kNone) return;
  nodes_[node].text = text;
  nodes_[node].scalar = scalar;
  if (anchor) anchors_[anchor] = node;
  Attach(node, PositionOf(mark));
}

void TreeBuilder::OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) {
  if (stopped_ || ignored_depth_ > 0) return;
  if (MapWantsKey()) {
    Fail(mark, "an alias cannot be a key, write the key out");
    levels_.back().has_key = true;
    levels_.back().key = "*";
    return;
  }
  const auto at = anchors_.find(anchor);
  const bool open = at != anchors_.end() &&
                    std::any_of(levels_.begin(), levels_.end(),
                                [&](const Level& level) { return level.node == at->second; });
  if (at == anchors_.end() || open) {
    Fail(mark, "the alias refers to a value that contains it, write the value out");
    stopped_ = true;
    return;
  }
  Attach(at->second, PositionOf(mark));
}

void TreeBuilder::Open(const YAML::Mark& mark, YAML::anchor_t anchor, NodeKind kind) {
  if (stopped_) return;
  if (ignored_depth_ > 0 || MapWantsKey()) {
    if (ignored_depth_++ == 0) Fail(mark, "a key must be a word or a number, not a list or a map");
    return;
  }
  if (levels_.size() >= kDepthMax) {
    Fail(mark, base::Concat("nested too deeply, at most ", std::to_string(kDepthMax), " levels"));
    stopped_ = true;
    return;
  }
  const uint32_t node = NewNode(mark, kind);
  if (node == kNone) return;
  if (anchor) anchors_[anchor] = node;
  levels_.emplace_back().node = node;
}

void TreeBuilder::Close() {
  if (stopped_) return;
  if (ignored_depth_ > 0) {
    if (--ignored_depth_ == 0) {
      levels_.back().has_key = true;
      levels_.back().key = "?";
      levels_.back().key_plain = false;
    }
    return;
  }
  Level level = std::move(levels_.back());
  levels_.pop_back();
  Merge(&level);
  Measure(level.node);
  if (stopped_) return;
  Attach(level.node, nodes_[level.node].position);
}

// Hangs a finished node (or an alias to one) into the level that is open.
void TreeBuilder::Attach(uint32_t node, Position at) {
  if (levels_.empty()) return;  // the root
  Level& level = levels_.back();
  auto& parent = nodes_[level.node];
  Node::Entry entry;
  if (parent.kind == NodeKind::kMap) {
    if (level.key_plain && level.key == "<<") {
      level.merges.emplace_back(node, at);
      level.has_key = false;
      return;
    }
    const auto [first, is_new] =
        level.keys.emplace(level.key, static_cast<uint32_t>(parent.entries.size()));
    if (!is_new) {
      const int line = parent.entries[first->second].key_position.line;
      Fail(level.key_position, base::Concat("duplicate key, first at line ", std::to_string(line)));
      level.has_key = false;
      return;
    }
    entry.key = std::move(level.key);
    entry.key_position = level.key_position;
    level.has_key = false;
    // An empty value is marked where the next token stands, which helps nobody.
    if (nodes_[node].kind == NodeKind::kNull) nodes_[node].position = entry.key_position;
  }
  entry.node = node;
  if (nodes_[node].parent == kNone) {
    nodes_[node].parent = level.node;
    nodes_[node].slot = static_cast<uint32_t>(parent.entries.size());
  }
  parent.entries.push_back(std::move(entry));
}

void TreeBuilder::Merge(Level* level) {
  for (const auto& [node, at] : level->merges) {
    if (nodes_[node].kind == NodeKind::kMap) {
      MergeMap(level, node, at);
    } else if (nodes_[node].kind == NodeKind::kList) {
      for (size_t i = 0; i < nodes_[node].entries.size(); ++i) {
        MergeMap(level, nodes_[node].entries[i].node, at);
      }
    } else {
      Fail(at, "the merge key << needs a map or a list of maps");
    }
  }
}

// Keys that exist win, so of several merged maps the first.
void TreeBuilder::MergeMap(Level* level, uint32_t from, Position at) {
  if (nodes_[from].kind != NodeKind::kMap) {
    Fail(at, "the merge key << needs a map or a list of maps");
    return;
  }
  auto& into = nodes_[level->node].entries;
  for (const Node::Entry& entry : nodes_[from].entries) {
    if (into.size() > kNodesMax) return;  // Measure reports it
    const auto [_, is_new] = level->keys.emplace(entry.key, static_cast<uint32_t>(into.size()));
    if (!is_new) continue;
    // A map written in place (<<: {a: 1}) hangs nowhere else.
    if (nodes_[from].parent == kNone && nodes_[entry.node].parent == from) {
      nodes_[entry.node].parent = level->node;
      nodes_[entry.node].slot = static_cast<uint32_t>(into.size());
    }
    into.push_back(entry);
  }
}

void TreeBuilder::Measure(uint32_t node) {
  uint64_t expanded = 1;
  uint32_t height = 0;
  for (const Node::Entry& entry : nodes_[node].entries) {
    expanded += nodes_[entry.node].expanded;
    height = std::max(height, nodes_[entry.node].height);
  }
  nodes_[node].expanded = static_cast<uint32_t>(std::min<uint64_t>(expanded, kNodesMax + 1));
  nodes_[node].height = height + 1;
  if (expanded > kNodesMax) {
    Fail(nodes_[node].position,
         base::Concat("aliases expand to too many values, at most ", std::to_string(kNodesMax)));
    stopped_ = true;
  } else if (height + 1 > kDepthMax + 1) {
    Fail(nodes_[node].position,
         base::Concat("aliases nest too deeply, at most ", std::to_string(kDepthMax), " levels"));
    stopped_ = true;
  }
}

Document::Document() : tree_(std::make_unique<Tree>()) {}
Document::~Document() = default;

std::shared_ptr<const Document> Document::Parse(std::string_view text, std::string filename,
                                                ErrorList* errors, int first_line) {
  std::shared_ptr<Document> document(new Document);
  document->filename_ = std::move(filename);
  const std::string& name = document->filename_;
  if (text.size() > kDocumentBytesMax) {
    errors->Add(name, {}, "",
                base::Concat("is ", std::to_string(text.size()), " bytes, at most ",
                             std::to_string(kDocumentBytesMax), " are allowed"));
    return nullptr;
  }
  const size_t errors_before = errors->total();
  TreeBuilder builder(document->tree_.get(), name, first_line, errors);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (!builder.stopped() && parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& e) {
    const Position at = e.mark.is_null() ? Position{} : PositionOf(e.mark, first_line);
    errors->Add(name, at, "", base::Concat("not valid YAML: ", e.msg));
  }
  if (errors->total() != errors_before) return nullptr;
  if (!builder.has_content()) document->tree_->nodes.emplace_back();
  return document;
}

NodeKind Node::kind() const { return document_->tree_->nodes[id_].kind; }

std::string_view Node::text() const {
  return document_ ? std::string_view(document_->tree_->nodes[id_].text) : std::string_view();
}

bool Node::bool_value() const { return document_->tree_->nodes[id_].scalar.boolean; }
int64_t Node::int_value() const { return document_->tree_->nodes[id_].scalar.integer; }
double Node::double_value() const { return document_->tree_->nodes[id_].scalar.number; }

size_t Node::size() const { return document_ ? document_->tree_->nodes[id_].entries.size() : 0; }

Node Node::at(size_t i) const {
  return Node(document_, document_->tree_->nodes[id_].entries[i].node);
}

std::string_view Node::key(size_t i) const { return document_->tree_->nodes[id_].entries[i].key; }

Position Node::key_position(size_t i) const {
  return document_->tree_->nodes[id_].entries[i].key_position;
}

Node Node::Find(std::string_view key) const {
  if (!document_) return {};
  for (const Entry& entry : document_->tree_->nodes[id_].entries) {
    if (entry.key == key) return Node(document_, entry.node);
  }
  return {};
}

Node Node::FindOrSelf(std::string_view key) const {
  const Node child = Find(key);
  return child ? child : *this;
}

Position Node::position() const {
  return document_ ? document_->tree_->nodes[id_].position : Position{};
}

std::string Node::path() const {
  if (!document_) return "";
  const auto& nodes = document_->tree_->nodes;
  std::vector<uint32_t> chain;
  for (uint32_t id = id_; nodes[id].parent != kNone; id = nodes[id].parent) chain.push_back(id);
  std::string path;
  for (auto id = chain.rbegin(); id != chain.rend(); ++id) {
    const auto& parent = nodes[nodes[*id].parent];
    if (parent.kind == NodeKind::kList) {
      path.append("[").append(std::to_string(nodes[*id].slot)).append("]");
    } else {
      AppendPathKey(&path, parent.entries[nodes[*id].slot].key);
    }
  }
  return path;
}

}  // namespace llmd::config
