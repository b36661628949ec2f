#include "text/chat_template.h"

#include <string>

#include "base/strings.h"
#include "text/border.h"

namespace llmd::text {
namespace {

// Without exceptions: there is no way across the border for them.
void TakeText(void* context, const char* text, size_t size) noexcept {
  static_cast<std::string*>(context)->assign(text, size);
}

}  // namespace

void ChatTemplate::Free::operator()(LlmdChatTemplate* chat_template) const {
  llmd_chat_template_free(chat_template);
}

ChatTemplate::ChatTemplate(LlmdChatTemplate* chat_template) : template_(chat_template) {}

base::Result<ChatTemplate> ChatTemplate::Load(const ChatTemplateFiles& files) {
  const LlmdChatTemplateLimits limits{.template_bytes = kChatTemplateBytesMax,
                                      .steps = kChatTemplateStepsMax,
                                      .depth = kChatTemplateDepthMax,
                                      .prompt_bytes = kChatPromptBytesMax};
  LlmdChatTemplate* loaded = nullptr;
  uint8_t takes_parts = 0;
  ErrorText error;
  const LlmdTextStatus status =
      llmd_chat_template_load(ToSlice(files.tokenizer_config_json), ToSlice(files.chat_template),
                              &limits, &loaded, &takes_parts, error.out());
  if (status != LLMD_TEXT_OK) return std::unexpected(ToStatus(status, error));
  if (loaded == nullptr) {
    return std::unexpected(
        base::NotFound("neither chat_template.jinja nor tokenizer_config.json has a template"));
  }
  ChatTemplate result(loaded);
  result.content_format_ =
      takes_parts != 0 ? ChatContentFormat::kOpenai : ChatContentFormat::kString;
  return result;
}

base::Status ChatTemplate::Render(std::string_view request, const ChatRenderOptions& options,
                                  std::string& prompt) const {
  prompt.clear();
  if (request.size() > kChatRequestBytesMax) {
    return base::ResourceExhausted(base::Concat(
        "the request is longer than ", std::to_string(kChatRequestBytesMax), " bytes"));
  }
  ErrorText error;
  const LlmdTextStatus status = llmd_chat_template_render(
      template_.get(), ToSlice(request), options.now_s, TakeText, &prompt, error.out());
  return status == LLMD_TEXT_OK ? base::OkStatus() : ToStatus(status, error);
}

}  // namespace llmd::text
