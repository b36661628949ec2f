// The interfaces of every plugin kind.
//
// A plugin is one object per config entry, shared by all workers: its methods are const or
// thread-safe, and what it must remember between requests is thread-safe state of its own. A class
// may implement several kinds; which ones is found out once, when the config is loaded, by
// dynamic_cast. A plugin opens no socket and no file, reads no clock and draws no entropy: it asks
// (see FetchSpec, FileSpec) and is handed bytes, `now` and a seeded Random with each event.
//
// Hot methods (Filter, Score, Pick, Produce, Extract) allocate from the request's arena only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/time.h"
#include "fleet/fleet.h"
#include "plugin/request_context.h"

namespace llmd::telemetry {
class ScrapeSeries;
}

namespace llmd::plugin {

using fleet::EndpointNumber;

class Plugin {
 public:
  virtual ~Plugin() = default;
  // Set by the loader right after construction.
  const std::string& name() const { return name_; }
  const std::string& type() const { return type_; }
  void SetIdentity(std::string name, std::string type) {
    name_ = std::move(name);
    type_ = std::move(type);
  }
  // JSON object for /debug/plugins/state, or "" when there is nothing to show.
  virtual std::string DumpState() const { return {}; }
  // Adds its gauges to a scrape of the metrics page; on the scraping thread.
  virtual void CollectMetrics(telemetry::ScrapeSeries& series) const {}

 private:
  std::string name_, type_;
};

// The candidates of one scheduling run: endpoint numbers in ascending order.
struct Candidates {
  std::span<EndpointNumber> numbers;

  // Keeps those for which `keep(number)` holds, order unchanged.
  template <class Keep>
  void KeepIf(Keep keep) {
    size_t kept = 0;
    for (EndpointNumber n : numbers) {
      if (keep(n)) numbers[kept++] = n;
    }
    numbers = numbers.first(kept);
  }
};

// Why a filter left nothing decides the answer: 429 when the servers are full, 503 otherwise.
enum class EmptyMeans { kNoEndpoints, kSaturated };

class Filter {
 public:
  virtual ~Filter() = default;
  virtual void Apply(const RequestContext& request, Candidates& candidates) const = 0;
  virtual EmptyMeans empty_means() const { return EmptyMeans::kNoEndpoints; }
};

enum class ScorerCategory { kAffinity, kDistribution, kBalance };

class Scorer {
 public:
  virtual ~Scorer() = default;
  virtual ScorerCategory category() const = 0;
  // Fills scores[i] for candidates[i]; the cycle clamps to [0, 1]. Sizes are equal and not zero.
  virtual void Score(const RequestContext& request, std::span<const EndpointNumber> candidates,
                     std::span<double> scores) const = 0;
};

struct ScoredCandidate {
  EndpointNumber endpoint;
  double score;  // weighted sum
};

class Picker {
 public:
  virtual ~Picker() = default;
  // Orders `scored` so that the first `wanted` (at most its size) are the choice, best first.
  virtual void Pick(RequestContext& request, std::span<ScoredCandidate> scored,
                    size_t wanted) const = 0;
  // Endpoints that this picker's configuration asks for (maxNumOfEndpoints).
  virtual size_t endpoint_count() const = 0;
};

// One profile's run: the choice first, then fallbacks in order. Empty when filters left nothing.
struct ProfileResult {
  std::string_view profile;
  std::span<const ScoredCandidate> endpoints;
  bool ran = false;
  EmptyMeans empty_means = EmptyMeans::kNoEndpoints;
};

class ProfileHandler {
 public:
  virtual ~ProfileHandler() = default;
  // Index of the profile to run next, or nullopt when done. `results` has one entry per profile.
  virtual std::optional<size_t> Next(RequestContext& request,
                                     std::span<const ProfileResult> results) const = 0;
  // Index of the profile whose endpoints serve the request.
  virtual base::Result<size_t> Primary(RequestContext& request,
                                       std::span<const ProfileResult> results) const = 0;
  // Start-up check of the profiles that the config names.
  virtual base::Status CheckProfiles(std::span<const std::string> names) const = 0;
};

struct SchedulingResult {
  std::span<const ProfileResult> profiles;
  size_t primary = 0;
  std::span<const ScoredCandidate> endpoints() const { return profiles[primary].endpoints; }
};

class DataProducer {
 public:
  virtual ~DataProducer() = default;
  // Leaves its attributes for this request. A failure is counted and the slot stays missing.
  virtual base::Status Produce(RequestContext& request,
                               std::span<const EndpointNumber> candidates) = 0;
};

// Amounts that the director books on the routed endpoint and takes back exactly once.
struct Booking {
  fleet::CounterId counter;
  EndpointNumber endpoint;
  int64_t amount;
  bool until_first_token = false;  // taken back at the first response byte, not at the end
};
inline constexpr size_t kBookingsMax = 16;  // per request: two per in-flight producer and profile

class BookingList {
 public:
  // Returns false (and the request goes on unbooked, counted as a bug) when full.
  bool Add(const Booking& booking) {
    if (size_ == kBookingsMax) return false;
    items_[size_++] = booking;
    return true;
  }
  std::span<Booking> items() { return {items_, size_}; }
  void Clear() { size_ = 0; }

 private:
  Booking items_[kBookingsMax];
  size_t size_ = 0;
};

// Called after the decision, before the request is forwarded; again with the new endpoint first
// when a retry moves the request (the earlier bookings were taken back).
class PreRequest {
 public:
  virtual ~PreRequest() = default;
  virtual base::Status OnRouted(RequestContext& request, const SchedulingResult& result,
                                BookingList* bookings) = 0;
};

// Load of the pool for admission: 1.0 and above is saturated.
class SaturationDetector {
 public:
  virtual ~SaturationDetector() = default;
  struct Saturation {
    double value = 1.0;
    uint32_t stale_endpoints = 0;
  };
  virtual Saturation Measure(const fleet::View& view, std::span<const EndpointNumber> candidates,
                             base::TimePoint now) const = 0;
};

// Chooses how a request body is read, by path.
class Parser {
 public:
  virtual ~Parser() = default;
  struct Claim {
    std::string_view suffix;  // plain suffix of the request path
    protocol::Api api;
  };
  // Empty: a fallback parser, used when no other claims the path.
  virtual std::span<const Claim> claims() const = 0;
};

// What a polling data source wants fetched from every endpoint.
struct FetchSpec {
  std::string scheme = "http";
  std::string path = "/metrics";
  uint16_t port = 0;  // 0: the endpoint's own
  bool verify_server = false;
  std::string ca_file, client_cert_file, client_key_file;
  base::Duration interval = std::chrono::milliseconds(50);
};

class Extractor;

class DataSource {
 public:
  virtual ~DataSource() = default;
  virtual const FetchSpec& fetch() const = 0;
};

class Extractor {
 public:
  virtual ~Extractor() = default;
  // Sample families that it reads, for servers that can send only those (name[] filter).
  virtual std::vector<std::string> WantedFamilies(const fleet::EndpointSpec& endpoint) const = 0;
  // Reads one reply of `endpoint` into `load` (which holds the previous values: what the page lacks
  // stays). Returns false when nothing was found; never blocks, never allocates.
  virtual bool Extract(const fleet::EndpointSpec& endpoint, std::string_view page,
                       fleet::Load* load) const = 0;
};

// Where endpoints come from: the runtime reads `path` (again on change when `watch`) and hands over
// the bytes.
struct FileSpec {
  std::string path;
  bool watch = false;
};

class EndpointDiscovery {
 public:
  virtual ~EndpointDiscovery() = default;
  virtual const FileSpec& file() const = 0;
  virtual base::Result<std::vector<fleet::EndpointSpec>> Read(std::string_view bytes) const = 0;
};

}  // namespace llmd::plugin
