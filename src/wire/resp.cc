#include "wire/resp.h"

#include <charconv>

namespace llmd::wire {
namespace {

void AppendLength(char kind, size_t length, std::string* out) {
  char text[24];
  text[0] = kind;
  char* end = std::to_chars(text + 1, text + 22, length).ptr;
  *end++ = '\r';
  *end++ = '\n';
  out->append(text, end);
}

}  // namespace

void AppendRespCommand(std::span<const std::string_view> arguments, std::string* out) {
  AppendLength('*', arguments.size(), out);
  for (const std::string_view argument : arguments) {
    AppendLength('$', argument.size(), out);
    out->append(argument).append("\r\n");
  }
}

}  // namespace llmd::wire
