// The fleet: which endpoints there are, what is known of each and how old it is, and what we have
// in flight to each.
//
// Three classes. Fleet is the shared store: discovery sets its members, scrapers write loads, doors
// report outcomes. View is one worker's picture of it: dense columns by EndpointNumber, refreshed
// at most once per kRefreshInterval (a large fleet less often), exact for what this worker itself
// has in flight. Pin keeps a View's membership (and so its endpoint numbers) alive for as long as a
// session needs it.
//
// Thread safety: Fleet is thread-safe. A View belongs to one worker. A Pin belongs to that worker.
// Invariants: 1. A number names one endpoint until every Pin that saw it is gone. 2. Counters are
// booked and taken back on the same worker, so a worker's own column never goes negative. 3. A load
// that was never reported has reported_at == TimePoint{} and all columns zero.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/arena.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "fleet/endpoint.h"
#include "fleet/health.h"
#include "fleet/rows.h"

namespace llmd::fleet {

// What a model server said of itself in one scrape.
struct Load {
  float waiting = 0;          // requests queued in the engine
  float running = 0;          // requests in the batch
  float kv_usage = 0;         // 0..1
  uint32_t block_tokens = 0;  // tokens per KV block; 0 = not said
  uint32_t block_count = 0;   // KV blocks on the server; 0 = not said
};

// A per-endpoint counter of work in flight. Counter 0 is the director's own: requests in flight.
// Others are handed out to producers when a config is loaded.
using CounterId = uint32_t;
inline constexpr CounterId kRequestsInFlight = 0;
inline constexpr size_t kCountersMax = 16;  // a config with more in-flight producers is refused

// A number that one plugin leaves for every endpoint and others read: a custom metric, GPU use.
using AttributeId = uint32_t;
inline constexpr size_t kAttributesMax = 32;  // a config names a few; 4 bytes per endpoint each

// LoRA adapters of one model server, as HashOf their names, each list ascending.
struct Adapters {
  uint32_t max = 0;                     // that fit at a time; 0 = not said
  std::vector<uint64_t> active;         // of requests that run
  std::vector<uint64_t> waiting;        // of requests that wait
  std::optional<std::vector<uint64_t>> loaded;  // in memory, where the server says so

  bool operator==(const Adapters&) const = default;
  static uint64_t HashOf(std::string_view name);
  static bool Has(std::span<const uint64_t> list, uint64_t adapter);
};

struct Members {
  uint64_t version = 0;
  std::vector<std::shared_ptr<const Endpoint>> by_number;  // nullptr where a number is not in use
  std::vector<EndpointNumber> numbers;                     // the members, ascending
};

class Fleet {
 public:
  explicit Fleet(size_t worker_count);
  ~Fleet();
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;

  // Replaces the member set. An endpoint with the same namespace, name, address and port keeps its
  // number, load and health (labels and draining may change). More than kEndpointsMax, or two with
  // the same namespace/name, is an error and changes nothing.
  base::Status SetMembers(std::vector<EndpointSpec> specs, base::TimePoint now);
  std::shared_ptr<const Members> members() const;
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // Stores a scrape result and remembers what was in flight at that moment, so that a View can
  // correct the numbers until the next one.
  void ReportLoad(EndpointNumber endpoint, const Load& load, base::TimePoint now);

  // Reserves a counter column, zeroed. Error when kCountersMax are in use.
  base::Result<CounterId> AddCounter();
  void RemoveCounter(CounterId counter);
  // Sum over workers, for metrics. Relaxed: may be a moment old.
  int64_t CounterSum(CounterId counter, EndpointNumber endpoint) const;

  // Reserves an attribute column, NaN everywhere. Error when kAttributesMax are in use.
  base::Result<AttributeId> AddAttribute();
  void RemoveAttribute(AttributeId attribute);
  void ReportAttribute(EndpointNumber endpoint, AttributeId attribute, float value);
  void ReportAdapters(EndpointNumber endpoint, const Adapters& adapters);

  Health& health(EndpointNumber endpoint);
  size_t worker_count() const { return worker_count_; }

 private:
  friend class View;
  struct LoadCell;
  struct Column;

  Column& column(size_t worker, CounterId counter) const;
  base::Result<EndpointNumber> TakeNumber(const std::vector<bool>& taken, EndpointNumber* cursor);
  void Grow(size_t rows);

  const size_t worker_count_;
  std::atomic<uint64_t> version_{0};
  mutable std::mutex mutex_;
  std::shared_ptr<const Members> members_;
  // By number, under mutex_. One token per owner, shared by every Endpoint object made for it
  // (labels may change while requests hold the older object), so that expired() means nobody is
  // left. The size of owners_ is that of every column here: the numbers ever used.
  std::vector<std::weak_ptr<const void>> owners_;
  std::vector<uint64_t> generations_;
  std::vector<std::shared_ptr<const Adapters>> adapters_;
  Rows<LoadCell> loads_;
  Rows<Health> health_;
  std::unique_ptr<Column[]> columns_;           // [worker * kCountersMax + counter]
  std::atomic<uint32_t> counters_in_use_{0};    // bit per CounterId
  Rows<std::atomic<float>> attributes_[kAttributesMax];
  std::atomic<uint32_t> attributes_in_use_{0};  // bit per AttributeId
  std::atomic<uint64_t> adapters_version_{0};
};

class Pin;

class View {
 public:
  // A refresh reads every endpoint, 1,000 in 20 us: a larger fleet is refreshed less often by as
  // much, so that it never takes more than about a fortieth of a worker's time.
  static constexpr base::Duration kRefreshInterval = std::chrono::milliseconds(1);
  static constexpr size_t kRefreshedPerInterval = 1000;

  // `fleet` must outlive the View.
  View(Fleet& fleet, size_t worker);
  ~View();
  View(const View&) = delete;
  View& operator=(const View&) = delete;

  // Brings the columns up to date; cheap when nothing is due. Called once per decision.
  void Refresh(base::TimePoint now);

  // Members, ascending. Draining and ejected ones included: `Routable` leaves them out.
  std::span<const EndpointNumber> members() const;
  const Endpoint& endpoint(EndpointNumber n) const;
  // The members that may get this request, ascending, in `arena`: not draining, not ejected, and
  // one in slow start only with the probability of its share (relative to the largest share: a
  // fleet that is new as a whole starts evenly). When that would leave out more than half of those
  // not draining, first slow start and then ejection are ignored: a wrong verdict must not take the
  // fleet down.
  std::span<EndpointNumber> Routable(base::Random& random, base::Arena& arena) const;

  // Columns by EndpointNumber, of the last Refresh; the next one may move them. waiting/running are
  // the scraped values corrected by what we sent and got back since (see CorrectedLoad).
  const float* waiting() const { return waiting_.data(); }
  const float* running() const { return running_.data(); }
  const float* kv_usage() const { return kv_usage_.data(); }
  const base::TimePoint* reported_at() const { return reported_at_.data(); }
  // Work in flight of all workers. `c` was handed out before the last Refresh (else nullptr).
  const int64_t* counter(CounterId c) const { return counters_[c].data(); }
  const uint32_t* block_tokens() const { return block_tokens_.data(); }
  const uint32_t* block_count() const { return block_count_.data(); }
  // NaN where nothing was reported. `a` was handed out before the last Refresh (else nullptr).
  const float* attribute(AttributeId a) const { return attributes_[a].data(); }
  // nullptr where nothing was reported.
  const Adapters* adapters(EndpointNumber n) const {
    return n < adapters_.size() ? adapters_[n].get() : nullptr;
  }
  base::TimePoint refreshed_at() const { return refreshed_at_; }
  // Of the membership shown.
  uint64_t version() const { return version_seen_; }

  // Adds `amount` (negative takes back) to this worker's column; visible here at once (in waiting
  // and running too), to other workers at their next refresh.
  void Book(CounterId counter, EndpointNumber endpoint, int64_t amount);

  Fleet& fleet() { return fleet_; }

 private:
  friend class Pin;
  struct Membership;  // shared_ptr<const Members> plus a worker-local reference count

  base::Duration RefreshInterval() const;
  void Regather(base::TimePoint now);
  void AdoptMembers();
  void GatherCounter(CounterId counter);
  void GatherLoads(base::TimePoint now);
  void GatherAttributes();
  void Correct(EndpointNumber n);

  Fleet& fleet_;
  const size_t worker_;
  Membership* membership_ = nullptr;
  base::TimePoint refreshed_at_{};
  uint64_t version_seen_ = 0;
  uint32_t counters_seen_ = 0, attributes_seen_ = 0;
  uint64_t adapters_seen_ = 0;
  bool never_refreshed_ = true;
  bool all_healthy_ = true;  // no member is ejected or in slow start
  float share_max_ = 1;
  std::vector<float> waiting_, running_, kv_usage_, share_;
  std::vector<Load> scraped_;                 // as reported
  std::vector<int64_t> in_flight_at_report_;
  std::vector<base::TimePoint> reported_at_;
  std::vector<uint32_t> block_tokens_, block_count_;
  std::vector<std::vector<int64_t>> counters_;
  std::vector<std::vector<float>> attributes_;
  std::vector<std::shared_ptr<const Adapters>> adapters_;
};

// Keeps the membership that `view` shows now. Copying is a worker-local increment.
class Pin {
 public:
  Pin() = default;
  explicit Pin(const View& view);
  Pin(const Pin& other);
  Pin(Pin&& other) noexcept;
  Pin& operator=(Pin other) noexcept;
  ~Pin();
  explicit operator bool() const { return membership_ != nullptr; }
  const Endpoint& endpoint(EndpointNumber n) const;

 private:
  View::Membership* membership_ = nullptr;
};

// The scraped load plus `delta` requests in flight since: arrivals join the queue when there is
// one, else the batch; departures empty the queue first (a freed slot is refilled from it).
Load CorrectedLoad(Load scraped, int64_t delta);

}  // namespace llmd::fleet
