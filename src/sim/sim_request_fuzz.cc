// Any bytes as the body of any POST: an answer, never a crash; and the two readers of JSON agree
// that what one takes is a document for the other.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "sim/json_error.h"
#include "sim/request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace llmd;
  if (size == 0) return 0;
  static sim::RequestReader reader;  // used again and again, as in a server
  reader.body().assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto route = static_cast<sim::Route>(data[0] % 3);
  const auto error = reader.Read(route, {.token_ids = (data[0] & 4) != 0,
                                         .echo_text = (data[0] & 8) != 0});
  const sim::SimRequest& request = reader.request();
  if (error) {
    LLMD_CHECK(error->status == 400 && !error->message.empty(), "an error says what is wrong");
    return 0;
  }
  LLMD_CHECK(!sim::FindJsonError(reader.body()), "a document that was read is JSON");
  LLMD_CHECK(request.prompt_count >= 1 && request.prompt_count <= sim::kPromptsMax, "prompts");
  LLMD_CHECK(request.n >= 1 && request.n <= sim::kPromptsMax, "n");
  for (size_t i = 0; i < request.prompt_count; ++i) {
    const sim::Prompt& prompt = request.prompts[i];
    LLMD_CHECK(prompt.tokens.empty() || prompt.tokens.size() == prompt.token_count, "tokens");
  }
  LLMD_CHECK((data[0] & 8) == 0 || request.echo.size() == request.prompt_count, "echo");
  return 0;
}
