// EventConsumer: a plugin that lives from what model servers publish (KV-cache events over ZeroMQ).
// It says which publishers to listen to and is handed their frames; control/kv_events.h does the
// connecting.
//
// Threads: every call comes on one ingest thread, except subscription() and DumpPublishers().
// The consumer outlives the last call.
// Order: OnMembers first; OnConnection(up) before the messages of a connection. After a publisher
// left the list of OnMembers nothing more is told of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "fleet/fleet.h"

namespace llmd::plugin {

// What is the same for all publishers.
struct EventSubscription {
  // Where publishers connect to, "tcp://*:5557"; "": nowhere, they are connected to.
  std::string bind;
  // Prefixes of topics; none: all.
  std::vector<std::string> topics;
  // Who may connect to `bind`: addresses and networks, none: everyone. With a CURVE secret key only
  // those who know its public half, and of them, where there are any, those with one of these keys.
  std::vector<std::string> allowed_addresses;
  std::string curve_secret_key_file;
  std::vector<std::string> curve_client_key_files;
  // Public key of the publishers that are connected to; "": plain.
  std::string curve_server_key_file;

  bool operator==(const EventSubscription&) const = default;
};

struct EventPublisher {
  uint32_t id = 0;
  std::string label;   // "ip:port" of its endpoint, for metrics and logs
  std::string events;  // address to connect to, "tcp://10.0.0.1:5557"; "": none
  std::string replay;  // where missed messages are asked for; "": nowhere
  bool operator==(const EventPublisher&) const = default;
};

// The frames of one message.
struct EventMessage {
  std::string_view topic, sequence, payload;
};

// Messages from `from` on are wanted once more; what comes is told with the same `replay`. A later
// one for the same publisher takes its place.
struct EventReplay {
  uint32_t publisher = 0;
  uint32_t replay = 0;
  uint64_t from = 0;
};

class EventConsumer {
 public:
  virtual ~EventConsumer() = default;
  // Does not change.
  virtual const EventSubscription& subscription() const = 0;
  // The members of the fleet are these now; the answer is who is to be listened to. Ids of
  // publishers that stay are the same.
  virtual std::vector<EventPublisher> OnMembers(const fleet::Members& members,
                                                base::TimePoint now) = 0;
  // `publisher`: from the connection to it; nullopt: it came to `bind`.
  virtual std::optional<EventReplay> OnEvent(std::optional<uint32_t> publisher,
                                             const EventMessage& message, base::TimePoint now) = 0;
  virtual void OnConnection(uint32_t publisher, bool up, base::TimePoint now) = 0;
  virtual std::optional<EventReplay> OnReplayed(const EventReplay& of, const EventMessage& message,
                                                base::TimePoint now) = 0;
  // `complete`: its end was seen; else there was no server or no answer.
  virtual std::optional<EventReplay> OnReplayEnd(const EventReplay& of, bool complete,
                                                 base::TimePoint now) = 0;
  // About every 100 ms, and after OnMembers. Until it has nothing to ask for.
  virtual std::optional<EventReplay> OnTick(base::TimePoint now) = 0;
  // A JSON array, one object per publisher, for people; any thread.
  virtual std::string DumpPublishers() const = 0;
};

}  // namespace llmd::plugin
