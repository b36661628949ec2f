#include "index/query.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/strings.h"
#include "wire/protobuf.h"

namespace llmd::index {
namespace {

using nlohmann::json;

base::Status Wrong(std::string_view field, std::string_view wanted) {
  return base::InvalidArgument(base::Concat("\"", field, "\" must be ", wanted));
}

base::Status ReadText(const json& body, const char* field, std::string* out) {
  const auto it = body.find(field);
  if (it == body.end() || it->is_null()) return base::OkStatus();
  if (!it->is_string()) return Wrong(field, "a string");
  *out = it->get<std::string>();
  return base::OkStatus();
}

template <class T>
base::Status ReadNumbers(const json& body, const char* field, std::vector<T>* out) {
  const auto it = body.find(field);
  if (it == body.end()) return Wrong(field, "there");
  if (!it->is_array()) return Wrong(field, "a list of numbers");
  if (it->size() > kTokensMax) {
    return Wrong(field, base::Concat("at most ", std::to_string(kTokensMax), " numbers"));
  }
  out->reserve(it->size());
  for (const json& number : *it) {
    if (!number.is_number_unsigned() || number.get<uint64_t>() > std::numeric_limits<T>::max()) {
      return Wrong(field, base::Concat("a list of numbers from 0 to ",
                                       std::to_string(std::numeric_limits<T>::max())));
    }
    out->push_back(static_cast<T>(number.get<uint64_t>()));
  }
  return base::OkStatus();
}

base::Status ReadInstances(const json& body, std::vector<std::string>* out) {
  const auto it = body.find("instances");
  if (it == body.end() || it->is_null()) return base::OkStatus();
  if (!it->is_array()) return Wrong("instances", "a list of \"ip:port\"");
  for (const json& instance : *it) {
    if (!instance.is_string()) return Wrong("instances", "a list of \"ip:port\"");
    out->push_back(instance.get<std::string>());
  }
  return base::OkStatus();
}

base::Status ReadPrompt(const json& body, Query* out) {
  if (body.contains("prompt") == body.contains("token_ids")) {
    return base::InvalidArgument("give either \"token_ids\" or \"prompt\"");
  }
  if (body.contains("token_ids")) return ReadNumbers(body, "token_ids", &out->tokens);
  out->form = Query::Form::kPrompt;
  return ReadText(body, "prompt", &out->prompt);
}

base::Status ReadModel(const json& body, Query* out) {
  std::string adapter;
  LLMD_RETURN_IF_ERROR(ReadText(body, "model", &out->model));
  LLMD_RETURN_IF_ERROR(ReadText(body, "lora_name", &adapter));
  if (!adapter.empty()) out->model = adapter;
  if (out->model.empty()) return Wrong("model", "the name of a model");
  return ReadText(body, "cache_salt", &out->cache_salt);
}

bool IsAsked(const Query& query, const std::string& address) {
  const auto& asked = query.instances;
  return asked.empty() || std::ranges::find(asked, address) != asked.end();
}

}  // namespace

base::Result<Query> ParseQuery(std::string_view text, bool by_hash) {
  const json body = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!body.is_object()) return std::unexpected(base::InvalidArgument("not a JSON object"));
  Query query;
  if (by_hash) {
    query.form = Query::Form::kKeys;
    LLMD_RETURN_IF_ERROR(ReadNumbers(body, "block_keys", &query.keys));
  } else {
    LLMD_RETURN_IF_ERROR(ReadModel(body, &query));
    LLMD_RETURN_IF_ERROR(ReadPrompt(body, &query));
  }
  LLMD_RETURN_IF_ERROR(ReadInstances(body, &query.instances));
  return query;
}

base::Result<Query> ParsePodScoresRequest(std::string_view message) {
  Query query;
  query.form = Query::Form::kPrompt;
  wire::ProtoReader in(message);
  for (wire::ProtoField f; in.Next(&f);) {
    if (f.number < 1 || f.number > 3 || !in.Expect(f, wire::ProtoWire::kBytes)) continue;
    if (f.number == 1) query.prompt = f.bytes;
    if (f.number == 2) query.model = f.bytes;
    if (f.number == 3) query.instances.emplace_back(f.bytes);
  }
  if (in.error() != wire::ProtoError::kNone) {
    return std::unexpected(wire::ProtoStatus(in.error(), "GetPodScoresRequest"));
  }
  if (query.model.empty()) return std::unexpected(Wrong("model_name", "the name of a model"));
  return query;
}

std::vector<Instance> InstancesOf(std::vector<plugin::PrefixHolding> holdings,
                                  const Query& query) {
  std::ranges::sort(holdings, [](const auto& a, const auto& b) {
    return std::tie(a.address, a.rank) < std::tie(b.address, b.rank);
  });
  std::vector<Instance> instances;
  for (plugin::PrefixHolding& h : holdings) {
    if (!IsAsked(query, h.address)) continue;
    if (instances.empty() || instances.back().address != h.address) {
      instances.push_back({.address = std::move(h.address)});
    }
    Instance& instance = instances.back();
    instance.ranks.emplace_back(h.rank, h.blocks);
    if (instance.ranks.size() > 1 && h.score <= instance.score) continue;
    instance.blocks = h.blocks;
    instance.score = h.score;
    instance.confidence = h.confidence;
  }
  return instances;
}

std::string AnswerJson(const std::vector<Instance>& instances, uint64_t blocks,
                       uint32_t block_tokens) {
  json answer = {{"block_size", block_tokens}, {"blocks", blocks}, {"instances", json::object()}};
  for (const Instance& instance : instances) {
    json ranks = json::object();
    for (const auto& [rank, held] : instance.ranks) {
      ranks[std::to_string(rank)] = uint64_t{held} * block_tokens;
    }
    answer["instances"][instance.address] = {
        {"longest_matched", uint64_t{instance.blocks} * block_tokens},
        {"blocks", instance.blocks},
        {"score", instance.score},
        {"confidence", instance.confidence},
        {"ranks", std::move(ranks)}};
  }
  return answer.dump();
}

base::Slice PodScoresResponse(const std::vector<Instance>& instances, base::BufferPool* pool) {
  wire::ProtoWriter out(pool);
  for (auto it = instances.rbegin(); it != instances.rend(); ++it) {
    if (it->blocks == 0) continue;
    const size_t mark = out.size();
    out.Double(2, it->score);
    out.Bytes(1, it->address);
    out.Wrap(1, mark);
  }
  return out.Take();
}

}  // namespace llmd::index
