#include "sim/reply.h"

#include <charconv>
#include <utility>

#include "base/strings.h"

namespace llmd::sim {
namespace {

template <class... Pieces>
void Add(std::string* out, const Pieces&... pieces) {
  (out->append(std::string_view(pieces)), ...);
}

void AppendTokensOrNull(bool wanted, std::span<const engine::Token> tokens, std::string* out) {
  if (wanted) {
    AppendTokenList(tokens, out);
  } else {
    out->append("null");
  }
}

void AppendTextOrNull(std::string_view text, std::string* out) {
  if (text.empty()) {
    out->append("null");
  } else {
    base::AppendJsonString(out, text);
  }
}

void AppendCounts(const Usage& usage, std::string* out) {
  Add(out, "\"usage\":{\"prompt_tokens\":");
  AppendNumber(usage.prompt_tokens, out);
  Add(out, ",\"total_tokens\":");
  AppendNumber(usage.prompt_tokens + usage.completion_tokens, out);
  Add(out, ",\"completion_tokens\":");
  AppendNumber(usage.completion_tokens, out);
}

void AppendCached(const Usage& usage, std::string* out) {
  Add(out, ",\"prompt_tokens_details\":{\"cached_tokens\":");
  AppendNumber(usage.cached_tokens, out);
}

void AppendChoice(const ReplyHead& head, const ReplyChoice& choice, std::string* out) {
  Add(out, "{\"index\":");
  AppendNumber(choice.index, out);
  if (head.chat) {
    Add(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
    base::AppendJsonString(out, choice.text);
    Add(out, ",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,"
             "\"reasoning\":null}");
  } else {
    Add(out, ",\"text\":");
    base::AppendJsonString(out, choice.text);
  }
  Add(out, ",\"logprobs\":null,\"finish_reason\":");
  AppendTextOrNull(choice.end.reason, out);
  Add(out, ",\"stop_reason\":");
  AppendTextOrNull(choice.end.stop_string, out);
  Add(out, ",\"token_ids\":");
  AppendTokensOrNull(head.token_ids, choice.token_ids, out);
  if (!head.chat) {
    Add(out, ",\"prompt_logprobs\":null,\"prompt_token_ids\":");
    AppendTokensOrNull(head.token_ids, choice.prompt_token_ids, out);
  }
  Add(out, ",\"routed_experts\":null}");
}

void AppendHead(const ReplyHead& head, std::string_view object, std::string* out) {
  Add(out, "{\"id\":");
  base::AppendJsonString(out, head.id);
  Add(out, ",\"object\":\"", object, "\",\"created\":");
  AppendNumber(static_cast<uint64_t>(head.created), out);
  Add(out, ",\"model\":");
  base::AppendJsonString(out, head.model);
  Add(out, ",\"choices\":[");
}

}  // namespace

void AppendNumber(uint64_t number, std::string* out) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  out->append(digits, end);
}

void AppendTokenList(std::span<const engine::Token> tokens, std::string* out) {
  out->push_back('[');
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out->push_back(',');
    AppendNumber(tokens[i], out);
  }
  out->push_back(']');
}

void AppendReply(const ReplyHead& head, std::span<const ReplyChoice> choices, const Usage& usage,
                 std::string* out) {
  AppendHead(head, head.chat ? "chat.completion" : "text_completion", out);
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out->push_back(',');
    AppendChoice(head, choices[i], out);
  }
  Add(out, "],\"service_tier\":null,\"system_fingerprint\":");
  base::AppendJsonString(out, head.fingerprint);
  Add(out, ",");
  AppendCounts(usage, out);
  AppendCached(usage, out);
  Add(out, ",\"created_cache_tokens\":");
  if (head.chat) {
    AppendNumber(usage.created_cache_tokens, out);
  } else {
    Add(out, "null");
  }
  Add(out, ",\"multimodal_tokens\":null},\"completion_tokens_details\":null}");
  if (head.chat) {
    Add(out, ",\"prompt_logprobs\":null,\"prompt_token_ids\":");
    AppendTokensOrNull(head.token_ids && !choices.empty(),
                       choices.empty() ? std::span<const engine::Token>{}
                                       : choices[0].prompt_token_ids, out);
    Add(out, ",\"prompt_text\":null");
  }
  Add(out, ",\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}");
}

StreamWriter::StreamWriter(ReplyHead head) : head_(std::move(head)), begin_("data: ") {
  AppendHead(head_, head_.chat ? "chat.completion.chunk" : "text_completion", &begin_);
}

void StreamWriter::AppendRole(uint32_t index, std::span<const engine::Token> prompt_token_ids,
                              const Usage& usage, std::string* out) const {
  Add(out, begin_, "{\"index\":");
  AppendNumber(index, out);
  Add(out, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
           "\"finish_reason\":null}]");
  AppendEveryUsage(usage, out);
  Add(out, ",\"prompt_token_ids\":");
  AppendTokensOrNull(head_.token_ids, prompt_token_ids, out);
  Add(out, ",\"prompt_text\":null}\n\n");
}

void StreamWriter::AppendDelta(const Delta& delta, const Usage& usage, std::string* out) const {
  Add(out, begin_, "{\"index\":");
  AppendNumber(delta.index, out);
  if (head_.chat) {
    Add(out, ",\"delta\":{\"content\":\"", delta.json_text, "\"},\"logprobs\":null,");
  } else {
    Add(out, ",\"text\":\"", delta.json_text, "\",\"logprobs\":null,");
  }
  if (delta.end.reason.empty()) {
    Add(out, "\"finish_reason\":null");
  } else {
    Add(out, "\"finish_reason\":\"", delta.end.reason, "\"");
  }
  if (!head_.chat || !delta.end.reason.empty()) {
    Add(out, ",\"stop_reason\":");
    AppendTextOrNull(delta.end.stop_string, out);
  }
  if (!head_.chat) {
    Add(out, ",\"prompt_token_ids\":");
    AppendTokensOrNull(head_.token_ids && delta.first, delta.prompt_token_ids, out);
  }
  Add(out, ",\"token_ids\":");
  AppendTokensOrNull(head_.token_ids, {&delta.token, 1}, out);
  Add(out, "}]");
  AppendEveryUsage(usage, out);
  Add(out, "}\n\n");
}

void StreamWriter::AppendEveryUsage(const Usage& usage, std::string* out) const {
  if (!head_.every_usage) return;
  Add(out, ",");
  AppendCounts(usage, out);
  Add(out, ",\"completion_tokens_details\":null}");
}

void StreamWriter::AppendUsage(const Usage& usage, std::string* out) const {
  Add(out, begin_, "],");
  AppendCounts(usage, out);
  AppendCached(usage, out);
  if (head_.chat) {
    Add(out, ",\"created_cache_tokens\":");
    AppendNumber(usage.created_cache_tokens, out);
  }
  Add(out, "}},\"system_fingerprint\":");
  base::AppendJsonString(out, head_.fingerprint);
  Add(out, "}\n\n");
}

void StreamWriter::AppendDone(std::string* out) { out->append("data: [DONE]\n\n"); }

void AppendError(const ApiError& error, std::string* out) {
  Add(out, "{\"error\":{\"message\":");
  base::AppendJsonString(out, error.message);
  Add(out, ",\"type\":");
  base::AppendJsonString(out, error.type);
  Add(out, ",\"param\":");
  AppendTextOrNull(error.param, out);
  Add(out, ",\"code\":");
  AppendNumber(static_cast<uint64_t>(error.status), out);
  Add(out, "}}");
}

}  // namespace llmd::sim
