// Session: one request from its head to its end. Both doors, replay and tests drive this class.
//
// The door hands it events with `now` and performs what comes back: forward to this ordered list
// with these header edits and this splice, or reply with this error. It touches no socket, clock,
// thread or file.
//
//   OnHead -> OnBody* -> OnBodyEnd -> Decision
//     kWait:    the door sets a timer for `wait_until` and has `ask` performed, where there is one;
//               at that time, or when what was asked for has ended, OnWake -> Decision
//     kForward: the door sends; then OnUpstreamFailed -> Decision (retry or reply), or
//               OnResponseHead -> OnResponseBody* -> exactly one of OnDone / OnAborted
//     kReply:   the door answers with `reply`; then OnDone
//   SetSubset may come with any message before OnBodyEnd. OnAborted may come at any moment after
//   OnHead. A door that is never shown the reply's body ends with OnDone all the same; one whose
//   session says skip_response() may end with OnDone right after kForward. A call out of this order
//   is counted as a bug, answered with an error or ignored, and leaves the counters balanced.
//
// What is lost where bodies are not shown: usage, time to first token, times between chunks, the
// client's model name in place of a rewritten one. It is counted (llmd_replies_unread_total) and
// logged once. What is booked until the first token is then given back at the end: the head of a
// stream comes before the prompt is worked through, so giving it back there would show too little.
//
// Belongs to one worker. Invariants: 1. Every booking made in the fleet is taken back exactly once,
// whatever the end. 2. A session pins one config generation and one fleet membership. 3. After
// OnDone or OnAborted only the accessors and the destructor may be called.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/status.h"
#include "base/time.h"
#include "director/record.h"
#include "fleet/fleet.h"
#include "plugin/plugin.h"
#include "protocol/request.h"
#include "protocol/usage.h"

namespace llmd::director {

class Director;
class Generation;
struct SessionState;  // internal: session_state.h

struct RequestHead {
  std::string_view method;
  std::string_view path;                     // without query
  std::string_view content_type;             // "" when absent
  std::span<const plugin::Header> headers;   // live as long as the session
  std::string_view request_id;               // kept or made by the door
  std::string_view peer;                     // client address, for the record
  std::optional<uint64_t> content_length;
};

// An error reply of our own, before anything was relayed.
struct Reply {
  int http_status = 500;
  std::string_view message;          // for the body; arena or static
  std::string_view error_type;       // OpenAI's error.type
  std::string_view dropped_reason;   // x-llm-d-request-dropped-reason, or ""
  uint32_t retry_after_seconds = 0;  // 0 = no header
};

struct Forward {
  // Best first; the first is where to send now. Numbers are valid while the session lives.
  std::span<const plugin::ScoredCandidate> endpoints;
  // Replace body bytes [begin, end) by `bytes`; begin == end and empty bytes: send it as it came.
  struct Splice {
    uint64_t begin = 0, end = 0;
    std::string_view bytes;
  } splice;
  std::span<const plugin::Header> set_headers;  // add or replace towards the engine
  // All that the primary profile's filters left, with their weighted sums, in no order (what
  // upstream emits with --emit-endpoint-scores). Lives as long as the session.
  std::span<const plugin::ScoredCandidate> scored;
};

struct Decision {
  enum class Kind { kForward, kReply, kWait } kind = Kind::kReply;
  Forward forward;
  Reply reply;
  base::TimePoint wait_until{};  // of kWait: when to call OnWake at the latest
  // Of kWait: to be performed now. None: nothing, or it is under way from an earlier decision. Any
  // other decision ends the interest in what is under way.
  std::shared_ptr<plugin::OutsideTask> ask;
};

enum class BodyPolicy {
  kDecideAtEnd,  // collect the whole body, then decide (JSON APIs)
  // OnBody returns true once enough is known; the rest streams through (multipart, unknown APIs):
  // it may still be shown to OnBody, which then only counts it.
  kDecideEarly,
  kNoBody,  // decide now: call OnBodyEnd at once
};

// How the upstream attempt ended before its reply began.
enum class UpstreamFailure {
  kConnect,          // never connected: nothing was sent
  kStaleConnection,  // a reused connection closed before a reply byte: retry costs no budget
  kReset,            // reset or closed before any reply byte
  kTimeout,          // no reply head in time
  kStatus502or503or504,
};

using plugin::Termination;

class Session {
 public:
  // `director` outlives every session. `seed` is this request's chance.
  Session(Director& director, uint64_t seed, base::TimePoint now);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // `head` and what it views stay valid until the session ends.
  BodyPolicy OnHead(const RequestHead& head, base::TimePoint now);
  // A piece of the body, in order. The bytes stay valid (the door keeps the slices) until the
  // decision is no longer repeated. True under kDecideEarly once OnBodyEnd may be called; a scan
  // error shows in OnBodyEnd's decision.
  bool OnBody(std::string_view bytes, base::TimePoint now);
  // The request may go to these endpoints only: "ip" (any port), "ip:port", "[v6]:port", "[v6]" or
  // a bare v6 address. Other text names nobody; an empty list leaves no candidates. A later call
  // replaces the earlier one's list. Without a call every endpoint may be chosen. Copied.
  void SetSubset(std::span<const std::string_view> entries);
  Decision OnBodyEnd(base::TimePoint now);
  // After kWait: its time has come, or what the request waits for may have happened. The rest of a
  // body that was decided early may arrive meanwhile; the door keeps it.
  Decision OnWake(base::TimePoint now);

  // The attempt towards `endpoints[0]` of the last decision failed; the answer is the next
  // endpoint, or the error to reply with. `status` is the engine's for kStatus502or503or504; a
  // reply decided for that one may be set aside: the door then relays what the engine said,
  // beginning with OnResponseHead. `body_kept` says whether the door can send the whole body again.
  Decision OnUpstreamFailed(UpstreamFailure failure, int status, bool body_kept,
                            base::TimePoint now);

  // The reply has begun: no retry from here on. Returns the headers to add or replace towards the
  // client; they live as long as the session. When `head` says that another endpoint of the
  // decision served it, what is booked and recorded moves there.
  std::span<const plugin::Header> OnResponseHead(const plugin::ResponseHead& head,
                                                 base::TimePoint now);
  // Decoded reply bytes, in order. Reads usage and the first token; when a model name has to be
  // restored, returns the byte range of this piece to replace (else begin == end and no bytes). The
  // replacement dies with the next event. It may be shorter than the range: the end of a piece that
  // may hold half a name is kept, and comes with the next piece or from TakeHeldBack.
  // `continues`: more of the chunk that the last call began, so no time between tokens.
  Forward::Splice OnResponseBody(std::string_view bytes, base::TimePoint now,
                                 bool continues = false);
  // After a decision: a plugin reads the reply's headers (else the door need not fill them in).
  bool reads_response_headers() const;
  // True when the reply may change its length (call after OnResponseHead): no Content-Length then.
  bool restores_model() const;
  // At the end of the reply, before OnDone: bytes still to be relayed; empty unless
  // restores_model().
  std::string_view TakeHeldBack();
  void OnDone(uint64_t response_bytes, base::TimePoint now);
  // The client went away, the engine died mid-reply, or the request was evicted.
  void OnAborted(Termination why, uint64_t response_bytes, base::TimePoint now);

  // Is the OpenAI-style error event wanted when the engine dies mid-stream?
  bool streaming() const;
  const plugin::RequestContext& context() const;
  const DecisionRecord& record() const;
  const protocol::Usage& usage() const;
  // After a decision: nothing can be read from the reply or restored in it (a raw payload).
  bool skip_response() const;
  // After OnDone or OnAborted: what plugins have to say to the proxy at the end.
  std::span<const plugin::MetadataNumber> end_metadata() const;
  // "host:port" of an endpoint of a decision of this session.
  std::string_view EndpointName(fleet::EndpointNumber endpoint) const;

 private:
  SessionState* state_;
};

}  // namespace llmd::director
