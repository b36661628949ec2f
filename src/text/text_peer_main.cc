// text_peer: tokenizers and chat templates behind a pipe, for tests/peers/text_models_test.sh.
//
// Standard input has commands, each a line of a word, two numbers and the sizes of two texts that
// follow it; the answer to each is a line of "ok" or "error" and a size, and that many bytes:
//   tokenizer CACHE_BYTES FAST SIZE SIZE   tokenizer.json, tokenizer_config.json: the engine, and
//   why encode SPECIAL 0 SIZE 0                a text: its ids, 4 bytes each, in the machine's
//   order template 0 0 SIZE SIZE                 tokenizer_config.json, chat_template.jinja: the
//   format render NOW_S 0 SIZE 0                  a chat request: its prompt
#include <array>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace llmd::text {
namespace {

struct Command {
  std::string word;
  int64_t first = 0;
  int64_t second = 0;
  std::string a;
  std::string b;
};

class Peer {
 public:
  base::Result<std::string> Run(const Command& command) {
    if (command.word == "tokenizer") return LoadTokenizer(command);
    if (command.word == "encode") return Encode(command);
    if (command.word == "template") return LoadTemplate(command);
    if (command.word == "render") return Render(command);
    return std::unexpected(base::InvalidArgument("no such command"));
  }

 private:
  base::Result<std::string> LoadTokenizer(const Command& command) {
    const TokenizerOptions options{
        .cache_bytes = static_cast<size_t>(command.first), .seed = 7, .fast = command.second != 0};
    LLMD_ASSIGN_OR_RETURN(tokenizer_, Tokenizer::Load({.tokenizer_json = command.a,
                                                       .tokenizer_config_json = command.b},
                                                      options));
    return tokenizer_->engine_reason();
  }

  base::Result<std::string> Encode(const Command& command) {
    if (!tokenizer_) return std::unexpected(base::FailedPrecondition("no tokenizer"));
    std::vector<uint32_t> ids;
    LLMD_RETURN_IF_ERROR(tokenizer_->Encode(command.a, command.first != 0, ids));
    return std::string(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(uint32_t));
  }

  base::Result<std::string> LoadTemplate(const Command& command) {
    LLMD_ASSIGN_OR_RETURN(template_, ChatTemplate::Load({.tokenizer_config_json = command.a,
                                                         .chat_template = command.b}));
    return template_->content_format() == ChatContentFormat::kOpenai ? "openai" : "string";
  }

  base::Result<std::string> Render(const Command& command) {
    if (!template_) return std::unexpected(base::FailedPrecondition("no template"));
    std::string prompt;
    LLMD_RETURN_IF_ERROR(template_->Render(command.a, {.now_s = command.first}, prompt));
    return prompt;
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::optional<ChatTemplate> template_;
};

bool ReadText(size_t size, std::string& text) {
  text.resize(size);
  return std::fread(text.data(), 1, size, stdin) == size;
}

bool Read(Command& command) {
  std::array<char, 256> line;
  std::array<char, 16> word;
  size_t a = 0;
  size_t b = 0;
  if (std::fgets(line.data(), line.size(), stdin) == nullptr) return false;
  if (std::sscanf(line.data(), "%15s %" SCNd64 " %" SCNd64 " %zu %zu", word.data(), &command.first,
                  &command.second, &a, &b) != 5) {
    return false;
  }
  command.word = word.data();
  return ReadText(a, command.a) && ReadText(b, command.b);
}

void Write(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

int Main() {
  Peer peer;
  Command command;
  while (Read(command)) {
    const base::Result<std::string> answer = peer.Run(command);
    const std::string text = answer ? *answer : answer.error().ToString();
    Write(base::Concat(answer ? "ok " : "error ", std::to_string(text.size()), "\n", text));
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace llmd::text

int main() { return llmd::text::Main(); }
