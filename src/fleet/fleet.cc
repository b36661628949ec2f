#include "fleet/fleet.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/hash.h"
#include "base/strings.h"

namespace llmd::fleet {
namespace {

constexpr float kNotReported = std::numeric_limits<float>::quiet_NaN();

template <class Visit>
void ForEachBit(uint32_t bits, Visit visit) {
  for (; bits != 0; bits &= bits - 1) visit(static_cast<uint32_t>(std::countr_zero(bits)));
}

}  // namespace

// One scrape result under a sequence lock; odd while somebody writes. Any thread may write.
struct alignas(64) Fleet::LoadCell {
  std::atomic<uint32_t> sequence{0};
  std::atomic<float> waiting{0}, running{0}, kv_usage{0};
  std::atomic<uint32_t> block_tokens{0}, block_count{0};
  std::atomic<int64_t> reported_at{0};
  std::atomic<int64_t> in_flight{0};

  struct Value {
    Load load;
    int64_t reported_at = 0;
    int64_t in_flight = 0;
  };

  void Write(const Value& v) {
    uint32_t s = sequence.load(std::memory_order_relaxed);
    while (s % 2 == 1 ||
           !sequence.compare_exchange_weak(s, s + 1, std::memory_order_acquire,
                                           std::memory_order_relaxed)) {
      s = sequence.load(std::memory_order_relaxed);
    }
    // A reader that sees any of the stores below must see the odd number first: it reads the fields
    // with acquire order, so the release stores carry the number with them.
    waiting.store(v.load.waiting, std::memory_order_release);
    running.store(v.load.running, std::memory_order_release);
    kv_usage.store(v.load.kv_usage, std::memory_order_release);
    block_tokens.store(v.load.block_tokens, std::memory_order_release);
    block_count.store(v.load.block_count, std::memory_order_release);
    reported_at.store(v.reported_at, std::memory_order_release);
    in_flight.store(v.in_flight, std::memory_order_release);
    sequence.store(s + 2, std::memory_order_release);
  }

  Value Read() const {
    while (true) {
      const uint32_t before = sequence.load(std::memory_order_acquire);
      Value v;
      v.load.waiting = waiting.load(std::memory_order_acquire);
      v.load.running = running.load(std::memory_order_acquire);
      v.load.kv_usage = kv_usage.load(std::memory_order_acquire);
      v.load.block_tokens = block_tokens.load(std::memory_order_acquire);
      v.load.block_count = block_count.load(std::memory_order_acquire);
      v.reported_at = reported_at.load(std::memory_order_acquire);
      v.in_flight = in_flight.load(std::memory_order_acquire);
      if (before % 2 == 0 && sequence.load(std::memory_order_relaxed) == before) return v;
    }
  }
};

// One worker's share of one counter, by endpoint. Only that worker writes.
struct alignas(64) Fleet::Column {
  Rows<std::atomic<int64_t>> cells;
  std::atomic<bool> used{false};  // ever booked on: the others need not be summed
};

namespace {

using Identity = std::tuple<std::string_view, std::string_view, std::string_view, uint16_t>;
Identity IdentityOf(const EndpointSpec& s) { return {s.name_space, s.name, s.address, s.port}; }

// Endpoint plus the token that says who owns its number.
struct Owned {
  Endpoint endpoint;
  std::shared_ptr<const void> owner;
};

std::shared_ptr<const Endpoint> MakeEndpoint(EndpointNumber number, EndpointSpec spec,
                                             uint64_t generation,
                                             std::shared_ptr<const void> owner) {
  auto owned = std::make_shared<Owned>();
  owned->endpoint.number = number;
  owned->endpoint.host_port = JoinHostPort(spec.address, spec.port);
  owned->endpoint.spec = std::move(spec);
  owned->endpoint.generation = generation;
  owned->owner = std::move(owner);
  return {owned, &owned->endpoint};
}

base::Status CheckSpecs(std::span<const EndpointSpec> specs) {
  if (specs.size() > kEndpointsMax) {
    return base::ResourceExhausted(base::Concat(std::to_string(specs.size()),
                                                " endpoints, at most ",
                                                std::to_string(kEndpointsMax), " are served"));
  }
  std::set<std::pair<std::string_view, std::string_view>> names;
  for (const EndpointSpec& s : specs) {
    if (!names.emplace(s.name_space, s.name).second) {
      return base::InvalidArgument(
          base::Concat("two endpoints are named ", s.name_space, "/", s.name));
    }
  }
  return base::OkStatus();
}

}  // namespace

Fleet::Fleet(size_t worker_count)
    : worker_count_(worker_count),
      members_(std::make_shared<Members>()),
      columns_(new Column[worker_count * kCountersMax]),
      counters_in_use_(1u << kRequestsInFlight) {
  LLMD_CHECK(worker_count > 0, "a fleet needs a worker");
}

Fleet::~Fleet() = default;

base::Status Fleet::SetMembers(std::vector<EndpointSpec> specs, base::TimePoint now) {
  LLMD_RETURN_IF_ERROR(CheckSpecs(specs));
  for (EndpointSpec& s : specs) std::sort(s.labels.begin(), s.labels.end());
  const std::scoped_lock lock(mutex_);
  std::map<Identity, const std::shared_ptr<const Endpoint>*> known;
  for (EndpointNumber n : members_->numbers) {
    known.emplace(IdentityOf(members_->by_number[n]->spec), &members_->by_number[n]);
  }
  auto next = std::make_shared<Members>();
  std::vector<bool> taken(kEndpointsMax);
  std::vector<std::shared_ptr<const Endpoint>> kept(specs.size());
  bool changed = specs.size() != members_->numbers.size();
  for (size_t i = 0; i < specs.size(); ++i) {
    auto at = known.find(IdentityOf(specs[i]));
    if (at == known.end()) continue;
    kept[i] = *at->second;
    taken[kept[i]->number] = true;
  }
  std::vector<std::pair<EndpointNumber, std::shared_ptr<const void>>> fresh;
  EndpointNumber cursor = 0;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (kept[i] && kept[i]->spec == specs[i]) continue;
    changed = true;
    if (kept[i]) {  // labels or draining changed: a new object of the same owner
      const EndpointNumber n = kept[i]->number;
      kept[i] = MakeEndpoint(n, std::move(specs[i]), kept[i]->generation, owners_[n].lock());
      continue;
    }
    LLMD_ASSIGN_OR_RETURN(const EndpointNumber n, TakeNumber(taken, &cursor));
    fresh.emplace_back(n, std::make_shared<char>());
    kept[i] = MakeEndpoint(n, std::move(specs[i]), generations_[n] + 1, fresh.back().second);
  }
  if (!changed) return base::OkStatus();
  for (auto& endpoint : kept) {
    const EndpointNumber n = endpoint->number;
    if (next->by_number.size() <= n) next->by_number.resize(n + 1);
    next->numbers.push_back(n);
    next->by_number[n] = std::move(endpoint);
  }
  std::sort(next->numbers.begin(), next->numbers.end());
  for (const auto& [n, owner] : fresh) {
    ++generations_[n];
    owners_[n] = owner;
    loads_[n].Write({});
    health_[n].Reset(now);
    ForEachBit(attributes_in_use_.load(std::memory_order_relaxed), [&](AttributeId a) {
      attributes_[a][n].store(kNotReported, std::memory_order_relaxed);
    });
    if (std::exchange(adapters_[n], nullptr)) ++adapters_version_;
  }
  next->version = members_->version + 1;
  members_ = std::move(next);
  version_.store(members_->version, std::memory_order_release);
  return base::OkStatus();
}

// The lowest free number: a dense range keeps the columns in few cache lines. `cursor` remembers
// over one SetMembers how far the search came.
base::Result<EndpointNumber> Fleet::TakeNumber(const std::vector<bool>& taken,
                                               EndpointNumber* cursor) {
  for (; *cursor < kEndpointsMax; ++*cursor) {
    if (taken[*cursor]) continue;
    if (*cursor == owners_.size()) Grow(owners_.size() + 1);
    if (owners_[*cursor].expired()) return (*cursor)++;
  }
  return std::unexpected(base::ResourceExhausted(
      "every endpoint number is in use or held by requests to endpoints that left"));
}

std::shared_ptr<const Members> Fleet::members() const {
  const std::scoped_lock lock(mutex_);
  return members_;
}

void Fleet::ReportLoad(EndpointNumber endpoint, const Load& load, base::TimePoint now) {
  loads_[endpoint].Write({.load = load,
                          .reported_at = now.time_since_epoch().count(),
                          .in_flight = CounterSum(kRequestsInFlight, endpoint)});
}

void Fleet::Grow(size_t rows) {
  owners_.resize(rows);
  generations_.resize(rows);
  adapters_.resize(rows);
  loads_.Grow(rows);
  health_.Grow(rows);
  ForEachBit(counters_in_use_.load(std::memory_order_relaxed), [&](CounterId c) {
    for (size_t w = 0; w < worker_count_; ++w) column(w, c).cells.Grow(rows);
  });
  ForEachBit(attributes_in_use_.load(std::memory_order_relaxed),
             [&](AttributeId a) { attributes_[a].Grow(rows); });
}

base::Result<CounterId> Fleet::AddCounter() {
  const std::scoped_lock lock(mutex_);
  const uint32_t in_use = counters_in_use_.load(std::memory_order_relaxed);
  for (CounterId c = 0; c < kCountersMax; ++c) {
    if (in_use >> c & 1) continue;
    bool balanced = true;
    for (size_t w = 0; w < worker_count_; ++w) {
      Rows<std::atomic<int64_t>>& cells = column(w, c).cells;
      cells.Grow(owners_.size());
      for (size_t n = 0; n < owners_.size(); ++n) {
        balanced &= cells[n].exchange(0, std::memory_order_relaxed) == 0;
      }
    }
    if (!balanced) LLMD_BUG("a counter was given up with bookings on it");
    counters_in_use_.store(in_use | 1u << c, std::memory_order_release);
    return c;
  }
  return std::unexpected(base::ResourceExhausted(base::Concat(
      "all ", std::to_string(kCountersMax), " in-flight counters are in use")));
}

void Fleet::RemoveCounter(CounterId counter) {
  LLMD_CHECK(counter != kRequestsInFlight, "the director's counter stays");
  const std::scoped_lock lock(mutex_);
  counters_in_use_.fetch_and(~(1u << counter), std::memory_order_release);
}

int64_t Fleet::CounterSum(CounterId counter, EndpointNumber endpoint) const {
  int64_t sum = 0;
  for (size_t w = 0; w < worker_count_; ++w) {
    sum += column(w, counter).cells[endpoint].load(std::memory_order_relaxed);
  }
  return sum;
}

base::Result<AttributeId> Fleet::AddAttribute() {
  const std::scoped_lock lock(mutex_);
  const uint32_t in_use = attributes_in_use_.load(std::memory_order_relaxed);
  for (AttributeId a = 0; a < kAttributesMax; ++a) {
    if (in_use >> a & 1) continue;
    attributes_[a].Grow(owners_.size());
    for (size_t n = 0; n < owners_.size(); ++n) {
      attributes_[a][n].store(kNotReported, std::memory_order_relaxed);
    }
    attributes_in_use_.store(in_use | 1u << a, std::memory_order_release);
    return a;
  }
  return std::unexpected(base::ResourceExhausted(base::Concat(
      "all ", std::to_string(kAttributesMax), " endpoint attributes are in use")));
}

void Fleet::RemoveAttribute(AttributeId attribute) {
  const std::scoped_lock lock(mutex_);
  attributes_in_use_.fetch_and(~(1u << attribute), std::memory_order_release);
}

void Fleet::ReportAttribute(EndpointNumber endpoint, AttributeId attribute, float value) {
  attributes_[attribute][endpoint].store(value, std::memory_order_relaxed);
}

uint64_t Adapters::HashOf(std::string_view name) { return base::Hash64(name); }

bool Adapters::Has(std::span<const uint64_t> list, uint64_t adapter) {
  return std::binary_search(list.begin(), list.end(), adapter);
}

// Most pages say what the one before said.
void Fleet::ReportAdapters(EndpointNumber endpoint, const Adapters& adapters) {
  const std::scoped_lock lock(mutex_);
  std::shared_ptr<const Adapters>& present = adapters_[endpoint];
  if (present && *present == adapters) return;
  present = std::make_shared<const Adapters>(adapters);
  adapters_version_.fetch_add(1, std::memory_order_release);
}

Fleet::Column& Fleet::column(size_t worker, CounterId counter) const {
  return columns_[worker * kCountersMax + counter];
}

Health& Fleet::health(EndpointNumber endpoint) { return health_[endpoint]; }

Load CorrectedLoad(Load scraped, int64_t delta) {
  const float d = static_cast<float>(delta);
  if (delta > 0) {
    (scraped.waiting > 0 ? scraped.waiting : scraped.running) += d;
  } else if (delta < 0) {
    const float from_queue = std::min(scraped.waiting, -d);
    scraped.waiting -= from_queue;
    scraped.running = std::max(0.0f, scraped.running + d + from_queue);
  }
  return scraped;
}

// ---- View
// ----------------------------------------------------------------------------------------

struct View::Membership {
  std::shared_ptr<const Members> members;
  std::vector<EndpointNumber> not_draining;
  uint32_t references = 1;

  static void Release(Membership* m) {
    if (m && --m->references == 0) delete m;
  }
};

View::View(Fleet& fleet, size_t worker) : fleet_(fleet), worker_(worker) {
  LLMD_CHECK(worker < fleet.worker_count(), "no such worker");
  counters_.resize(kCountersMax);
  attributes_.resize(kAttributesMax);
  AdoptMembers();
}

View::~View() { Membership::Release(membership_); }

void View::Refresh(base::TimePoint now) {
  if (!never_refreshed_ && now - refreshed_at_ < RefreshInterval() &&
      fleet_.version() == version_seen_ &&
      fleet_.counters_in_use_.load(std::memory_order_acquire) == counters_seen_ &&
      fleet_.attributes_in_use_.load(std::memory_order_acquire) == attributes_seen_) {
    return;
  }
  Regather(now);
}

base::Duration View::RefreshInterval() const {
  return kRefreshInterval * std::max<size_t>(1, members().size() / kRefreshedPerInterval);
}

void View::AdoptMembers() {
  auto* next = new Membership{.members = fleet_.members(), .not_draining = {}};
  for (EndpointNumber n : next->members->numbers) {
    if (!next->members->by_number[n]->spec.draining) next->not_draining.push_back(n);
  }
  Membership::Release(std::exchange(membership_, next));
  version_seen_ = next->members->version;
  const size_t size = next->members->by_number.size();
  if (size <= waiting_.size()) return;
  for (auto* column : {&waiting_, &running_, &kv_usage_, &share_}) column->resize(size);
  for (auto* column : {&block_tokens_, &block_count_}) column->resize(size);
  scraped_.resize(size);
  in_flight_at_report_.resize(size);
  reported_at_.resize(size);
}

void View::Regather(base::TimePoint now) {
  if (fleet_.version() != version_seen_) AdoptMembers();
  counters_seen_ = fleet_.counters_in_use_.load(std::memory_order_acquire);
  ForEachBit(counters_seen_, [&](CounterId c) { GatherCounter(c); });
  GatherLoads(now);
  GatherAttributes();
  refreshed_at_ = now;
  never_refreshed_ = false;
}

void View::GatherCounter(CounterId counter) {
  // The whole range of numbers, members or not: it is dense, and a removed endpoint's bookings stay
  // readable for the sessions that still hold it.
  std::vector<int64_t>& sums = counters_[counter];
  sums.assign(waiting_.size(), 0);
  for (size_t w = 0; w < fleet_.worker_count(); ++w) {
    const Fleet::Column& column = fleet_.column(w, counter);
    if (!column.used.load(std::memory_order_relaxed)) continue;
    column.cells.ForEachRun(sums.size(), [&](size_t begin, auto cells) {
      int64_t* const out = sums.data() + begin;
      for (size_t n = 0; n < cells.size(); ++n) out[n] += cells[n].load(std::memory_order_relaxed);
    });
  }
}

void View::GatherAttributes() {
  attributes_seen_ = fleet_.attributes_in_use_.load(std::memory_order_acquire);
  ForEachBit(attributes_seen_, [&](AttributeId a) {
    std::vector<float>& column = attributes_[a];
    column.resize(waiting_.size(), kNotReported);
    for (const EndpointNumber n : members()) {
      column[n] = fleet_.attributes_[a][n].load(std::memory_order_relaxed);
    }
  });
  if (fleet_.adapters_version_.load(std::memory_order_acquire) == adapters_seen_) return;
  const std::scoped_lock lock(fleet_.mutex_);
  adapters_seen_ = fleet_.adapters_version_.load(std::memory_order_relaxed);
  adapters_.resize(waiting_.size());
  for (const EndpointNumber n : members()) adapters_[n] = fleet_.adapters_[n];
}

void View::GatherLoads(base::TimePoint now) {
  all_healthy_ = true;
  share_max_ = 0;
  for (EndpointNumber n : members()) {
    const Fleet::LoadCell::Value v = fleet_.loads_[n].Read();
    scraped_[n] = v.load;
    in_flight_at_report_[n] = v.in_flight;
    reported_at_[n] = base::TimePoint(base::Duration(v.reported_at));
    kv_usage_[n] = v.load.kv_usage;
    block_tokens_[n] = v.load.block_tokens;
    block_count_[n] = v.load.block_count;
    Correct(n);
    const Health& health = fleet_.health_[n];
    const bool steady = health.steady(now);
    share_[n] = steady ? 1 : static_cast<float>(health.share(now));
    all_healthy_ &= steady;
    share_max_ = std::max(share_max_, share_[n]);
  }
}

void View::Correct(EndpointNumber n) {
  Load load = scraped_[n];
  if (reported_at_[n] != base::TimePoint{}) {
    load = CorrectedLoad(load, counters_[kRequestsInFlight][n] - in_flight_at_report_[n]);
  }
  waiting_[n] = load.waiting;
  running_[n] = load.running;
}

std::span<const EndpointNumber> View::members() const { return membership_->members->numbers; }

const Endpoint& View::endpoint(EndpointNumber n) const {
  return *membership_->members->by_number[n];
}

std::span<EndpointNumber> View::Routable(base::Random& random, base::Arena& arena) const {
  const std::vector<EndpointNumber>& all = membership_->not_draining;
  const std::span<EndpointNumber> out(
      static_cast<EndpointNumber*>(
          arena.Allocate(all.size() * sizeof(EndpointNumber), alignof(EndpointNumber))),
      all.size());
  const auto keep = [&](auto wanted) {
    size_t kept = 0;
    for (EndpointNumber n : all) {
      if (wanted(n)) out[kept++] = n;
    }
    return out.first(kept);
  };
  if (!all_healthy_) {
    auto kept = keep([&](EndpointNumber n) {
      return share_[n] >= share_max_ || random.Uniform() * share_max_ < share_[n];
    });
    if (kept.size() * 2 >= all.size()) return kept;
    kept = keep([&](EndpointNumber n) { return share_[n] > 0; });
    if (kept.size() * 2 >= all.size()) return kept;
  }
  std::copy(all.begin(), all.end(), out.begin());
  return out;
}

void View::Book(CounterId counter, EndpointNumber endpoint, int64_t amount) {
  Fleet::Column& column = fleet_.column(worker_, counter);
  std::atomic<int64_t>& cell = column.cells[endpoint];
  // This worker is the only writer of the cell: no read-modify-write instruction is needed.
  const int64_t value = cell.load(std::memory_order_relaxed) + amount;
  if (value < 0) LLMD_BUG("more was taken back than booked");
  cell.store(value, std::memory_order_relaxed);
  column.used.store(true, std::memory_order_relaxed);
  std::vector<int64_t>& sums = counters_[counter];
  if (endpoint >= sums.size()) return;  // newer than this view; its next refresh sees it
  sums[endpoint] += amount;
  if (counter == kRequestsInFlight && endpoint < waiting_.size()) Correct(endpoint);
}

// ---- Pin
// -----------------------------------------------------------------------------------------

Pin::Pin(const View& view) : membership_(view.membership_) { ++membership_->references; }
Pin::Pin(const Pin& other) : membership_(other.membership_) {
  if (membership_) ++membership_->references;
}
Pin::Pin(Pin&& other) noexcept : membership_(std::exchange(other.membership_, nullptr)) {}
Pin& Pin::operator=(Pin other) noexcept {
  std::swap(membership_, other.membership_);
  return *this;
}
Pin::~Pin() { View::Membership::Release(membership_); }

const Endpoint& Pin::endpoint(EndpointNumber n) const {
  return *membership_->members->by_number[n];
}

}  // namespace llmd::fleet
