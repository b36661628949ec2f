#include "director/explain.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <type_traits>
#include <utility>

#include "base/strings.h"
#include "director/session.h"
#include "plugin/keys.h"

namespace llmd::director {
namespace {

// Appends JSON; commas come by themselves.
class Writer {
 public:
  void Key(std::string_view key) {
    Comma();
    base::AppendJsonString(&out_, key);
    out_ += ':';
    after_key_ = true;
  }
  void Open(char bracket) {
    Comma();
    out_ += bracket;
    first_ = true;
  }
  void Close(char bracket) {
    out_ += bracket;
    first_ = false;
  }
  void Text(std::string_view text) {
    Comma();
    base::AppendJsonString(&out_, text);
  }
  template <class T>
  void Number(T value) {
    Comma();
    if constexpr (std::is_floating_point_v<T>) {
      if (!std::isfinite(value)) {  // a model server may report anything; JSON has no word for it
        out_ += "null";
        return;
      }
    }
    char digits[32];
    const auto end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
    out_.append(digits, end);
  }
  template <class T>
  void Field(std::string_view key, T value) {
    Key(key);
    if constexpr (std::is_arithmetic_v<T>) {
      Number(value);
    } else {
      Text(value);
    }
  }
  std::string Take() { return std::move(out_); }

 private:
  void Comma() {
    if (!first_ && !after_key_) out_ += ',';
    first_ = after_key_ = false;
  }
  std::string out_;
  bool first_ = true;
  bool after_key_ = false;
};

std::string EndpointLabel(fleet::EndpointNumber number, uint32_t owner,
                          const fleet::Members& members) {
  if (number < members.by_number.size() && members.by_number[number] &&
      static_cast<uint32_t>(members.by_number[number]->generation) == owner) {
    const fleet::Endpoint& e = *members.by_number[number];
    return base::Concat(e.spec.name_space, "/", e.spec.name, " ", e.host_port);
  }
  return base::Concat("#", std::to_string(number), " (left)");
}

std::string ScorerLabel(const DecisionRecord& r, size_t i, const Generation& generation) {
  const uint32_t plugin = r.scorer_plugins[i];
  if (r.generation == generation.number() && plugin < generation.plugins().size()) {
    return generation.plugins()[plugin].object->name();
  }
  return base::Concat("plugin ", std::to_string(plugin), " of generation ",
                      std::to_string(r.generation));
}

std::string_view TerminationName(uint8_t termination) {
  switch (static_cast<Termination>(termination)) {
    case Termination::kNatural: return "natural";
    case Termination::kClientDisconnect: return "client-disconnect";
    case Termination::kEvicted: return "evicted";
    case Termination::kError: return "error";
  }
  return "";
}

std::string Hex(uint64_t value) {
  char digits[17] = {};
  std::to_chars(digits, digits + 16, value, 16);
  return digits;
}

void WriteCandidate(const DecisionRecord& r, const RecordCandidate& c, const Generation& generation,
                    const fleet::Members& members, Writer& w) {
  w.Open('{');
  w.Field("endpoint", std::string_view(EndpointLabel(c.endpoint, c.endpoint_generation, members)));
  w.Field("score", c.score);
  w.Key("scores");
  w.Open('{');
  for (size_t i = 0; i < std::min<size_t>(r.scorer_count, kRecordScorersMax); ++i) {
    w.Field(ScorerLabel(r, i, generation), c.scores[i]);
  }
  w.Close('}');
  w.Field("waiting", c.waiting);
  w.Field("running", c.running);
  w.Field("kv_usage", c.kv_usage);
  w.Field("in_flight", c.in_flight);
  if (c.load_age_ms >= 0) w.Field("load_age_ms", c.load_age_ms);
  w.Field("matched_blocks", c.matched_blocks);
  w.Close('}');
}

void WriteRecord(const DecisionRecord& r, const Generation& generation,
                 const fleet::Members& members, Writer& w) {
  w.Open('{');
  w.Field("request_id", std::string_view(r.request_id));
  w.Field("received_unix_ms", r.received_unix_ns / 1'000'000);
  w.Field("model", std::string_view(r.model));
  w.Field("generation", r.generation);
  w.Field("fleet_version", r.fleet_version);
  w.Field("priority", r.priority);
  w.Field("body_bytes", r.body_bytes);
  w.Field("prompt_tokens_estimated", r.prompt_tokens_estimated);
  w.Field("total_blocks", r.total_blocks);
  w.Field("match_source",
          plugin::MatchSourceName(static_cast<plugin::MatchSource>(r.match_source)));
  if (r.prefix_hash != 0) w.Field("prefix_hash", std::string_view(Hex(r.prefix_hash)));
  w.Field("decision_us", static_cast<double>(r.decision_ns) / 1000);
  w.Field("fleet", r.fleet_count);
  w.Field("candidates_after_filters", r.candidate_count);
  w.Key("candidates");
  w.Open('[');
  for (size_t i = 0; i < std::min<size_t>(r.shown, kRecordCandidatesMax); ++i) {
    WriteCandidate(r, r.candidates[i], generation, members, w);
  }
  w.Close(']');
  w.Key("outcome");
  w.Open('{');
  if (r.endpoint != fleet::kNoEndpoint) {
    w.Field("endpoint",
            std::string_view(EndpointLabel(r.endpoint, r.endpoint_generation, members)));
  }
  w.Field("attempts", static_cast<uint32_t>(r.attempts));
  w.Field("http_status", r.http_status);
  w.Field("termination", TerminationName(r.termination));
  w.Field("ttft_ms", static_cast<double>(r.ttft_us) / 1000);
  w.Field("duration_ms", static_cast<double>(r.duration_us) / 1000);
  w.Field("prompt_tokens", r.prompt_tokens);
  w.Field("output_tokens", r.output_tokens);
  w.Field("cached_tokens", r.cached_tokens);
  w.Close('}');
  w.Close('}');
}

}  // namespace

std::string ExplainRecords(std::span<const DecisionRecord> records, const Generation& generation,
                           const fleet::Members& members) {
  Writer w;
  w.Open('{');
  w.Key("decisions");
  w.Open('[');
  for (const DecisionRecord& r : records) WriteRecord(r, generation, members, w);
  w.Close(']');
  w.Close('}');
  return w.Take() + "\n";
}

}  // namespace llmd::director
