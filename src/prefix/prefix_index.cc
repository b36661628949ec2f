#include "prefix/prefix_index.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/adaptive_mutex.h"
#include "base/check.h"

namespace llmd::prefix {
namespace {

using NodeId = uint32_t;
using ExtentId = uint32_t;
constexpr uint32_t kNone = ~uint32_t{0};

// Objects by number, in chunks that never move; freed numbers are used again.
template <class T>
class Pool {
 public:
  T& operator[](uint32_t id) { return chunks_[id / kChunk][id % kChunk]; }
  const T& operator[](uint32_t id) const { return chunks_[id / kChunk][id % kChunk]; }
  uint32_t Add() {
    if (free_.empty()) {
      if (size_ % kChunk == 0) chunks_.push_back(std::make_unique<T[]>(kChunk));
      return size_++;
    }
    const uint32_t id = free_.back();
    free_.pop_back();
    return id;
  }
  void Remove(uint32_t id) {
    (*this)[id] = T();
    free_.push_back(id);
  }
  size_t live() const { return size_ - free_.size(); }

 private:
  static constexpr uint32_t kChunk = 1024;
  std::vector<std::unique_ptr<T[]>> chunks_;
  std::vector<uint32_t> free_;
  uint32_t size_ = 0;
};

// What one endpoint holds of one node: the first `length` blocks of its run.
struct Holder {
  uint32_t endpoint;
  uint32_t length;
  ExtentId extent;
};

struct Node {
  NodeId parent = kNone;
  NodeId next_in_bucket = kNone;
  uint64_t first = 0;  // run[0], here so that a look-up needs no second cache line
  std::vector<BlockHash> run;
  std::vector<Holder> holders;  // by endpoint, ascending; never empty
};

// A holder's place in its endpoint's list.
struct Extent {
  NodeId node = kNone;
  ExtentId older = kNone;
  ExtentId newer = kNone;
  uint64_t used_at = 0;
};

struct Endpoint {
  ExtentId oldest = kNone;
  ExtentId newest = kNone;
  size_t blocks = 0;
};

// Which endpoint holds what was used longest ago: a complete binary tree whose leaves are the times
// of the endpoints and whose inner nodes are the lesser of their two children.
class Tournament {
 public:
  static constexpr uint64_t kNever = ~uint64_t{0};

  // At least `endpoints` leaves; new ones are at kNever.
  void Grow(size_t endpoints) {
    if (endpoints <= leaves_) return;
    const size_t leaves = std::bit_ceil(endpoints);
    std::vector<uint64_t> next(2 * leaves, kNever);
    std::copy_n(tree_.begin() + static_cast<ptrdiff_t>(leaves_), leaves_,
                next.begin() + static_cast<ptrdiff_t>(leaves));
    tree_ = std::move(next);
    leaves_ = leaves;
    for (size_t i = leaves - 1; i > 0; --i) tree_[i] = std::min(tree_[2 * i], tree_[2 * i + 1]);
  }
  void Set(size_t endpoint, uint64_t time) {
    size_t i = leaves_ + endpoint;
    tree_[i] = time;
    while (i > 1) {
      i /= 2;
      const uint64_t lesser = std::min(tree_[2 * i], tree_[2 * i + 1]);
      if (tree_[i] == lesser) return;
      tree_[i] = lesser;
    }
  }
  // The endpoint with the least time.
  size_t Winner() const {
    size_t i = 1;
    while (i < leaves_) i = 2 * i + (tree_[2 * i] == tree_[i] ? 0 : 1);
    return i - leaves_;
  }
  size_t bytes() const { return tree_.size() * sizeof(uint64_t); }

 private:
  std::vector<uint64_t> tree_;
  size_t leaves_ = 0;  // a power of two, or none yet
};

// Nodes by first hash and parent: a hash table that grows by one bucket at a time (linear hashing),
// so that no insertion ever stops to move a million entries.
class NodeTable {
 public:
  NodeTable() { Grow(); }

  NodeId Find(const Pool<Node>& nodes, uint64_t first, NodeId parent) const {
    NodeId id = bucket(first);
    while (id != kNone && (nodes[id].first != first || nodes[id].parent != parent)) {
      id = nodes[id].next_in_bucket;
    }
    return id;
  }
  void Insert(Pool<Node>& nodes, NodeId id) {
    if (++size_ > bucket_count_) SplitOne(nodes);
    NodeId& head = bucket(nodes[id].first);
    nodes[id].next_in_bucket = head;
    head = id;
  }
  void Remove(Pool<Node>& nodes, NodeId id) {
    --size_;
    NodeId* at = &bucket(nodes[id].first);
    while (*at != id) at = &nodes[*at].next_in_bucket;
    *at = nodes[id].next_in_bucket;
  }
  size_t bytes() const { return segments_.size() * kSegment * sizeof(NodeId); }

 private:
  static constexpr size_t kSegment = 1024;

  void Grow() {
    segments_.push_back(std::make_unique<NodeId[]>(kSegment));
    std::fill_n(segments_.back().get(), kSegment, kNone);
    if (bucket_count_ == 0) bucket_count_ = round_ = kSegment;
  }
  NodeId& bucket(uint64_t hash) { return at(IndexOf(hash)); }
  NodeId bucket(uint64_t hash) const {
    const size_t i = IndexOf(hash);
    return segments_[i / kSegment][i % kSegment];
  }
  NodeId& at(size_t i) { return segments_[i / kSegment][i % kSegment]; }
  // Buckets below the split point have been divided by one bit more than the others.
  size_t IndexOf(uint64_t hash) const {
    const size_t i = hash & (round_ - 1);
    return i < bucket_count_ - round_ ? hash & (2 * round_ - 1) : i;
  }
  void SplitOne(Pool<Node>& nodes) {
    if (bucket_count_ == segments_.size() * kSegment) Grow();
    const size_t from = bucket_count_ - round_;
    NodeId id = at(from);
    at(from) = kNone;
    if (++bucket_count_ == 2 * round_) round_ *= 2;
    while (id != kNone) {
      const NodeId next = nodes[id].next_in_bucket;
      NodeId& head = bucket(nodes[id].first);
      nodes[id].next_in_bucket = head;
      head = id;
      id = next;
    }
  }

  std::vector<std::unique_ptr<NodeId[]>> segments_;
  size_t bucket_count_ = 0;
  size_t round_ = 0;  // power of two: buckets when this round of splitting began
  size_t size_ = 0;
};

auto FindHolder(std::vector<Holder>& holders, uint32_t endpoint) {
  return std::lower_bound(holders.begin(), holders.end(), endpoint,
                          [](const Holder& h, uint32_t e) { return h.endpoint < e; });
}

// Blocks that `run` and `chain` share from their starts; run[0] == chain[0]. Equal hashes mean
// equal prefixes, so the answer is where the last equal pair stands.
size_t SharedBlocks(const std::vector<BlockHash>& run, std::span<const BlockHash> chain) {
  const size_t n = std::min(run.size(), chain.size());
  if (run[n - 1] == chain[n - 1]) return n;
  size_t equal = 0, differ = n - 1;
  while (differ - equal > 1) {
    const size_t middle = (equal + differ) / 2;
    (run[middle] == chain[middle] ? equal : differ) = middle;
  }
  return differ;
}

}  // namespace

struct PrefixIndex::Impl {
  explicit Impl(size_t limit) : bytes_max(std::max(limit, kBytesMaxSmallest)) {}

  const size_t bytes_max;
  mutable base::AdaptiveMutex mutex;
  Pool<Node> nodes;
  Pool<Extent> extents;
  NodeTable table;
  std::vector<Endpoint> endpoints;  // up to the highest number that was recorded
  Tournament oldest_uses;
  uint64_t use = 0;        // counts Records: the time of the LRU order
  size_t array_bytes = 0;  // capacities of runs and holder lists
  uint64_t blocks = 0;
  uint64_t evicted_blocks = 0;

  size_t bytes() const {
    return endpoints.capacity() * sizeof(Endpoint) + oldest_uses.bytes() + table.bytes() +
           array_bytes +
           nodes.live() * (sizeof(Node) + sizeof(NodeId) + 2 * kHeapOverheadBytes) +
           extents.live() * (sizeof(Extent) + sizeof(ExtentId));
  }
  static constexpr size_t kHeapOverheadBytes = 16;  // glibc's, per allocation
  size_t blocks_of(uint32_t endpoint) const {
    return endpoint < endpoints.size() ? endpoints[endpoint].blocks : 0;
  }

  // The list of an endpoint -------------------------------------------------------------------

  void Unlink(uint32_t endpoint, ExtentId id) {
    Endpoint& owner = endpoints[endpoint];
    const Extent& x = extents[id];
    (x.older == kNone ? owner.oldest : extents[x.older].newer) = x.newer;
    (x.newer == kNone ? owner.newest : extents[x.newer].older) = x.older;
    if (x.older == kNone) UpdateOldest(endpoint);
  }
  // Puts `id` next to `newer` on its older side; kNone: at the newest end.
  void LinkBefore(uint32_t endpoint, ExtentId id, ExtentId newer) {
    Endpoint& owner = endpoints[endpoint];
    Extent& x = extents[id];
    x.newer = newer;
    ExtentId& back = newer == kNone ? owner.newest : extents[newer].older;
    x.older = back;
    back = id;
    (x.older == kNone ? owner.oldest : extents[x.older].newer) = id;
    if (x.older == kNone) UpdateOldest(endpoint);
  }
  void UpdateOldest(uint32_t endpoint) {
    const ExtentId oldest = endpoints[endpoint].oldest;
    oldest_uses.Set(endpoint, oldest == kNone ? Tournament::kNever : extents[oldest].used_at);
  }

  // Nodes and holders -------------------------------------------------------------------------

  template <class T, class Change>
  void Resizing(std::vector<T>& array, Change change) {
    array_bytes -= array.capacity() * sizeof(T);
    change();
    array_bytes += array.capacity() * sizeof(T);
  }

  NodeId AddNode(NodeId parent, std::span<const BlockHash> run) {
    const NodeId id = nodes.Add();
    Node& node = nodes[id];
    node.parent = parent;
    node.first = run[0];
    Resizing(node.run, [&] { node.run.assign(run.begin(), run.end()); });
    table.Insert(nodes, id);
    return id;
  }
  void RemoveNode(NodeId id) {
    table.Remove(nodes, id);
    Node& node = nodes[id];
    array_bytes -=
        node.run.capacity() * sizeof(BlockHash) + node.holders.capacity() * sizeof(Holder);
    nodes.Remove(id);
  }
  void InsertHolder(std::vector<Holder>& holders, std::vector<Holder>::iterator at,
                    const Holder& holder) {
    Resizing(holders, [&] { holders.insert(at, holder); });
  }

  // Cuts the run of `id` after `length` blocks. The front part is a new node, which is returned;
  // the back part keeps the number, so that the nodes below need no change.
  NodeId Split(NodeId id, size_t length) {
    table.Remove(nodes, id);
    const NodeId front = AddNode(nodes[id].parent, std::span(nodes[id].run).first(length));
    Node& upper = nodes[front];
    Node& lower = nodes[id];
    Resizing(lower.run, [&] {
      lower.run.erase(lower.run.begin(), lower.run.begin() + static_cast<ptrdiff_t>(length));
      lower.run.shrink_to_fit();
    });
    lower.parent = front;
    lower.first = lower.run[0];
    table.Insert(nodes, id);

    Resizing(upper.holders, [&] { upper.holders.reserve(lower.holders.size()); });
    auto kept = lower.holders.begin();
    for (Holder holder : lower.holders) {
      if (holder.length <= length) {  // all in front
        upper.holders.push_back(holder);
        extents[holder.extent].node = front;
        continue;
      }
      // The front part was used when the back was, and is to be evicted right after it.
      const ExtentId added = extents.Add();
      extents[added].node = front;
      extents[added].used_at = extents[holder.extent].used_at;
      LinkBefore(holder.endpoint, added, extents[holder.extent].newer);
      upper.holders.push_back({holder.endpoint, static_cast<uint32_t>(length), added});
      holder.length -= static_cast<uint32_t>(length);
      *kept++ = holder;
    }
    Resizing(lower.holders, [&] { lower.holders.erase(kept, lower.holders.end()); });
    return front;
  }

  // The endpoint holds `length` blocks of the node at least, and used them now. The extent goes
  // next to `newer`, that of the node above: kNone for a first node. Returns the extent.
  ExtentId Touch(NodeId id, uint32_t endpoint, uint32_t length, ExtentId newer) {
    std::vector<Holder>& holders = nodes[id].holders;
    Endpoint& owner = endpoints[endpoint];
    auto at = FindHolder(holders, endpoint);
    uint32_t gained = length;
    ExtentId extent;
    if (at != holders.end() && at->endpoint == endpoint) {
      extent = at->extent;
      gained = length > at->length ? length - at->length : 0;
      at->length += gained;
      Unlink(endpoint, extent);
    } else {
      extent = extents.Add();
      extents[extent].node = id;
      InsertHolder(holders, at, {endpoint, length, extent});
    }
    extents[extent].used_at = use;
    LinkBefore(endpoint, extent, newer);
    owner.blocks += gained;
    blocks += gained;
    return extent;
  }

  // Takes up to `count` blocks from the end of the endpoint's least recently used extent.
  void EvictOldest(uint32_t endpoint, size_t count) {
    Endpoint& owner = endpoints[endpoint];
    const ExtentId extent = owner.oldest;
    const NodeId id = extents[extent].node;
    Node& node = nodes[id];
    auto at = FindHolder(node.holders, endpoint);
    const bool was_longest = at->length == node.run.size();
    const auto taken = static_cast<uint32_t>(std::min<size_t>(count, at->length));
    owner.blocks -= taken;
    blocks -= taken;
    evicted_blocks += taken;
    at->length -= taken;
    if (at->length == 0) {
      node.holders.erase(at);
      Unlink(endpoint, extent);
      extents.Remove(extent);
    }
    if (node.holders.empty()) return RemoveNode(id);
    if (!was_longest) return;
    // Blocks that nobody holds any more go; nothing can hang under them.
    uint32_t longest = 0;
    for (const Holder& holder : node.holders) {
      longest = std::max(longest, holder.length);
      if (longest == node.run.size()) return;
    }
    node.run.resize(longest);
  }

  void EvictToLimits(uint32_t endpoint, size_t capacity) {
    while (endpoints[endpoint].blocks > capacity) {
      EvictOldest(endpoint, endpoints[endpoint].blocks - capacity);
    }
    while (bytes() > bytes_max && blocks > 0) {
      EvictOldest(static_cast<uint32_t>(oldest_uses.Winner()), ~size_t{0});
    }
  }

  void Record(uint32_t endpoint, std::span<const BlockHash> chain) {
    ++use;
    if (endpoint >= endpoints.size()) {
      endpoints.resize(endpoint + 1);
      oldest_uses.Grow(endpoint + 1);
    }
    NodeId parent = kNone;
    ExtentId above = kNone;
    while (!chain.empty()) {
      NodeId id = table.Find(nodes, chain[0], parent);
      size_t shared;
      if (id == kNone) {
        shared = std::min(chain.size(), kRunBlocksMax);
        id = AddNode(parent, chain.first(shared));
      } else {
        shared = SharedBlocks(nodes[id].run, chain);
        if (shared < nodes[id].run.size() && NeedsSplit(id, endpoint, shared, chain.size())) {
          id = Split(id, shared);
        }
      }
      above = Touch(id, endpoint, static_cast<uint32_t>(shared), above);
      parent = id;
      chain = chain.subspan(shared);
    }
  }

  // The chain leaves the run after `shared` blocks. A branch needs a node of its own; so does an
  // extent of which only the front was used.
  bool NeedsSplit(NodeId id, uint32_t endpoint, size_t shared, size_t chain_size) {
    if (shared < chain_size) return true;
    std::vector<Holder>& holders = nodes[id].holders;
    auto at = FindHolder(holders, endpoint);
    return at != holders.end() && at->endpoint == endpoint && at->length > shared;
  }
};

PrefixIndex::PrefixIndex(size_t bytes_max) : impl_(std::make_unique<Impl>(bytes_max)) {}
PrefixIndex::~PrefixIndex() = default;

void PrefixIndex::Match(std::span<const BlockHash> chain, std::span<uint32_t> matched) const {
  const Impl& x = *impl_;
  std::lock_guard lock(x.mutex);
  NodeId parent = kNone;
  while (!chain.empty()) {
    const NodeId id = x.table.Find(x.nodes, chain[0], parent);
    if (id == kNone) return;
    const Node& node = x.nodes[id];
    const auto shared = static_cast<uint32_t>(SharedBlocks(node.run, chain));
    for (const Holder& holder : node.holders) {
      if (holder.endpoint >= matched.size()) break;
      matched[holder.endpoint] += std::min(holder.length, shared);
    }
    if (shared < node.run.size()) return;
    parent = id;
    chain = chain.subspan(shared);
  }
}

void PrefixIndex::Record(uint32_t endpoint, size_t capacity_blocks,
                         std::span<const BlockHash> chain) {
  if (endpoint >= kEndpointsMax) return;
  chain = chain.first(std::min(chain.size(), capacity_blocks));
  std::lock_guard lock(impl_->mutex);
  impl_->Record(endpoint, chain);
  impl_->EvictToLimits(endpoint, capacity_blocks);
}

void PrefixIndex::Trim(uint32_t endpoint, size_t capacity_blocks) {
  for (;;) {
    std::lock_guard lock(impl_->mutex);
    for (int step = 0; step < 256; ++step) {
      const size_t held = impl_->blocks_of(endpoint);
      if (held <= capacity_blocks) return;
      impl_->EvictOldest(endpoint, held - capacity_blocks);
    }
  }
}

size_t PrefixIndex::blocks(uint32_t endpoint) const {
  std::lock_guard lock(impl_->mutex);
  return impl_->blocks_of(endpoint);
}

PrefixIndex::Stats PrefixIndex::stats() const {
  const Impl& x = *impl_;
  std::lock_guard lock(x.mutex);
  return {x.bytes(), x.nodes.live(), x.extents.live(), x.blocks, x.evicted_blocks};
}

bool PrefixIndex::CheckForTest() const {
  Impl& x = *impl_;
  std::lock_guard lock(x.mutex);
  size_t extents = 0;
  uint64_t blocks = 0;
  std::vector<bool> node_seen;
  size_t array_bytes = 0;
  for (uint32_t e = 0; e < x.endpoints.size(); ++e) {
    size_t held = 0;
    uint64_t last_use = 0;
    std::vector<NodeId> seen;
    for (ExtentId id = x.endpoints[e].oldest; id != kNone; id = x.extents[id].newer) {
      const Extent& extent = x.extents[id];
      Node& node = x.nodes[extent.node];
      auto at = FindHolder(node.holders, e);
      if (at == node.holders.end() || at->endpoint != e || at->extent != id) return false;
      if (at->length == 0 || at->length > node.run.size()) return false;
      if (extent.used_at < last_use) return false;
      last_use = extent.used_at;
      // Deeper first: the node above has not come yet, and the endpoint holds all of it.
      if (node.parent != kNone) {
        Node& above = x.nodes[node.parent];
        auto up = FindHolder(above.holders, e);
        if (up == above.holders.end() || up->endpoint != e) return false;
        if (up->length != above.run.size()) return false;
        if (std::find(seen.begin(), seen.end(), node.parent) != seen.end()) return false;
      }
      if (x.table.Find(x.nodes, node.first, node.parent) != extent.node) return false;
      if (node.run.size() > kRunBlocksMax || node.first != node.run[0]) return false;
      if (node_seen.size() <= extent.node) node_seen.resize(extent.node + 1);
      if (!node_seen[extent.node]) {
        node_seen[extent.node] = true;
        array_bytes +=
            node.run.capacity() * sizeof(BlockHash) + node.holders.capacity() * sizeof(Holder);
      }
      seen.push_back(extent.node);
      held += at->length;
      ++extents;
    }
    if (held != x.endpoints[e].blocks) return false;
    blocks += held;
  }
  const auto nodes = static_cast<size_t>(std::count(node_seen.begin(), node_seen.end(), true));
  return blocks == x.blocks && extents == x.extents.live() && nodes == x.nodes.live() &&
         array_bytes == x.array_bytes;
}

}  // namespace llmd::prefix
