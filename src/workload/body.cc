#include "workload/body.h"

#include <charconv>

#include "base/check.h"
#include "base/strings.h"

namespace llmd::workload {

std::string_view ApiPath(Api api) {
  return api == Api::kChat ? "/v1/chat/completions" : "/v1/completions";
}

BodyTemplate::BodyTemplate(const BodyOptions& options) {
  std::string model = "{\"model\":";
  base::AppendJsonString(&model, options.model);
  if (options.api == Api::kChat) {
    const std::string messages = model + ",\"messages\":[{\"role\":\"";
    open_ = messages + "system\",\"content\":\"";
    open_user_ = messages + "user\",\"content\":\"";
    between_ = "\"},{\"role\":\"user\",\"content\":\"";
    close_ = "\"}],\"max_tokens\":";
  } else {
    open_ = open_user_ = model + ",\"prompt\":\"";
    close_ = "\",\"max_tokens\":";
  }
  if (options.stream) {
    end_ += ",\"stream\":true";
    if (options.include_usage) end_ += ",\"stream_options\":{\"include_usage\":true}";
  }
  if (options.ignore_eos) end_ += ",\"ignore_eos\":true";
  if (!options.extra_members.empty()) end_ += "," + options.extra_members;
  end_ += "}";
}

void BodyTemplate::Render(const Prompt& prompt, const Corpus& corpus, RenderedBody* out) const {
  const bool has_system = prompt.system.bytes > 0;
  char number[20];
  const auto digits = std::to_chars(number, number + sizeof(number), prompt.output_tokens);
  // The frame must not move once views into it exist.
  out->frame_.clear();
  out->frame_.reserve(open_.size() + between_.size() + close_.size() + sizeof(number) +
                      end_.size() + 2 * Corpus::kUniqueBytes);
  out->pieces_.clear();
  const char* const frame = out->frame_.data();
  size_t run_begin = 0;
  const auto append_text = [&](const TextSpec& text) {
    Corpus::AppendUnique(text, &out->frame_);
    if (text.bytes <= Corpus::kUniqueBytes) return;
    out->pieces_.emplace_back(frame + run_begin, out->frame_.size() - run_begin);
    run_begin = out->frame_.size();
    corpus.AppendWindows(text, &out->pieces_);
  };
  if (has_system) {
    out->frame_ += open_;
    append_text(prompt.system);
    out->frame_ += between_;
  } else {
    out->frame_ += open_user_;
  }
  append_text(prompt.user);
  out->frame_ += close_;
  out->frame_.append(number, digits.ptr);
  out->frame_ += end_;
  LLMD_DCHECK(out->frame_.data() == frame, "the frame outgrew its reservation");
  out->pieces_.emplace_back(frame + run_begin, out->frame_.size() - run_begin);
  out->bytes_ = 0;
  for (const std::string_view piece : out->pieces_) out->bytes_ += piece.size();
}

}  // namespace llmd::workload
