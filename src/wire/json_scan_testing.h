// What a test or fuzzer compares: the events of a document as lines of text, for any cutting of it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "wire/json_scan.h"

namespace llmd::wire {

struct JsonTrace {
  std::vector<std::string> lines;
  JsonError error = JsonError::kNone;
  bool operator==(const JsonTrace&) const = default;
};

// Feeds `document` cut at `cuts` (ascending). With `policy` other than 0, values are skipped, taken
// raw or taken as numbers by a rule that depends only on it and the number of events so far.
inline JsonTrace TraceJson(std::string_view document, const std::vector<size_t>& cuts,
                           uint64_t policy = 0, const internal::JsonKernels* kernels =
                                                    internal::BestJsonKernels()) {
  JsonScanner scan(kernels);
  JsonTrace trace;
  std::string open;  // parts so far of a value
  uint64_t taken = 0;
  const auto choose = [&] {
    if (policy == 0) return;
    switch (base::Mix64(policy, ++taken) % 5) {
      case 0: return scan.SkipValue();
      case 1: return scan.RawValue();
      case 2: return scan.ExpectNumbers();
      default: return;
    }
  };
  const auto line = [&](std::string text) {
    trace.lines.push_back(std::move(text));
    choose();
  };
  const auto part = [&](char kind) {
    open.append(scan.part());
    if (!scan.last()) return;
    std::string text = std::string(1, kind) + open;
    if (kind == '#') text += " x" + std::to_string(scan.count());
    text += " @" + std::to_string(scan.value_begin()) + "-" + std::to_string(scan.value_end());
    open.clear();
    line(std::move(text));
  };
  const auto scalar = [&](std::string text) {
    line(text + " @" + std::to_string(scan.value_begin()) + "-" + std::to_string(scan.value_end()));
  };
  const auto drain = [&] {
    for (;;) {
      switch (scan.Next()) {
        case JsonEvent::kMore: case JsonEvent::kEnd: case JsonEvent::kError: return;
        case JsonEvent::kKey: line("K" + std::string(scan.text())); break;
        case JsonEvent::kString: part('S'); break;
        case JsonEvent::kRaw: part('R'); break;
        case JsonEvent::kNumbers: part('#'); break;
        case JsonEvent::kNumber: scalar("N" + std::string(scan.text())); break;
        case JsonEvent::kTrue: scalar("true"); break;
        case JsonEvent::kFalse: scalar("false"); break;
        case JsonEvent::kNull: scalar("null"); break;
        case JsonEvent::kObject: line("{ @" + std::to_string(scan.value_begin())); break;
        case JsonEvent::kEndObject: line("} @" + std::to_string(scan.value_end())); break;
        case JsonEvent::kArray: line("[ @" + std::to_string(scan.value_begin())); break;
        case JsonEvent::kEndArray: line("] @" + std::to_string(scan.value_end())); break;
      }
    }
  };
  size_t begin = 0;
  for (size_t i = 0; i <= cuts.size(); ++i) {
    const size_t end = i < cuts.size() ? cuts[i] : document.size();
    // A copy of its own per chunk: reading outside of it is then seen by the address sanitizer.
    const std::vector<char> chunk(document.begin() + begin, document.begin() + end);
    scan.Feed({chunk.data(), chunk.size()});
    drain();
    begin = end;
  }
  trace.error = scan.Finish();
  return trace;
}

}  // namespace llmd::wire
