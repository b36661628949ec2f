// Any bytes as a messages body, as a chat and as what a tokenizer sidecar replies: refused, or
// turned into something that the next reader takes.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "plugins/producer/anthropic_chat.h"
#include "plugins/producer/sidecar_messages.h"

using namespace llmd;
using namespace llmd::plugins;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (const auto chat = ChatOfMessages(input, "model")) {
    const auto message = SidecarChatRequest("model", *chat);
    LLMD_CHECK(message.has_value(), message.error().ToString());
    LLMD_CHECK(!message->empty(), "a message without its model");
  }
  (void)SidecarChatRequest("model", input);
  for (const auto& prompt : {ReadSidecarChat(input), ReadSidecarText(input)}) {
    if (!prompt) continue;
    for (size_t i = 1; i < prompt->features.size(); ++i) {
      LLMD_CHECK(prompt->features[i - 1].offset <= prompt->features[i].offset, "out of order");
    }
  }
  (void)ReadSidecarInitialized(input);
  return 0;
}
