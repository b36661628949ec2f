// SessionAffinity: which endpoint a conversation is bound to; what session-affinity-filter and
// session-affinity-scorer share.
//
// Two strategies (llm-d-router, pkg/epp/framework/plugins/scheduling/util/sessionaffinity):
//   encoded_endpoint_header  the reply carries base64("namespace/name") of the endpoint in a
//                            header, the client sends it back. No state here.
//   session_id               the client names its session, in a header or in an attribute that
//                            another plugin left; the binding is kept here. It begins with the
//                            first request, lives evictionTtlSeconds after the last one, and moves
//                            only when the bound endpoint was not a candidate.
//
// Thread-safe. Limits: kSessionsMax bindings; beyond, the binding that a shard would drop next
// makes room (the oldest of a few looked at).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "config/schema.h"
#include "plugin/catalogue.h"
#include "plugin/keys.h"

namespace llmd::plugins {

struct SessionAffinityParameters {
  enum class Strategy { kEncodedEndpointHeader, kSessionId };
  struct EncodedHeader {
    std::string header = "x-session-token";
  };
  struct Source {
    config::Node where;
    std::string header, attribute, producer;
  };
  struct SessionIds {
    std::vector<Source> sources;
    double eviction_ttl_seconds = 300;
    double eviction_sweep_seconds = 10;
  };
  Strategy strategy = Strategy::kEncodedEndpointHeader;
  EncodedHeader encoded_header;
  SessionIds session_ids;
  std::string profile_name;  // whose endpoint counts; "" = the primary profile's
};
const config::ObjectType<SessionAffinityParameters>& SessionAffinityParametersType();

class SessionAffinity {
 public:
  // A site has some ten thousand conversations at a time; a million cost about 150 MB.
  static constexpr size_t kSessionsMax = 1'000'000;

  SessionAffinity(const SessionAffinityParameters& parameters, plugin::PluginContext& context);

  // Index in `candidates` of the endpoint that the request's session is bound to.
  std::optional<size_t> Bound(const plugin::RequestContext& request,
                              std::span<const plugin::EndpointNumber> candidates) const;
  void OnRouted(plugin::RequestContext& request, const plugin::SchedulingResult& result);
  void OnResponseHead(plugin::RequestContext& request, plugin::HeaderEdits* to_client) const;
  size_t session_count() const;

 private:
  struct Binding {
    std::string endpoint;  // "namespace/name"
    base::TimePoint last_used;
  };
  struct Shard {
    std::mutex mutex;
    std::unordered_map<std::string, Binding> bindings;
    base::TimePoint swept_at{};
  };
  struct Source {
    std::string header;
    plugin::Slot<plugin::AgentIdentity> agent;
    plugin::Slot<plugin::SessionId> session;
  };
  // Whom the reply's header names; lives in the request's arena.
  struct Target {
    static constexpr std::string_view kKey = "SessionAffinityTarget";
    std::string_view endpoint;
  };
  static constexpr size_t kShards = 16;

  std::string_view SessionOf(const plugin::RequestContext& request) const;
  Shard& ShardOf(std::string_view session) const;
  void Bind(std::string_view session, const plugin::RequestContext& request,
            const plugin::ProfileResult& profile);
  void Sweep(Shard& shard, base::TimePoint now) const;

  const SessionAffinityParameters::Strategy strategy_;
  const std::string header_;
  const std::string profile_name_;
  const base::Duration ttl_, sweep_interval_;
  std::vector<Source> sources_;
  plugin::Slot<Target> target_;
  std::unique_ptr<std::array<Shard, kShards>> shards_;
};

// What a plugin that goes by sessions does beside using them: it learns and tells where they are.
class SessionAffinityPlugin : public plugin::Plugin,
                              public plugin::PreRequest,
                              public plugin::ResponseProcessor {
 public:
  SessionAffinityPlugin(const SessionAffinityParameters& parameters,
                        plugin::PluginContext& context)
      : affinity_(parameters, context) {}
  base::Status OnRouted(plugin::RequestContext& request, const plugin::SchedulingResult& result,
                        plugin::BookingList*) override {
    affinity_.OnRouted(request, result);
    return base::OkStatus();
  }
  void OnResponseHead(plugin::RequestContext& request, const plugin::ResponseHead&,
                      plugin::HeaderEdits* to_client) override {
    affinity_.OnResponseHead(request, to_client);
  }
  std::string DumpState() const override;

 protected:
  const SessionAffinity& affinity() const { return affinity_; }

 private:
  SessionAffinity affinity_;
};

}  // namespace llmd::plugins
