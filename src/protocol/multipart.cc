#include "protocol/multipart.h"

#include <algorithm>
#include <cstring>

#include "base/strings.h"

namespace llmd::protocol {
namespace {

// Takes "; name=value" or "; name=\"value\"" off the front of a header's parameters. False at the
// end or when malformed. A quoted value may contain backslash escapes (RFC 9110) or, as browsers
// write it, percent escapes; only the first are undone.
bool TakeParameter(std::string_view* rest, std::string_view* name, std::string* value) {
  const size_t start = rest->find_first_not_of("; \t");
  if (start == std::string_view::npos) return false;
  rest->remove_prefix(start);
  const size_t equals = rest->find('=');
  if (equals == std::string_view::npos) return false;
  *name = base::Trim(rest->substr(0, equals));
  rest->remove_prefix(equals + 1);
  value->clear();
  if (!rest->starts_with('"')) {
    const size_t end = std::min(rest->find(';'), rest->size());
    value->assign(base::Trim(rest->substr(0, end)));
    rest->remove_prefix(end);
    return true;
  }
  for (size_t i = 1; i < rest->size(); ++i) {
    char c = (*rest)[i];
    if (c == '"') {
      rest->remove_prefix(i + 1);
      return true;
    }
    if (c == '\\' && i + 1 < rest->size()) c = (*rest)[++i];
    value->push_back(c);
  }
  return false;
}

bool IsBoundaryChar(char c) {
  return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
         std::string_view("'()+_,-./:=? ").contains(c);
}

}  // namespace

std::optional<std::string> MultipartBoundary(std::string_view content_type) {
  const size_t type_end = std::min(content_type.find(';'), content_type.size());
  if (!base::EqualsIgnoreCase(base::Trim(content_type.substr(0, type_end)),
                              "multipart/form-data")) {
    return std::nullopt;
  }
  std::string_view rest = content_type.substr(type_end);
  std::string_view name;
  std::string value;
  while (TakeParameter(&rest, &name, &value)) {
    if (!base::EqualsIgnoreCase(name, "boundary")) continue;
    const bool valid = !value.empty() && value.size() <= 70 && !value.ends_with(' ') &&
                       std::all_of(value.begin(), value.end(), IsBoundaryChar);
    return valid ? std::optional(value) : std::nullopt;
  }
  return std::nullopt;
}

// The line end before the first delimiter may be missing, so matching starts as if it had been
// read.
MultipartModelScanner::MultipartModelScanner(std::string_view boundary)
    : delimiter_(base::Concat("\r\n--", boundary)), matched_(2) {}

MultipartModelScanner::State MultipartModelScanner::Feed(std::string_view chunk) {
  const char* p = chunk.data();
  const char* const end = p + chunk.size();
  const uint64_t base = offset_;
  while (p < end && state_ == State::kMore) {
    // Inside an upload only a CR is of interest.
    if (matched_ == 0 && !in_model_ && (place_ == Place::kContent || place_ == Place::kPreamble)) {
      const void* cr = std::memchr(p, '\r', static_cast<size_t>(end - p));
      if (!cr) break;
      p = static_cast<const char*>(cr);
    }
    offset_ = base + static_cast<uint64_t>(p - chunk.data());
    OnByte(*p++);
  }
  offset_ = base + chunk.size();
  return state_;
}

void MultipartModelScanner::OnByte(char c) {
  switch (place_) {
    case Place::kPreamble: case Place::kContent: return OnContent(c);
    case Place::kAfterDelimiter: case Place::kHeaders: break;
  }
  if (++header_bytes_ > kPartHeaderBytesMax) {
    state_ = State::kMalformed;
    return;
  }
  if (c != '\n') {
    line_.push_back(c);
    if (place_ == Place::kAfterDelimiter && line_ == "--") state_ = State::kAbsent;
    return;
  }
  if (line_.ends_with('\r')) line_.pop_back();
  if (place_ == Place::kAfterDelimiter) {
    if (!base::Trim(line_).empty()) state_ = State::kMalformed;
    place_ = Place::kHeaders;
  } else if (line_.empty()) {
    place_ = Place::kContent;
    matched_ = 0;
    model_begin_ = offset_ + 1;
  } else {
    OnHeader(line_);
  }
  line_.clear();
}

void MultipartModelScanner::OnContent(char c) {
  if (c != delimiter_[matched_]) {
    // The delimiter has its only CR in front, so a failed match can only start again at this byte.
    const size_t failed = matched_;
    matched_ = c == '\r' ? 1 : 0;
    if (!in_model_) return;
    value_.append(delimiter_, 0, failed);
    if (matched_ == 0) value_.push_back(c);
    if (value_.size() > kModelBytesMax) state_ = State::kMalformed;
    return;
  }
  if (++matched_ < delimiter_.size()) return;
  if (in_model_) {
    state_ = State::kFound;
    return;
  }
  place_ = Place::kAfterDelimiter;
  matched_ = 0;
  header_bytes_ = 0;
}

void MultipartModelScanner::OnHeader(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) {
    state_ = State::kMalformed;
    return;
  }
  if (!base::EqualsIgnoreCase(base::Trim(line.substr(0, colon)), "content-disposition")) return;
  std::string_view rest = line.substr(colon + 1);
  rest.remove_prefix(std::min(rest.find(';'), rest.size()));
  std::string_view name;
  std::string value;
  bool is_model = false;
  bool is_file = false;
  while (TakeParameter(&rest, &name, &value)) {
    if (base::EqualsIgnoreCase(name, "name")) is_model = value == "model";
    if (base::EqualsIgnoreCase(name, "filename")) is_file = true;
  }
  in_model_ = is_model && !is_file;
}

}  // namespace llmd::protocol
