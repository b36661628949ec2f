// The interfaces of every plugin kind.
//
// In the order in which a request meets them: Parser, RequestHeaderProcessor, SaturationDetector
// (admission), DataProducer, ProfileHandler { Filter, Scorer, Picker }, PreRequest, and on the way
// back ResponseProcessor. DataSource, Extractor and EndpointDiscovery work beside the requests.
//
// A plugin is one object per config entry, shared by all workers: its methods are const or
// thread-safe, and what it must remember between requests is thread-safe state of its own. A class
// may implement several kinds; which ones is found out once, when the config is loaded, by
// dynamic_cast. A plugin opens no socket and no file, reads no clock and draws no entropy: it asks
// (see FetchSpec, FileSpec) and is handed bytes, `now` and a seeded Random with each event.
//
// Hot methods (Filter, Score, Pick, Produce, Extract) allocate from the request's arena only.
#pragma once

#include <atomic>
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
#include "protocol/usage.h"

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

// Reads a request's head before its fairness id is final, and leaves attributes.
class RequestHeaderProcessor {
 public:
  virtual ~RequestHeaderProcessor() = default;
  // An error ends the request with it.
  virtual base::Status OnRequestHeaders(RequestContext& request) const = 0;
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
  // True of a picker that chooses the highest scores and, of equal ones, those that stand first: it
  // may be shown only the candidates that can be among the first `wanted`.
  virtual bool takes_highest() const { return false; }
};

// One profile's run: the choice first, then fallbacks in order. Empty when filters left nothing.
struct ProfileResult {
  std::string_view profile;
  std::span<const ScoredCandidate> endpoints;
  // All that the filters left, with their weighted sums, in no particular order: who was a
  // candidate of this profile, and what each was worth.
  std::span<const ScoredCandidate> scored;
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

// How long a request waits for a data producer that does not say otherwise (upstream's
// dataProducerTimeout).
inline constexpr base::Duration kProduceWaitMax = std::chrono::milliseconds(400);

class DataProducer {
 public:
  virtual ~DataProducer() = default;
  // Leaves its attributes for this request. A failure is counted and the slot stays missing.
  //
  // One that cannot answer yet sets request.wait_until to a later time and returns OK; what it
  // leaves then is what counts if its time runs out. It is called again, with the candidates that
  // are still members, at that time or when the door is told that something happened, which may be
  // earlier; it may wait again. What it must remember between the calls lies in the request's arena
  // (an attribute of its own) or in state of its own, which Abandon releases.
  virtual base::Status Produce(RequestContext& request,
                               std::span<const EndpointNumber> candidates) = 0;
  // From its first call on; then the request goes on without it.
  virtual base::Duration wait_max() const { return kProduceWaitMax; }
  // A request that was left waiting ended, or goes on without this producer: the last call for it.
  virtual void Abandon(RequestContext& request) {}
};

// Amounts that the director books on the routed endpoint and takes back exactly once.
struct Booking {
  fleet::CounterId counter;
  EndpointNumber endpoint;
  int64_t amount;
  bool until_first_token = false;  // taken back at the first response byte, not at the end
  // The plugin's own count of it, say under the labels of a gauge: booked and taken back alongside.
  // Written by the request's worker only; lives until the amount was taken back. May be nullptr.
  std::atomic<int64_t>* tally = nullptr;
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
// when a retry moves the request, or the proxy says that another of the endpoints served it (the
// earlier bookings were taken back). All are called, even after one refused.
class PreRequest {
 public:
  virtual ~PreRequest() = default;
  virtual base::Status OnRouted(RequestContext& request, const SchedulingResult& result,
                                BookingList* bookings) = 0;
};

// How a request ended. Upstream: TerminationCause.
enum class Termination : uint8_t { kNatural, kClientDisconnect, kEvicted, kError };

// The head of a reply, as the door shows it. Views live for the call.
struct ResponseHead {
  int status = 200;
  bool event_stream = false;              // its content type is text/event-stream
  std::span<const Header> headers = {};   // in order, as received
  // "ip:port" that answered, as the proxy says; "" where its metadata does not say, none where
  // there is no such metadata. (The endpoint of the decision is known to whoever saw OnRouted.)
  std::optional<std::string_view> served_endpoint = {};
};

// A number for the proxy's dynamic metadata, from where rate limits and billing read it.
struct MetadataNumber {
  std::string_view name_space, name;  // live as long as the plugin or in the request's arena
  int64_t value = 0;
};
inline constexpr size_t kMetadataNumbersMax = 16;  // one per reporter; configs have one or two

class MetadataList {
 public:
  // The last value of a namespace and name counts. False, and nothing added, when full.
  bool Set(const MetadataNumber& number) {
    for (MetadataNumber& m : std::span(items_, size_)) {
      if (m.name_space != number.name_space || m.name != number.name) continue;
      m.value = number.value;
      return true;
    }
    if (size_ == kMetadataNumbersMax) return false;
    items_[size_++] = number;
    return true;
  }
  std::span<const MetadataNumber> items() const { return {items_, size_}; }

 private:
  MetadataNumber items_[kMetadataNumbersMax];
  size_t size_ = 0;
};

struct ResponseEnd {
  Termination termination = Termination::kNatural;
  int status = 0;               // of the reply; 0 = none had begun
  bool body_shown = false;      // false: the proxy keeps bodies to itself, so there is no usage
  uint64_t event_count = 0;     // pieces of a streamed body, roughly its tokens
  const protocol::Usage& usage;  // usage.present: the reply told it
};

// Sees the head and the end of the reply.
class ResponseProcessor {
 public:
  virtual ~ResponseProcessor() = default;
  // The reply has begun; `to_client`: headers to add or replace in it
  // (`to_client->Set(*request.arena, name, value)`).
  virtual void OnResponseHead(RequestContext& request, const ResponseHead& head,
                              HeaderEdits* to_client) {}
  // Called once for every request whose OnRouted plugins were called, whatever became of it.
  virtual void OnResponseEnd(RequestContext& request, const ResponseEnd& end,
                             MetadataList* metadata) {}
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

// How a pool's servers are spoken to: the pool's appProtocol.
enum class AppProtocol : uint8_t { kHttp, kH2c };
constexpr std::string_view AppProtocolName(AppProtocol protocol) {
  return protocol == AppProtocol::kHttp ? "http" : "kubernetes.io/h2c";
}

// Chooses how a request body is read, by path.
class Parser {
 public:
  virtual ~Parser() = default;
  struct Claim {
    std::string_view suffix;  // plain suffix of the request path
    protocol::Api api;
    bool exact = false;       // the suffix is all of the path but its leading slash

    // `path` has no query and no slash at its end.
    bool Matches(std::string_view path) const {
      return path.ends_with(suffix) && (!exact || path.size() <= suffix.size() + 1);
    }
  };
  // Empty: a fallback parser, used when no other claims the path.
  virtual std::span<const Claim> claims() const = 0;
  // Pools that it can read the requests of; empty: any.
  virtual std::span<const AppProtocol> protocols() const { return {}; }
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

// Upstream's way of telling plugins who the fleet's members are; here they are told anyway.
class EndpointNotifier {
 public:
  virtual ~EndpointNotifier() = default;
};

class DataSource {
 public:
  virtual ~DataSource() = default;
  virtual const FetchSpec& fetch() const = 0;
};

// Where an extractor leaves a number for every endpoint: under its own name, and for those who do
// not care whose it is.
struct EndpointAttribute {
  fleet::AttributeId own = 0, any = 0;
};

// What extractors found out of one endpoint. Kept from page to page: what a page lacks stays as it
// was; `found_...` are of the page at hand.
struct EndpointReport {
  fleet::Load load;
  fleet::Adapters adapters;
  bool found_load = false, found_adapters = false;
  struct Value {
    fleet::AttributeId attribute;
    float value;
  };
  Value values[fleet::kAttributesMax];
  size_t value_count = 0;

  void Set(const EndpointAttribute& attribute, double value) {
    for (const fleet::AttributeId id : {attribute.own, attribute.any}) {
      if (value_count < fleet::kAttributesMax) {
        values[value_count++] = {id, static_cast<float>(value)};
      }
    }
  }
  void BeginPage() {
    found_load = found_adapters = false;
    value_count = 0;
  }
};

class Extractor {
 public:
  virtual ~Extractor() = default;
  // Sample families that it reads, for servers that can send only those (name[] filter).
  virtual std::vector<std::string> WantedFamilies(const fleet::EndpointSpec& endpoint) const = 0;
  // Reads one page of `endpoint` into `report`. Returns false when nothing was found; never blocks,
  // and allocates only when the page says something new.
  virtual bool Extract(const fleet::EndpointSpec& endpoint, std::string_view page,
                       EndpointReport* report) const = 0;
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
