#include "sim/render.h"

#include <charconv>

#include "base/strings.h"
#include "sim/reply.h"

namespace llmd::sim {
namespace {

// As Python shows a float: the shortest form, never without a fraction.
void AppendFloat(double number, std::string* out) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  const std::string_view text(digits, static_cast<size_t>(end - digits));
  out->append(text);
  if (text.find_first_of(".en") == text.npos) out->append(".0");
}

void AppendSampling(const SimRequest& request, std::string* out) {
  out->append("{");
  if (request.n != 1) {
    out->append("\"n\":");
    AppendNumber(request.n, out);
    out->append(",");
  }
  struct Row {
    std::string_view name;
    double value;
  };
  const Row rows[] = {{"presence_penalty", request.presence_penalty.value_or(0)},
                      {"frequency_penalty", request.frequency_penalty.value_or(0)},
                      {"repetition_penalty", 1},
                      {"temperature", request.temperature.value_or(1)},
                      {"top_p", request.top_p.value_or(1)},
                      {"min_p", 0}};
  for (const Row& row : rows) {
    out->append("\"").append(row.name).append("\":");
    AppendFloat(row.value, out);
    out->append(",");
  }
  if (request.seed) out->append("\"seed\":").append(std::to_string(*request.seed)).append(",");
  out->append("\"stop\":[");
  for (size_t i = 0; i < request.stops.size(); ++i) {
    if (i > 0) out->append(",");
    base::AppendJsonString(out, request.stops[i]);
  }
  out->append("],\"stop_token_ids\":[],");
  if (request.ignore_eos) out->append("\"ignore_eos\":true,");
  if (request.max_tokens) {
    out->append("\"max_tokens\":").append(std::to_string(*request.max_tokens)).append(",");
  }
  out->append("\"output_kind\":2,\"skip_clone\":true,\"bad_words\":[],"
              "\"skip_reading_prefix_cache\":false}");
}

}  // namespace

void AppendRendered(const SimRequest& request, size_t index, std::string_view id,
                    std::string_view model, std::string* out) {
  out->append("{\"request_id\":");
  base::AppendJsonString(out, id);
  out->append(",\"token_ids\":");
  AppendTokenList(request.prompts[index].tokens, out);
  out->append(",\"token_offsets\":null,\"features\":null,\"content_parts\":null,"
              "\"sampling_params\":");
  AppendSampling(request, out);
  out->append(",\"model\":");
  base::AppendJsonString(out, model);
  out->append(",\"reasoning_ended\":null,\"reasoning_parser_kwargs\":null,"
              "\"return_token_ids\":");
  out->append(request.return_token_ids ? "true" : "null");
  out->append(",\"output_mode\":\"tokens\",\"stream\":");
  out->append(request.stream ? "true" : "false");
  out->append(",\"stream_options\":");
  if (request.include_usage || request.continuous_usage) {
    out->append("{\"include_usage\":").append(request.include_usage ? "true" : "false");
    out->append(",\"continuous_usage_stats\":");
    out->append(request.continuous_usage ? "true}" : "false}");
  } else {
    out->append("null");
  }
  out->append(",\"cache_salt\":");
  if (request.cache_salt.empty()) {
    out->append("null");
  } else {
    base::AppendJsonString(out, request.cache_salt);
  }
  out->append(",\"priority\":0,\"kv_transfer_params\":null,\"ec_transfer_params\":null}");
}

}  // namespace llmd::sim
