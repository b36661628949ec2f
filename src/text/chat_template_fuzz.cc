// Any bytes as a template and as a request, divided at the first zero: both must end with a prompt
// or a status. Without a zero the bytes are a request for a template like those of models.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "text/chat_template.h"

namespace {

constexpr char kTemplate[] =
    "{% for m in messages %}{% if m.content is string %}{{ m.content | trim }}{% else %}"
    "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{{ m.tool_calls | tojson }}"
    "{% endfor %}{{ tools | tojson(indent=4) }}{{ documents }}{{ x }}";
constexpr char kRequest[] =
    R"({"messages": [{"role": "user", "content": "a b"}], "tools": [{"function": {"name": "f"}}]})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto fixed = llmd::text::ChatTemplate::Load({.chat_template = kTemplate}).value();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  std::string prompt;
  const size_t zero = input.find('\0');
  if (zero == std::string_view::npos) {
    (void)fixed.Render(input, {}, prompt);
    return 0;
  }
  const auto loaded = llmd::text::ChatTemplate::Load({.chat_template = input.substr(0, zero)});
  if (!loaded) return 0;
  const std::string_view request = input.substr(zero + 1);
  (void)loaded->Render(request.empty() ? kRequest : request, {}, prompt);
  return 0;
}
