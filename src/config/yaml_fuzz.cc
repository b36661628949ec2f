// Any bytes: parsing ends, and what was parsed is written so that it reads back as the same.
#include <cstdlib>

#include "config/document.h"
#include "config/value.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace llmd::config;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  ErrorList errors;
  const auto document = Document::Parse(text, "f", &errors);
  if ((document == nullptr) == errors.ok()) std::abort();
  if (!document) {
    if (errors.ToString().empty()) std::abort();
    return 0;
  }
  const std::string yaml = ToYaml(ToValue(document->root()));
  ToJson(ToValue(document->root()));
  if (yaml.size() > kDocumentBytesMax) return 0;
  // Bytes that YAML does not allow may come in through escapes and are not written as escapes.
  for (char c : yaml) {
    if (static_cast<unsigned char>(c) >= 0x7f) return 0;
  }
  const auto again = Document::Parse(yaml, "f", &errors);
  if (!again || ToYaml(ToValue(again->root())) != yaml) std::abort();
  return 0;
}
