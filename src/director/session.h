// Session: one request from its head to its end. Both doors, replay and tests drive this class.
//
// The door hands it events with `now` and performs what comes back: forward to this ordered list
// with these header edits and this splice, or reply with this error. It touches no socket, clock,
// thread or file.
//
//   OnHead -> OnBody* -> OnBodyEnd -> Decision
//     kForward: the door sends; then OnUpstreamFailed -> Decision (retry or reply), or
//               OnResponseHead -> OnResponseBody* -> exactly one of OnDone / OnAborted
//     kReply:   the door answers with `reply`; then OnDone
//   OnAborted may come at any moment after OnHead. A call out of this order is counted as a bug,
//   answered with an error or ignored, and leaves the counters balanced.
//
// Belongs to one worker. Invariants: 1. Every booking made in the fleet is taken back exactly once,
// whatever the end. 2. A session pins one config generation and one fleet membership. 3. After
// OnDone or OnAborted only the accessors and the destructor may be called.
#pragma once

#include <cstdint>
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
};

struct Decision {
  enum class Kind { kForward, kReply } kind = Kind::kReply;
  Forward forward;
  Reply reply;
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

enum class Termination { kNatural, kClientDisconnect, kEvicted, kError };

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
  Decision OnBodyEnd(base::TimePoint now);

  // The attempt towards `endpoints[0]` of the last decision failed; the answer is the next
  // endpoint, or the error to reply with. `status` is the engine's for kStatus502or503or504; a
  // reply decided for that one may be set aside: the door then relays what the engine said,
  // beginning with OnResponseHead. `body_kept` says whether the door can send the whole body again.
  Decision OnUpstreamFailed(UpstreamFailure failure, int status, bool body_kept,
                            base::TimePoint now);

  // The reply has begun: no retry from here on. `event_stream`: its content type is
  // text/event-stream.
  void OnResponseHead(int status, bool event_stream, base::TimePoint now);
  // Decoded reply bytes, in order. Reads usage and the first token; when a model name has to be
  // restored, returns the byte range of this piece to replace (else begin == end and no bytes). The
  // replacement dies with the next event. It may be shorter than the range: the end of a piece that
  // may hold half a name is kept, and comes with the next piece or from TakeHeldBack.
  Forward::Splice OnResponseBody(std::string_view bytes, base::TimePoint now);
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
  // Changes a decision that is yet to be made: objectives, which set priorities, come with a later
  // room.
  void SetPriorityForTest(int32_t priority);
  // "host:port" of an endpoint of a decision of this session.
  std::string_view EndpointName(fleet::EndpointNumber endpoint) const;

 private:
  SessionState* state_;
};

}  // namespace llmd::director
