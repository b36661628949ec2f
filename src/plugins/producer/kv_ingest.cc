#include "plugins/producer/kv_ingest.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/strings.h"

namespace llmd::plugins {
namespace {

plugin::EventSubscription SubscriptionOf(const PreciseParameters::Events& p) {
  plugin::EventSubscription subscription{
      .bind = p.zmq_endpoint,
      .allowed_addresses = p.allowed_addresses,
      .curve_secret_key_file = p.curve_secret_key_file,
      .curve_client_key_files = p.curve_client_key_files,
      .curve_server_key_file = p.curve_server_key_file};
  if (!p.topic_filter.empty()) subscription.topics.push_back(p.topic_filter);
  return subscription;
}

prefix::KvMessage MessageOf(const plugin::EventMessage& m) {
  return {.topic = m.topic, .sequence = m.sequence, .payload = m.payload};
}

// The label's port, else `first` plus the rank; 0: none.
uint16_t PortOf(const fleet::EndpointSpec& spec, std::string_view label, uint16_t first,
                uint32_t rank) {
  if (const std::string* text = spec.Label(label)) {
    const auto port = base::ParseInt(*text);
    return port && *port > 0 && *port <= 65535 ? static_cast<uint16_t>(*port) : 0;
  }
  return first == 0 || first + rank > 65535 ? 0 : static_cast<uint16_t>(first + rank);
}

std::string AddressOf(const fleet::EndpointSpec& spec, uint16_t port) {
  if (port == 0) return {};
  return base::Concat("tcp://", fleet::JoinHostPort(spec.address, port));
}

}  // namespace

KvIngest::KvIngest(const PreciseParameters::Events& parameters, const PreciseOptions& options)
    : parameters_(parameters),
      subscription_(SubscriptionOf(parameters)),
      connects_(parameters.zmq_endpoint.empty() && parameters.discover_pods),
      store_address_(options.shared ? options.shared->address : ""),
      shared_(options.shared ? std::make_unique<SharedIndexWriter>(options.feed.apply.tiers)
                             : nullptr),
      index_(options.index),
      feed_(FeedOptions(options, shared_.get()), &index_),
      snapshot_header_(HeaderOf(options)) {
  if (shared_) shared_->Begin(&feed_);
}

prefix::KvFeedOptions KvIngest::FeedOptions(const PreciseOptions& options,
                                            SharedIndexWriter* sink) {
  prefix::KvFeedOptions feed = options.feed;
  feed.apply.sink = sink;
  return feed;
}

void KvIngest::OnStoreConnected() {
  if (shared_) shared_->mirror().OnConnected();
}

void KvIngest::OnStoreEnd(const base::Status& status) {
  if (shared_) shared_->mirror().OnEnd(status);
}

std::optional<plugin::EventReplay> KvIngest::ReplayOf(const prefix::KvAction& action) {
  if (action.type != prefix::KvAction::Type::kReplay) return std::nullopt;
  return plugin::EventReplay{
      .publisher = action.publisher, .replay = action.replay, .from = action.from};
}

std::vector<plugin::EventPublisher> KvIngest::OnMembers(const fleet::Members& members,
                                                        base::TimePoint now) {
  RankMembers(members);
  std::vector<plugin::EventPublisher> publishers;
  const auto& discovery = parameters_.discovery;
  for (const fleet::EndpointNumber n : members.numbers) {
    const fleet::Endpoint& endpoint = *members.by_number[n];
    const uint32_t rank = members_.at(endpoint.host_port).rank;
    plugin::EventPublisher publisher{.label = endpoint.host_port};
    if (connects_) {
      publisher.events = AddressOf(
          endpoint.spec, PortOf(endpoint.spec, kKvEventsPortLabel, discovery.socket_port, rank));
    }
    publisher.replay =
        AddressOf(endpoint.spec, PortOf(endpoint.spec, kKvReplayPortLabel,
                                        discovery.replay_socket_port, rank));
    if (publisher.events.empty() && publisher.replay.empty()) continue;
    const uint32_t own_rank = connects_ ? rank : 0;
    auto id = feed_.Find(endpoint.host_port, own_rank);
    if (!id) {
      const auto added = feed_.AddPublisher({.address = endpoint.host_port,
                                             .rank = own_rank,
                                             .model = parameters_.model_name,
                                             .can_replay = !publisher.replay.empty()},
                                            now);
      if (!added) continue;  // at the limit; the endpoint is scored by what was sent there
      id = *added;
    } else if (!publisher.replay.empty()) {
      feed_.OfferReplay(*id);
    }
    publisher.id = *id;
    publishers.push_back(std::move(publisher));
  }
  MakeReport(now);
  return publishers;
}

// Forgets who left. A member keeps its rank as long as it is one, whoever else leaves its address.
void KvIngest::RankMembers(const fleet::Members& members) {
  std::vector<const fleet::Endpoint*> endpoints;
  std::set<std::string_view> here;
  for (const fleet::EndpointNumber n : members.numbers) {
    endpoints.push_back(members.by_number[n].get());
    here.insert(endpoints.back()->host_port);
  }
  std::map<std::string_view, std::set<uint32_t>> taken;  // by address
  for (auto it = members_.begin(); it != members_.end();) {
    if (here.contains(it->first)) {
      taken[it->second.address].insert(it->second.rank);
      ++it;
    } else {
      feed_.RemoveEndpoint(it->first);
      it = members_.erase(it);
    }
  }
  std::ranges::sort(endpoints, {}, [](const auto* e) { return e->spec.port; });
  for (const fleet::Endpoint* endpoint : endpoints) {
    if (members_.contains(endpoint->host_port)) continue;
    std::set<uint32_t>& ranks = taken[endpoint->spec.address];
    uint32_t rank = 0;
    while (ranks.contains(rank)) ++rank;
    ranks.insert(rank);
    members_[endpoint->host_port] = {endpoint->spec.address, rank};
  }
}

std::optional<plugin::EventReplay> KvIngest::OnEvent(std::optional<uint32_t> publisher,
                                                     const plugin::EventMessage& message,
                                                     base::TimePoint now) {
  return ReplayOf(publisher ? feed_.OnMessage(static_cast<prefix::PublisherId>(*publisher),
                                              MessageOf(message), now)
                            : feed_.OnTopicMessage(MessageOf(message), now));
}

void KvIngest::OnConnection(uint32_t publisher, bool up, base::TimePoint now) {
  feed_.OnConnection(static_cast<prefix::PublisherId>(publisher), up, now);
}

std::optional<plugin::EventReplay> KvIngest::OnReplayed(const plugin::EventReplay& of,
                                                        const plugin::EventMessage& message,
                                                        base::TimePoint now) {
  return ReplayOf(feed_.OnReplayMessage(static_cast<prefix::PublisherId>(of.publisher), of.replay,
                                        MessageOf(message), now));
}

std::optional<plugin::EventReplay> KvIngest::OnReplayEnd(const plugin::EventReplay& of,
                                                         bool complete, base::TimePoint now) {
  return ReplayOf(feed_.OnReplayEnd(
      static_cast<prefix::PublisherId>(of.publisher), of.replay,
      complete ? prefix::KvReplayEnd::kComplete : prefix::KvReplayEnd::kFailed, now));
}

std::optional<plugin::EventReplay> KvIngest::OnTick(base::TimePoint now) {
  if (now - reported_at_ >= kReportInterval) {
    MakeReport(now);
    OnReport();
  }
  if (!restored_.empty() && now >= restored_until_) ForgetRestored();
  return ReplayOf(feed_.Poll(now));
}

void KvIngest::MakeReport(base::TimePoint now) {
  reported_at_ = now;
  auto report = std::make_shared<Report>();
  report->feed = feed_.stats();
  report->index = index_.stats();
  if (shared_) {
    report->shared = shared_->mirror().stats();
    report->shared_error = shared_->mirror().error();
  }
  const std::shared_ptr<const prefix::KvHolders> holders = feed_.holders().Current();
  if (holders) {
    for (size_t i = 0; i < holders->size(); ++i) {
      const prefix::KvHolder& holder = (*holders)[i];
      if (holder.address.empty()) continue;
      const auto id = static_cast<prefix::PublisherId>(i);
      report->publishers.push_back({.address = holder.address,
                                    .rank = holder.rank,
                                    .stats = feed_.publisher_stats(id, now),
                                    .confidence = feed_.confidence(id),
                                    .blocks = index_.blocks(id)});
    }
  }
  report_.Publish(std::move(report));
}

std::string KvIngest::DumpPublishers() const {
  const std::shared_ptr<const Report> report = report_.Current();
  std::string out = "[";
  if (report) {
    for (const Report::Publisher& p : report->publishers) {
      if (out.size() > 1) out += ",";
      out += "{\"endpoint\":";
      base::AppendJsonString(&out, p.address);
      char text[320];
      std::snprintf(text, sizeof(text),
                    ",\"rank\":%u,\"state\":\"%s\",\"applied\":%llu,\"age_s\":%.3f,"
                    "\"confidence\":%.3f,\"blocks\":%llu,\"messages\":%llu,\"held\":%llu,"
                    "\"parked\":%llu,\"unknown_share\":%.3f}",
                    p.rank,
                    p.stats.replaying  ? "replaying"
                    : p.stats.complete ? "complete"
                    : p.stats.applied  ? "cold"
                                       : "silent",
                    static_cast<unsigned long long>(p.stats.applied), base::ToSeconds(p.stats.age),
                    static_cast<double>(p.confidence), static_cast<unsigned long long>(p.blocks),
                    static_cast<unsigned long long>(p.stats.messages),
                    static_cast<unsigned long long>(p.stats.held),
                    static_cast<unsigned long long>(p.stats.parked), p.stats.unknown_share);
      out += text;
    }
  }
  return out + "]";
}

}  // namespace llmd::plugins
