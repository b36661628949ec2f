#include "sim/reply_text.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "engine/tokens.h"

namespace llmd::sim {
namespace {

// Ends in white space, so that going around does not glue two words into one token.
constexpr std::string_view kText =
    "A request arrives and is read only once. The router asks which server has seen this prefix "
    "before, how long each queue is, and how much memory is left; then it chooses. The server "
    "computes what its cache does not hold, one chunk after the other, and gives a token for every "
    "step. Many requests share a step, so each of them waits a little and all finish sooner. When "
    "memory runs out, the latest arrival steps back and begins again. Nothing here was thought by "
    "a model: these words only take the place of an answer, in the right number and at the right "
    "time. Numbers such as 42, 3.14 and 1,024 appear, and so do \"quotes\", (brackets) and dashes "
    "- because clients must cope with them.\nA second paragraph begins here. It says that tokens "
    "are counted, blocks are hashed, and latencies come from measurements on real hardware. ";

struct Canned {
  std::vector<std::string> json;
  std::vector<ReplyPiece> pieces;
  std::vector<engine::Token> tokens;

  Canned() {
    std::string_view rest = kText;
    while (const size_t n = engine::NextTokenBytes(rest)) {
      pieces.push_back({rest.substr(0, n), {}});
      std::string quoted;
      base::AppendJsonString(&quoted, rest.substr(0, n));
      json.push_back(quoted.substr(1, quoted.size() - 2));
      rest.remove_prefix(n);
    }
    for (size_t i = 0; i < pieces.size(); ++i) pieces[i].json = json[i];
    engine::Tokenize(kText, &tokens);
  }
};

const Canned& CannedText() {
  static const Canned canned;
  return canned;
}

}  // namespace

ReplyText ReplyText::Canned(uint64_t start) {
  ReplyText reply;
  reply.start_ = start % CannedText().pieces.size();
  return reply;
}

ReplyText ReplyText::Echo(std::string text) {
  ReplyText reply;
  reply.canned_ = false;
  reply.text_ = std::move(text);
  std::string_view rest = reply.text_;
  while (const size_t n = engine::NextTokenBytes(rest)) {
    rest.remove_prefix(n);
    reply.ends_.push_back(static_cast<uint32_t>(reply.text_.size() - rest.size()));
  }
  engine::Tokenize(reply.text_, &reply.tokens_);
  // White space alone is a piece without a token.
  reply.ends_.resize(std::max<size_t>(1, reply.tokens_.size()),
                     static_cast<uint32_t>(reply.text_.size()));
  reply.tokens_.resize(reply.ends_.size());
  return reply;
}

size_t ReplyText::size() const { return canned_ ? SIZE_MAX : ends_.size(); }

ReplyPiece ReplyText::piece(size_t index) const {
  if (canned_) {
    const auto& pieces = CannedText().pieces;
    return pieces[(start_ + index) % pieces.size()];
  }
  const uint32_t begin = index == 0 ? 0 : ends_[index - 1];
  return {std::string_view(text_).substr(begin, ends_[index] - begin), {}};
}

std::span<const engine::Token> ReplyText::cycle() const {
  return canned_ ? std::span<const engine::Token>(CannedText().tokens) : tokens_;
}

std::string ReplyText::Join(size_t count) const {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += piece(i).text;
  return text;
}

void ApplyStops(const ReplyText& text, std::span<const std::string> stops, ReplyPlan* plan) {
  size_t longest = 0;
  for (const std::string& stop : stops) longest = std::max(longest, stop.size());
  if (longest == 0) return;
  std::string shown;
  for (uint32_t i = 0; i < plan->tokens; ++i) {
    // A stop string that is complete only now begins at most its length before the new text.
    const size_t from = shown.size() > longest ? shown.size() - longest : 0;
    shown += text.piece(i).text;
    size_t found_at = std::string::npos;
    const std::string* found = nullptr;
    for (const std::string& stop : stops) {
      const size_t at = stop.empty() ? std::string::npos : shown.find(stop, from);
      if (at < found_at) {
        found_at = at;
        found = &stop;
      }
    }
    if (found == nullptr) continue;
    *plan = {.tokens = i + 1, .stopped = true, .stop = *found, .text_bytes_max = found_at};
    return;
  }
}

}  // namespace llmd::sim
