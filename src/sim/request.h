// The body of a completion or tokenize request, read and checked as vLLM does.
//
// Limits: the caller bounds the body; kPromptsMax prompts. Errors carry vLLM's status, type,
// message and parameter. Pure; a RequestReader is reused for one request after the other and
// belongs to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/block_hash.h"

namespace llmd::sim {

enum class Route : uint8_t { kChat, kCompletions, kTokenize };

struct ApiError {
  int status = 400;
  std::string type;
  std::string message;
  std::string param;  // empty: null
};

struct Prompt {
  // Empty if only the number is wanted.
  std::vector<engine::Token> tokens;
  size_t token_count = 0;
};

struct SimRequest {
  std::string model;  // empty: not given
  std::vector<Prompt> prompts;
  size_t prompt_count = 0;  // the first so many of `prompts` are this request's
  // For echoes: each prompt's text, or the last message of the user.
  std::vector<std::string> echo;
  uint32_t n = 1;
  std::optional<int64_t> max_tokens;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool ignore_eos = false;
  bool return_token_ids = false;
  bool return_token_strs = false;
  std::vector<std::string> token_strs;  // of the first prompt, with return_token_strs
  std::vector<std::string> stops;
  std::string cache_salt;  // empty: none
  // Only shown again when a request is rendered.
  std::optional<double> temperature, top_p, presence_penalty, frequency_penalty;
  std::optional<int64_t> seed;
};

inline constexpr size_t kPromptsMax = 1024;

class RequestReader {
 public:
  RequestReader();
  ~RequestReader();

  struct Options {
    bool token_ids = true;   // else only counts, which is cheaper
    bool echo_text = false;
  };
  // The document to read: append the body's pieces to body() first; it is kept until Clear.
  std::string& body() { return body_; }
  // Valid until the next Read.
  const SimRequest& request() const { return request_; }
  std::optional<ApiError> Read(Route route, const Options& options);

 private:
  struct Impl;
  std::string body_;
  SimRequest request_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace llmd::sim
