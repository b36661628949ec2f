#include "plugins/session/session_affinity.h"

#include <algorithm>

#include "base/base64.h"
#include "base/hash.h"
#include "base/strings.h"

namespace llmd::plugins {
namespace {

using Parameters = SessionAffinityParameters;

constexpr std::string_view kDefaultSessionHeader = "x-session-id";

// A header so long names no session: it would only fill the memory.
constexpr size_t kSessionBytesMax = 512;

config::TypePtr<Parameters::EncodedHeader> EncodedHeaderType() {
  return config::Object<Parameters::EncodedHeader>("EncodedEndpointHeaderConfig")
      .Field("header", "Header of requests and replies that carries the endpoint.",
             &Parameters::EncodedHeader::header)
      .Build();
}

config::TypePtr<Parameters::SessionIds> SessionIdsType() {
  const auto source =
      config::Object<Parameters::Source>("SessionIdSource")
          .Field("header", "Request header.", &Parameters::Source::header)
          .Field("attribute", "Attribute of a plugin: agent-identity or SessionIDDataKey.",
                 &Parameters::Source::attribute)
          .Field("producer", "Name of the plugin that leaves the attribute.",
                 &Parameters::Source::producer)
          .Where(&Parameters::Source::where)
          .Build();
  return config::Object<Parameters::SessionIds>("SessionIdConfig")
      .Field("sources", "Where the session's name is looked for, in this order.",
             &Parameters::SessionIds::sources, config::List<Parameters::Source>(source))
      .Field("evictionTtlSeconds", "How long an unused binding lives.",
             &Parameters::SessionIds::eviction_ttl_seconds, config::Double(0))
      .Field("evictionSweepSeconds", "How often expired ones are removed.",
             &Parameters::SessionIds::eviction_sweep_seconds, config::Double(0))
      .Build();
}

base::Duration Seconds(double seconds, double fallback) {
  return std::chrono::duration_cast<base::Duration>(
      std::chrono::duration<double>(seconds > 0 ? seconds : fallback));
}

bool IsNamed(const fleet::EndpointSpec& spec, std::string_view name) {
  return name.size() == spec.name_space.size() + 1 + spec.name.size() &&
         name.starts_with(spec.name_space) && name[spec.name_space.size()] == '/' &&
         name.ends_with(spec.name);
}

std::optional<size_t> IndexOf(const plugin::RequestContext& request,
                              std::span<const plugin::EndpointNumber> candidates,
                              std::string_view name) {
  if (name.empty()) return {};
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (IsNamed(request.fleet->endpoint(candidates[i]).spec, name)) return i;
  }
  return {};
}

// The profile whose endpoint counts, nullptr when it has none.
const plugin::ProfileResult* ProfileOf(const plugin::SchedulingResult& result,
                                       std::string_view name) {
  const plugin::ProfileResult* found = nullptr;
  if (name.empty()) {
    found = &result.profiles[result.primary];
  } else {
    for (const plugin::ProfileResult& profile : result.profiles) {
      if (profile.profile == name) found = &profile;
    }
  }
  return found && !found->endpoints.empty() ? found : nullptr;
}

}  // namespace

const config::ObjectType<Parameters>& SessionAffinityParametersType() {
  static const auto type =
      config::Object<Parameters>("SessionAffinityParameters")
          .Field("strategy", "How a session finds its endpoint again.", &Parameters::strategy,
                 config::Enum<Parameters::Strategy>(
                     {{"encoded_endpoint_header", Parameters::Strategy::kEncodedEndpointHeader},
                      {"session_id", Parameters::Strategy::kSessionId}}))
          .Field("encodedEndpointHeaderConfig", "For encoded_endpoint_header.",
                 &Parameters::encoded_header, EncodedHeaderType())
          .Field("sessionIdConfig", "For session_id.", &Parameters::session_ids, SessionIdsType())
          .Field("profileName", "Profile whose endpoint counts [the primary one].",
                 &Parameters::profile_name)
          .Build();
  return *type;
}

SessionAffinity::SessionAffinity(const Parameters& parameters, plugin::PluginContext& context)
    : strategy_(parameters.strategy),
      header_(base::Trim(parameters.encoded_header.header).empty()
                  ? Parameters::EncodedHeader().header
                  : base::ToLower(base::Trim(parameters.encoded_header.header))),
      profile_name_(parameters.profile_name),
      ttl_(Seconds(parameters.session_ids.eviction_ttl_seconds,
                   Parameters::SessionIds().eviction_ttl_seconds)),
      sweep_interval_(Seconds(parameters.session_ids.eviction_sweep_seconds,
                              Parameters::SessionIds().eviction_sweep_seconds)) {
  if (strategy_ == Parameters::Strategy::kEncodedEndpointHeader) {
    target_ = context.Produces<Target>();
    return;
  }
  shards_ = std::make_unique<std::array<Shard, kShards>>();
  for (const Parameters::Source& source : parameters.session_ids.sources) {
    if (source.header.empty() == source.attribute.empty()) {
      context.errors().Add(source.where, "exactly one of header and attribute must be given");
    } else if (!source.header.empty()) {
      sources_.push_back({.header = std::string(base::Trim(source.header))});
    } else if (source.attribute == plugin::AgentIdentity::kKey) {
      sources_.push_back(
          {.agent = context.Consumes<plugin::AgentIdentity>(source.producer, false)});
    } else if (source.attribute == plugin::SessionId::kKey) {
      sources_.push_back({.session = context.Consumes<plugin::SessionId>(source.producer, false)});
    } else {
      context.errors().Add(source.where.FindOrSelf("attribute"),
                           base::Concat("no plugin leaves an attribute \"", source.attribute,
                                        "\" that names a session; agent-identity and "
                                        "SessionIDDataKey are left"));
    }
  }
  if (parameters.session_ids.sources.empty()) {
    sources_.push_back({.header = std::string(kDefaultSessionHeader)});
  }
}

std::string_view SessionAffinity::SessionOf(const plugin::RequestContext& request) const {
  for (const Source& source : sources_) {
    std::string_view session;
    if (!source.header.empty()) {
      session = request.FindHeader(source.header).value_or("");
    } else if (const auto* agent = request.attributes.Get(source.agent)) {
      session = agent->id;
    } else if (const auto* id = request.attributes.Get(source.session)) {
      session = id->id;
    }
    session = base::Trim(session);
    if (!session.empty() && session.size() <= kSessionBytesMax) return session;
  }
  return {};
}

SessionAffinity::Shard& SessionAffinity::ShardOf(std::string_view session) const {
  return (*shards_)[base::Hash64(session) % kShards];
}

std::optional<size_t> SessionAffinity::Bound(
    const plugin::RequestContext& request,
    std::span<const plugin::EndpointNumber> candidates) const {
  if (strategy_ == Parameters::Strategy::kEncodedEndpointHeader) {
    const auto token = request.FindHeader(header_);
    if (!token || token->size() > kSessionBytesMax) return {};
    const auto name = base::DecodeBase64(*token);
    return name ? IndexOf(request, candidates, *name) : std::nullopt;
  }
  const std::string_view session = SessionOf(request);
  if (session.empty()) return {};
  std::string_view name;
  {
    Shard& shard = ShardOf(session);
    std::lock_guard lock(shard.mutex);
    const auto found = shard.bindings.find(std::string(session));
    if (found == shard.bindings.end() || request.now - found->second.last_used > ttl_) return {};
    name = request.arena->Copy(found->second.endpoint);
  }
  return IndexOf(request, candidates, name);
}

void SessionAffinity::OnRouted(plugin::RequestContext& request,
                               const plugin::SchedulingResult& result) {
  const plugin::ProfileResult* profile = ProfileOf(result, profile_name_);
  if (!profile) return;
  if (strategy_ == Parameters::Strategy::kSessionId) {
    const std::string_view session = SessionOf(request);
    if (!session.empty()) Bind(session, request, *profile);
    return;
  }
  const fleet::EndpointSpec& spec = request.fleet->endpoint(profile->endpoints[0].endpoint).spec;
  auto* target = request.arena->New<Target>();
  target->endpoint = request.arena->Copy(base::Concat(spec.name_space, "/", spec.name));
  request.attributes.Set(target_, target);
}

void SessionAffinity::Bind(std::string_view session, const plugin::RequestContext& request,
                           const plugin::ProfileResult& profile) {
  const fleet::EndpointSpec& spec = request.fleet->endpoint(profile.endpoints[0].endpoint).spec;
  Shard& shard = ShardOf(session);
  std::lock_guard lock(shard.mutex);
  Sweep(shard, request.now);
  auto [at, fresh] = shard.bindings.try_emplace(std::string(session));
  Binding& binding = at->second;
  if (!fresh && !IsNamed(spec, binding.endpoint)) {
    const auto is_bound = [&](const plugin::ScoredCandidate& c) {
      return IsNamed(request.fleet->endpoint(c.endpoint).spec, binding.endpoint);
    };
    if (std::ranges::any_of(profile.scored, is_bound)) return;
  }
  binding.endpoint = base::Concat(spec.name_space, "/", spec.name);
  binding.last_used = request.now;
}

void SessionAffinity::Sweep(Shard& shard, base::TimePoint now) const {
  if (now - shard.swept_at >= sweep_interval_) {
    shard.swept_at = now;
    std::erase_if(shard.bindings, [&](const auto& b) { return now - b.second.last_used > ttl_; });
  }
  if (shard.bindings.size() < kSessionsMax / kShards) return;
  constexpr int kLookedAt = 8;
  auto oldest = shard.bindings.begin();
  auto at = oldest;
  for (int i = 0; i < kLookedAt && at != shard.bindings.end(); ++i, ++at) {
    if (at->second.last_used < oldest->second.last_used) oldest = at;
  }
  shard.bindings.erase(oldest);
}

void SessionAffinity::OnResponseHead(plugin::RequestContext& request,
                                     plugin::HeaderEdits* to_client) const {
  const Target* target = request.attributes.Get(target_);
  if (!target) return;
  to_client->Set(*request.arena, header_, base::EncodeBase64(target->endpoint));
}

size_t SessionAffinity::session_count() const {
  size_t count = 0;
  if (!shards_) return count;
  for (Shard& shard : *shards_) {
    std::lock_guard lock(shard.mutex);
    count += shard.bindings.size();
  }
  return count;
}

std::string SessionAffinityPlugin::DumpState() const {
  return base::Concat("{\"sessions\":", std::to_string(affinity_.session_count()), "}");
}

}  // namespace llmd::plugins
