#include "wire/sse.h"

#include "base/check.h"
#include "wire/json_kernels.h"

namespace llmd::wire {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

// The value of `line` if its field is `name`: what follows the colon, less one space.
bool FieldValue(std::string_view line, std::string_view name, std::string_view* value) {
  if (!line.starts_with(name)) return false;
  line.remove_prefix(name.size());
  if (!line.empty()) {
    if (line[0] != ':') return false;
    line.remove_prefix(line.size() > 1 && line[1] == ' ' ? 2 : 1);
  }
  *value = line;
  return true;
}

}  // namespace

void SseParser::Feed(std::string_view chunk) {
  LLMD_DCHECK(at_ == end_, "the chunk before is not used up");
  base_ += static_cast<uint64_t>(end_ - chunk_begin_);
  chunk_begin_ = at_ = chunk.data();
  end_ = at_ + chunk.size();
  if (tail_taken_) ForgetEvent();
  if (bom_matched_ < kByteOrderMark.size()) [[unlikely]] SkipByteOrderMark();
}

void SseParser::SkipByteOrderMark() {
  while (at_ < end_ && bom_matched_ < kByteOrderMark.size()) {
    if (*at_ != kByteOrderMark[bom_matched_]) {
      // Not a mark after all: its first bytes, which may have come in an earlier chunk, are text.
      if (bom_matched_ > 0) {
        KeepTail(kByteOrderMark.substr(0, bom_matched_));
        line_empty_ = false;
      }
      bom_matched_ = kByteOrderMark.size();
      return;
    }
    ++at_;
    ++bom_matched_;
  }
}

bool SseParser::Next(SseEvent* event) {
  if (tail_taken_) ForgetEvent();
  while (at_ < end_) {
    if (after_cr_ && pending_ == 0) {  // the second half of the CRLF that ended the last event
      after_cr_ = false;
      if (*at_ == '\n') {
        ++at_;
        continue;
      }
    }
    const char* const begin = at_;
    const uint64_t block_begin = base_ + static_cast<uint64_t>(begin - chunk_begin_) - pending_;
    const char* const stop = EventEnd(begin);
    const std::string_view here(begin, static_cast<size_t>((stop ? stop : end_) - begin));
    at_ = begin + here.size();
    if (!stop) {
      KeepTail(here);
      return false;
    }
    if (pending_ == 0) {
      if (!ParseBlock(here, block_begin, event)) continue;
      event->in_chunk = true;
      ++events_;
      return true;
    }
    KeepTail(here);
    tail_taken_ = true;
    if (skipping_) {
      ++skipped_events_;
    } else if (ParseBlock(tail_, block_begin, event)) {
      event->in_chunk = false;
      pending_ = 0;
      ++events_;
      return true;
    }
    ForgetEvent();
  }
  return false;
}

void SseParser::ForgetEvent() {
  tail_taken_ = false;
  skipping_ = false;
  pending_ = 0;
  tail_.clear();
}

void SseParser::KeepTail(std::string_view bytes) {
  pending_ += bytes.size();
  if (!skipping_ && bytes.size() <= tail_bytes_max_ - tail_.size()) {
    tail_.append(bytes);
    return;
  }
  skipping_ = true;
  tail_.clear();
}

// Behind the empty line that ends the current event, or nullptr when the chunk ends first.
const char* SseParser::EventEnd(const char* p) {
  while (p < end_) {
    if (after_cr_) {
      after_cr_ = false;
      if (*p == '\n') {
        ++p;
        continue;
      }
    }
    if (*p != '\n' && *p != '\r') {
      line_empty_ = false;
      p = kernels_->line_end(p, end_);
      if (p == end_) return nullptr;
    }
    after_cr_ = *p == '\r';
    ++p;
    if (line_empty_) {
      if (after_cr_ && p < end_) {
        after_cr_ = false;
        if (*p == '\n') ++p;
      }
      return p;
    }
    line_empty_ = true;
  }
  return nullptr;
}

bool SseParser::ParseBlock(std::string_view block, uint64_t block_begin, SseEvent* event) {
  *event = {};
  size_t data_lines = 0;
  const char* const end = block.data() + block.size();
  for (const char* p = block.data(); p < end;) {
    const char* const stop = kernels_->line_end(p, end);
    const std::string_view line(p, static_cast<size_t>(stop - p));
    p = stop + 1;
    if (p < end && *stop == '\r' && *p == '\n') ++p;
    std::string_view value;
    if (FieldValue(line, "data", &value)) {
      if (data_lines == 1) joined_.assign(event->data);
      if (data_lines >= 1) {
        joined_.push_back('\n');
        joined_.append(value);
        value = joined_;
      }
      event->data = value;
      ++data_lines;
    } else if (FieldValue(line, "event", &value)) {
      event->name = value;
    }
  }
  event->contiguous = data_lines == 1;
  if (event->contiguous) {
    event->data_begin = block_begin + static_cast<uint64_t>(event->data.data() - block.data());
  }
  return data_lines > 0;
}

}  // namespace llmd::wire
