#include "sim/kv_events.h"

#include <algorithm>

#include "base/strings.h"

namespace llmd::sim {
namespace {

using engine::CacheChange;
using engine::CacheTier;

std::string_view MediumOf(CacheTier tier) { return tier == CacheTier::kGpu ? "GPU" : "CPU"; }

bool Binds(const KvEventOptions& options) {
  return options.mode == ZmqMode::kAuto ? BindsByItsLook(options.endpoint)
                                        : options.mode == ZmqMode::kBind;
}

}  // namespace

bool BindsByItsLook(std::string_view endpoint) {
  return endpoint.contains('*') || endpoint.contains("::") || endpoint.starts_with("ipc://") ||
         endpoint.starts_with("inproc://");
}

base::Result<std::string> OffsetEndpoint(std::string_view endpoint, uint32_t offset) {
  if (offset == 0 || endpoint.empty()) return std::string(endpoint);
  if (!endpoint.starts_with("tcp://")) {
    return base::Concat(endpoint, "_dp", std::to_string(offset));
  }
  const size_t colon = endpoint.rfind(':');
  const std::string_view port_text = endpoint.substr(colon + 1);
  const auto port = base::ParseInt(port_text);
  if (!port || *port == 0) return std::string(endpoint);  // nonsense is told by who opens it
  if (*port + offset > 65535) {
    return std::unexpected(base::InvalidArgument(base::Concat(
        endpoint, " plus ", std::to_string(offset), " servers goes beyond port 65535")));
  }
  return base::Concat(endpoint.substr(0, colon + 1), std::to_string(*port + offset));
}

base::Result<std::unique_ptr<KvEventPublisher>> KvEventPublisher::Create(
    net::ZmqContext& context, const KvEventOptions& options, uint32_t index, std::string topic,
    uint32_t block_tokens, size_t digest_bytes) {
  const bool binds = Binds(options);
  KvEventOptions own = options;
  // Servers of one process may all connect to one picker; ranks go to a port each, as vLLM's do.
  LLMD_ASSIGN_OR_RETURN(own.endpoint, OffsetEndpoint(options.endpoint,
                                                     binds || options.ranks > 1 ? index : 0));
  LLMD_ASSIGN_OR_RETURN(own.replay_endpoint, OffsetEndpoint(options.replay_endpoint, index));
  std::unique_ptr<KvEventPublisher> events(new KvEventPublisher(
      own, index, std::move(topic), block_tokens, digest_bytes));

  net::ZmqSocketOptions socket;
  (binds ? socket.bind : socket.connect) = {own.endpoint};
  socket.queue_messages_max = own.queue_messages_max;
  socket.security = own.security;
  LLMD_ASSIGN_OR_RETURN(events->publisher_, net::ZmqPublisher::Create(context, socket));
  if (own.replay_endpoint.empty()) return events;
  net::ZmqReplayServerOptions replay;
  replay.bind = own.replay_endpoint;
  replay.with_topic = own.replay_topic;
  replay.security.server_secret_key = own.security.server_secret_key;
  LLMD_ASSIGN_OR_RETURN(events->replay_, net::ZmqReplayServer::Create(context, replay, *events));
  return events;
}

KvEventPublisher::KvEventPublisher(const KvEventOptions& options, uint32_t index,
                                   std::string topic, uint32_t block_tokens, size_t digest_bytes)
    : options_(options),
      rank_(options.rank.value_or(options.ranks > 1 ? index : 0)),
      topic_(std::move(topic)),
      block_tokens_(block_tokens),
      digest_bytes_(digest_bytes),
      writer_(options.maps ? prefix::KvEventForm::kMap : prefix::KvEventForm::kArray) {}

std::string_view KvEventPublisher::bound() const {
  return publisher_->bound().empty() ? std::string_view() : publisher_->bound().front();
}

std::string_view KvEventPublisher::replay_bound() const {
  return replay_ ? std::string_view(replay_->bound()) : std::string_view();
}

void KvEventPublisher::Publish(std::span<const CacheChange> changes, base::WallTime now) {
  for (const CacheChange& change : changes) {
    Write(change);
    if (options_.batch_events_max > 0 && writer_.events() >= options_.batch_events_max) Send(now);
  }
  if (writer_.events() > 0) Send(now);
}

prefix::KvWireHash KvEventPublisher::WireHash(uint64_t hash, const engine::Digest* digest) const {
  if (!options_.byte_hashes || digest == nullptr) return {.value = hash, .bytes = {}};
  return {.value = hash, .bytes = {digest->data(), digest_bytes_}};
}

void KvEventPublisher::Write(const CacheChange& change) {
  if (change.kind == CacheChange::Kind::kCleared) return writer_.Cleared();
  const bool digests = !change.digests.empty();
  hashes_.clear();
  for (size_t i = 0; i < change.hashes.size(); ++i) {
    hashes_.push_back(WireHash(change.hashes[i], digests ? &change.digests[i] : nullptr));
  }
  const std::string_view medium = MediumOf(change.tier);
  const bool gpu = change.tier == CacheTier::kGpu;
  // Events of the offloading connector do not name a group.
  const std::optional<uint32_t> group = gpu ? std::optional<uint32_t>(0) : std::nullopt;
  if (change.kind == CacheChange::Kind::kRemoved) return writer_.Removed(hashes_, medium, group);
  const prefix::KvExtra salt{.block = 0, .text = change.salt, .offset = {}, .is_bytes = false};
  prefix::KvStoredFields fields{.hashes = hashes_,
                                .parent = {},
                                .tokens = change.tokens,
                                .block_size = block_tokens_,
                                .lora_id = {},
                                .medium = medium,
                                .lora_name = {},
                                .has_extra_keys = gpu,
                                .extras = {},
                                .group = group,
                                .kind = gpu ? prefix::KvCacheKind::kFullAttention
                                            : prefix::KvCacheKind::kNone};
  if (change.has_parent) {
    fields.parent = WireHash(change.parent, digests ? &change.parent_digest : nullptr);
  }
  if (!change.salt.empty()) fields.extras = {&salt, 1};
  writer_.Stored(fields);
}

void KvEventPublisher::Send(base::WallTime now) {
  std::string payload = writer_.Finish(static_cast<double>(now.unix_ns) * 1e-9, rank_);
  std::string sequence;
  prefix::AppendKvSequence(next_sequence_++, &sequence);
  const std::string_view frames[] = {topic_, sequence, payload};
  publisher_->Send(frames);
  if (!replay_) return;
  steps_bytes_ += payload.size();
  steps_.push_back(std::move(payload));
  while (steps_.size() > options_.replay_steps_max || steps_bytes_ > kReplayBytesMax) {
    steps_bytes_ -= steps_.front().size();
    steps_.pop_front();
  }
}

bool KvEventPublisher::FindReplay(uint64_t sequence, Message* message) {
  const uint64_t first = next_sequence_ - steps_.size();
  sequence = std::max(sequence, first);
  if (sequence >= next_sequence_) return false;
  *message = {.topic = topic_, .sequence = sequence, .payload = steps_[sequence - first]};
  return true;
}

std::string KvEventPublisher::DescribeJson() const {
  std::string out = "{\"";
  out += std::to_string(rank_);
  out += "\":{\"enable_kv_cache_events\":true,\"publisher\":\"zmq\",\"endpoint\":";
  base::AppendJsonString(&out, options_.endpoint);
  out += ",\"replay_endpoint\":";
  if (options_.replay_endpoint.empty()) {
    out += "null";
  } else {
    base::AppendJsonString(&out, options_.replay_endpoint);
  }
  out += base::Concat(",\"buffer_steps\":", std::to_string(options_.replay_steps_max),
                      ",\"hwm\":", std::to_string(options_.queue_messages_max),
                      ",\"max_queue_size\":", std::to_string(options_.queue_messages_max),
                      ",\"topic\":");
  base::AppendJsonString(&out, topic_);
  return out + "}}";
}

}  // namespace llmd::sim
