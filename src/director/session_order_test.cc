// Every order of events, and many sessions at once with a ledger kept beside.
#include "director/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/check.h"
#include "base/random.h"
#include "base/strings.h"
#include "director/director_testing.h"
#include "telemetry/metrics.h"

namespace llmd::director {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using telemetry::MetricId;
using testing::Bed;
using testing::Bugs;
using testing::Decide;
using testing::kChat;
using testing::kChatPath;
using testing::Post;
using testing::TestKnobs;

// ---- every order of events
// ------------------------------------------------------------------------

enum Event { kHead, kBody, kBodyEnd, kConnectFailed, kStatusFailed, kRespHead, kRespBody, kDone,
             kGone, kEventCount };

void Send(Session& s, Event event, base::TimePoint now) {
  switch (event) {
    case kHead: s.OnHead(Post(), now); break;
    case kBody: s.OnBody(kChat, now); break;
    case kBodyEnd: s.OnBodyEnd(now); break;
    case kConnectFailed: s.OnUpstreamFailed(UpstreamFailure::kConnect, 0, true, now); break;
    case kStatusFailed:
      s.OnUpstreamFailed(UpstreamFailure::kStatus502or503or504, 502, true, now);
      break;
    case kRespHead: s.OnResponseHead({.status = 200, .event_stream = true}, now); break;
    case kRespBody: s.OnResponseBody("data: {}\n\n", now); break;
    case kDone: s.OnDone(1, now); break;
    case kGone: s.OnAborted(Termination::kClientDisconnect, 1, now); break;
    case kEventCount: break;
  }
}

// What may come next, as the header says it.
bool Legal(std::span<const Event> before, Event event) {
  enum { kNew, kReading, kForwarded, kReplied, kRelayed, kRelaying, kEnded } state = kNew;
  int failures = 0;
  const auto step = [&](Event e) {
    switch (state) {
      case kNew: return e == kHead ? (state = kReading, true) : false;
      case kReading:
        if (e == kBody) return true;
        if (e == kBodyEnd) return state = kForwarded, true;
        return e == kGone ? (state = kEnded, true) : false;
      case kForwarded:
        if (e == kConnectFailed || e == kStatusFailed) {
          if (++failures > 2) state = e == kStatusFailed ? kRelayed : kReplied;
          return true;
        }
        if (e == kRespHead) return state = kRelaying, true;
        if (e == kBody) return true;  // counted only
        return e == kGone ? (state = kEnded, true) : false;
      case kRelayed:
        if (e == kRespHead) return state = kRelaying, true;
        [[fallthrough]];
      case kReplied:
        return e == kBody || (e == kDone || e == kGone ? (state = kEnded, true) : false);
      case kRelaying:
        if (e == kRespBody || e == kBody) return true;
        return e == kDone || e == kGone ? (state = kEnded, true) : false;
      case kEnded: return false;
    }
    return false;
  };
  for (Event e : before) {
    if (!step(e)) return true;  // already illegal: not this function's question
  }
  return step(event);
}

// A body sent twice is bad JSON and leads to a reply; the model above knows one body only.
bool OneBody(std::span<const Event> events) {
  int bodies = 0;
  for (Event e : events) {
    if (e == kBodyEnd) break;
    bodies += e == kBody;
  }
  return bodies == 1;
}

TEST(Session, EveryOrderOfEventsBalances) {
  Bed bed(4);
  size_t sequences = 0, legal = 0;
  const std::vector<std::vector<Event>> prefixes = {
      {}, {kHead, kBody}, {kHead, kBody, kBodyEnd}, {kHead, kBody, kBodyEnd, kConnectFailed},
      {kHead, kBody, kBodyEnd, kStatusFailed, kConnectFailed}, {kHead, kBody, kBodyEnd, kRespHead}};
  constexpr int kLength = 4;
  for (const auto& prefix : prefixes) {
    for (int code = 0; code < kEventCount * kEventCount * kEventCount * kEventCount; ++code) {
      std::vector<Event> events = prefix;
      for (int i = 0, c = code; i < kLength; ++i, c /= kEventCount) {
        events.push_back(static_cast<Event>(c % kEventCount));
      }
      const bool modelled = OneBody(events);
      // So far apart that endpoints recover from the failures of the sequence before.
      bed.now += seconds(60);
      {
        Session session(bed.director(), sequences, bed.now);
        bool still_legal = true;
        for (size_t i = 0; i < events.size(); ++i) {
          const uint64_t bugs = Bugs();
          still_legal = still_legal && Legal({events.data(), i}, events[i]);
          Send(session, events[i], bed.now);
          if (modelled && still_legal) {
            ASSERT_EQ(Bugs(), bugs) << "event " << i << " of sequence " << code;
          }
        }
        legal += still_legal;
      }
      ASSERT_EQ(bed.InFlight(), 0) << code;
      ASSERT_EQ(bed.director().active(), 0u) << code;
      ++sequences;
    }
  }
  EXPECT_EQ(sequences, prefixes.size() * 6561);
  EXPECT_GT(legal, 100u);
  EXPECT_EQ(bed.metrics.ValueOf(MetricId::kRequestRunning, {"llama", "llama", "default-flow", "0"}),
            0);
}

TEST(Session, IllegalCallsAreCountedAndAnswered) {
  Bed bed(2);
  Session session(bed.director(), 1, bed.now);
  uint64_t bugs = Bugs();
  EXPECT_EQ(session.OnBodyEnd(bed.now).reply.http_status, 500);
  EXPECT_EQ(Bugs(), bugs + 1);
  Decide(session, bed);
  bugs = Bugs();
  EXPECT_EQ(session.OnBodyEnd(bed.now).reply.http_status, 500);
  EXPECT_EQ(Bugs(), bugs + 1);
  session.OnResponseHead({.status = 200}, bed.now);
  session.OnDone(0, bed.now);
  bugs = Bugs();
  session.OnDone(0, bed.now);
  session.OnAborted(Termination::kError, 0, bed.now);
  EXPECT_EQ(Bugs(), bugs + 2);
  EXPECT_EQ(bed.records.Last(9).size(), 1u) << "recorded once";
}

// ---- many sessions, a fleet that changes, reloads: a ledger kept beside
// ----------------------------

struct Flight {
  std::unique_ptr<Session> session;
  enum { kReading, kWaiting, kSent, kRelaying, kReplied } state = kReading;
  fleet::EndpointNumber endpoint = fleet::kNoEndpoint;
  bool first_byte = false;
};

class Driver {
 public:
  // `waiting`: requests wait for a producer, which some of them see answer.
  Driver(uint64_t seed, bool waiting) : waiting_(waiting), chance_(seed) { Load(); }

  void Run(int steps) {
    for (int i = 0; i < steps; ++i) {
      bed_.now += milliseconds(random_() % 50);
      Step();
      ASSERT_NO_FATAL_FAILURE(CompareLedger());
    }
    while (!flights_.empty()) End(flights_.size() - 1);
    EXPECT_EQ(bed_.InFlight(), 0);
    EXPECT_EQ(bed_.director().active(), 0u);
    EXPECT_EQ(waits_, answers_ + TestKnobs().abandoned);
    EXPECT_EQ(waits_ > 0, waiting_);
  }

 private:
  void Load() {
    std::string yaml(Bed::kYaml);
    if (waiting_) yaml.insert(yaml.find("- type: refuser"), "- type: waiting-producer\n");
    bed_.Load(yaml);
  }
  uint64_t random_() { return chance_.Next(); }
  void Step() {
    switch (random_() % 12) {
      case 0: case 1: case 2: return Begin();
      case 3: return bed_.SetEndpoints(random_() % 7);
      case 4: if (random_() % 10 == 0) Load(); return;
      default: break;
    }
    if (flights_.empty()) return;
    const size_t i = random_() % flights_.size();
    Flight& f = flights_[i];
    const uint64_t what = random_() % 10;
    if (what == 0) return End(i);
    switch (f.state) {
      case Flight::kReading:
        TestKnobs().ready = random_() % 4 == 0;
        return Forwarded(f, f.session->OnBodyEnd(bed_.now));
      case Flight::kWaiting: {
        TestKnobs().ready = random_() % 4 == 0;
        const int abandoned = TestKnobs().abandoned;
        Forwarded(f, f.session->OnWake(bed_.now));
        answers_ += f.state != Flight::kWaiting && TestKnobs().abandoned == abandoned;
        return;
      }
      case Flight::kSent: return what < 4 ? Fail(f) : Reply(f);
      case Flight::kRelaying:
        f.session->OnResponseBody("data: {\"choices\":[]}\n\n", bed_.now);
        f.first_byte = true;
        return;
      case Flight::kReplied: return End(i);
    }
  }
  void Begin() {
    Flight f;
    f.session = std::make_unique<Session>(bed_.director(), random_(), bed_.now);
    f.session->OnHead(Post(), bed_.now);
    f.session->OnBody(random_() % 9 == 0 ? kChat.substr(0, 30) : kChat, bed_.now);
    flights_.push_back(std::move(f));
  }
  void Forwarded(Flight& f, const Decision& d) {
    const bool forward = d.kind == Decision::Kind::kForward;
    const bool wait = d.kind == Decision::Kind::kWait;
    waits_ += wait && f.state != Flight::kWaiting;
    f.state = forward ? Flight::kSent : wait ? Flight::kWaiting : Flight::kReplied;
    f.endpoint = forward ? d.forward.endpoints[0].endpoint : fleet::kNoEndpoint;
  }
  void Fail(Flight& f) {
    static constexpr UpstreamFailure kFailures[] = {
        UpstreamFailure::kConnect, UpstreamFailure::kStaleConnection, UpstreamFailure::kReset,
        UpstreamFailure::kTimeout};
    Forwarded(f, f.session->OnUpstreamFailed(kFailures[random_() % 4], 0, random_() % 5 > 0,
                                             bed_.now));
  }
  void Reply(Flight& f) {
    f.session->OnResponseHead(
        {.status = random_() % 5 ? 200 : 500, .event_stream = random_() % 2 == 0}, bed_.now);
    f.state = Flight::kRelaying;
  }
  void End(size_t i) {
    Flight& f = flights_[i];
    if (f.state == Flight::kRelaying || f.state == Flight::kReplied) {
      f.session->OnDone(9, bed_.now);
    } else {
      f.session->OnAborted(Termination::kClientDisconnect, 0, bed_.now);
    }
    flights_.erase(flights_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  void CompareLedger() {
    std::map<fleet::EndpointNumber, int64_t> requests, tokens;
    for (const Flight& f : flights_) {
      if (f.endpoint == fleet::kNoEndpoint) continue;
      ++requests[f.endpoint];
      if (!f.first_byte) tokens[f.endpoint] += 10;
    }
    for (fleet::EndpointNumber n = 0; n < 64; ++n) {
      ASSERT_EQ(bed_.fleet.CounterSum(fleet::kRequestsInFlight, n), requests[n]) << n;
      ASSERT_EQ(bed_.fleet.CounterSum(1, n), requests[n]) << n;
      ASSERT_EQ(bed_.fleet.CounterSum(2, n), tokens[n]) << n;
    }
  }

  Bed bed_{4};
  const bool waiting_;
  base::Random chance_;
  int waits_ = 0, answers_ = 0;
  std::vector<Flight> flights_;
};

TEST(Session, ALedgerAgreesWithTheCountersThroughChurnAndReloads) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const uint64_t bugs = Bugs();
    ASSERT_NO_FATAL_FAILURE(Driver(seed, seed % 2 == 1).Run(1500)) << seed;
    ASSERT_EQ(Bugs(), bugs) << seed;
  }
}

TEST(Session, KeepsItsGenerationThroughAReload) {
  Bed bed(2);
  Session session(bed.director(), 1, bed.now);
  session.OnHead(Post(), bed.now);
  session.OnBody(kChat, bed.now);
  bed.Load(R"({apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig, plugins: []})");
  session.OnBodyEnd(bed.now);
  EXPECT_EQ(session.record().generation, 1u);
  EXPECT_EQ(bed.InFlight(), 12) << "the old generation's producer still books";
  session.OnAborted(Termination::kError, 0, bed.now);
  EXPECT_EQ(bed.InFlight(), 0);
  EXPECT_EQ(bed.director().generation().number(), 2u);
}

}  // namespace
}  // namespace llmd::director
