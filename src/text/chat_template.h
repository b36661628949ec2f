// ChatTemplate: the messages of a chat request to the text of its prompt, as vLLM's OpenAI server
// and transformers' apply_chat_template make it with the model's Jinja template.
//
// The language is Jinja2's as transformers sets it up: trim_blocks, lstrip_blocks, loop controls,
// `generation` blocks without effect, Python's methods of strings, lists and dicts, order of keys
// kept, tojson with Python's separators and without escaping of non-ASCII, raise_exception,
// strftime_now. What vLLM does to the request before is done too: content parts are joined to a
// string unless the template goes through them, arguments of tool calls become objects, fields that
// the OpenAI schema does not know are dropped.
//
// Thread safety: immutable; one template may render in many threads at once.
// Invariants:
//   1. Render ends soon and within its bounds whatever the request. The template is trusted as far
//      as the model it comes with: steps, output, recursion and length of its tags are bounded, but
//      one that nests lists ten thousands deep in each other takes more stack than there is.
//   2. Equal requests give equal text; time comes from the argument alone.
//   3. Nothing here reads files, the clock or the environment.
// Limits: kChatTemplateBytesMax and below; what wants more is an error that says so.
// Sources: transformers utils/chat_template_utils.py; vLLM renderers/hf.py, renderers/chat_utils.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

struct LlmdChatTemplate;

namespace llmd::text {

inline constexpr size_t kChatTemplateBytesMax = 1u << 20;
// Steps of the template's machine in one rendering, at most some 100 ms; 64 bytes of text made
// count as one more, so this bounds the memory too.
inline constexpr uint64_t kChatTemplateStepsMax = 4'000'000;
// A loop or a condition inside another counts 1, a call of a macro about 10.
inline constexpr size_t kChatTemplateDepthMax = 500;
inline constexpr size_t kChatRequestBytesMax = 64u << 20;
inline constexpr size_t kChatPromptBytesMax = 64u << 20;

// The bytes of a model's tokenizer directory that make its template. Read during Load only.
struct ChatTemplateFiles {
  std::string_view tokenizer_config_json;  // special tokens and, in older models, the template
  std::string_view chat_template;  // chat_template.jinja; before the one above; may be empty
};

enum class ChatContentFormat : uint8_t {
  kString,  // the template takes a message's content as text
  kOpenai,  // the template goes through the content's parts
};

struct ChatRenderOptions {
  int64_t now_s = 0;  // Unix time, for strftime_now (UTC)
};

class ChatTemplate {
 public:
  // NotFound when neither file has a template, InvalidArgument says what is wrong with it, with its
  // line.
  static base::Result<ChatTemplate> Load(const ChatTemplateFiles& files);

  // `request` is the JSON body of a chat completion: of it messages, tools, documents,
  // add_generation_prompt (true by default), continue_final_message, reasoning_effort and
  // chat_template_kwargs count, the rest is not looked at. InvalidArgument: the JSON, or a message
  // is not what the API wants; Unimplemented: a part of the content is an image, audio or video;
  // FailedPrecondition: the template refused it (raise_exception) or failed; ResourceExhausted: a
  // limit. The result replaces `prompt`, which is empty after an error.
  base::Status Render(std::string_view request, const ChatRenderOptions& options,
                      std::string& prompt) const;

  // As vLLM detects it from the template.
  ChatContentFormat content_format() const { return content_format_; }

 private:
  struct Free {
    void operator()(LlmdChatTemplate* chat_template) const;
  };
  explicit ChatTemplate(LlmdChatTemplate* chat_template);

  std::unique_ptr<LlmdChatTemplate, Free> template_;
  ChatContentFormat content_format_ = ChatContentFormat::kString;
};

}  // namespace llmd::text
