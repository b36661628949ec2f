// One line per request: who asked for what, where it went, how it ended, how long it took.
// Never prompt or reply text, never a key.
//
// Pure and thread-safe; about 300 ns per line, nothing allocated. Limits: a line is at most
// kAccessLineMax bytes; long fields (path, model, id) are cut to kAccessFieldMax, so a line always
// holds all its fields.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/time.h"
#include "telemetry/log.h"

namespace llmd::telemetry {

inline constexpr size_t kAccessFieldMax = 256;
// 9 text fields that can each grow sixfold by JSON escapes, and 400 bytes of names and numbers.
inline constexpr size_t kAccessLineMax = 9 * 6 * kAccessFieldMax + 1024;

struct AccessRecord {
  base::WallTime time;  // when the request arrived
  std::string_view request_id;
  std::string_view method;
  std::string_view path;  // without the query
  int status = 0;         // sent to the client; 0: none was sent
  std::string_view model;
  std::string_view target_model;
  std::string_view endpoint;  // "address:port" that answered, or ""
  std::string_view outcome;   // "ok", "client_gone", "upstream_error", ...
  std::string_view key;       // name of the API key or ""
  base::Duration duration{};
  base::Duration ttft{-1};    // negative: no body byte was received
  uint64_t bytes_in = 0;      // request body
  uint64_t bytes_out = 0;     // response body
  int64_t input_tokens = -1;  // negative: unknown
  int64_t output_tokens = -1;
  int64_t cached_tokens = -1;
  uint32_t retries = 0;
  bool streamed = false;
};

// Writes the line with its newline into `buffer` (kAccessLineMax bytes always suffice; a smaller
// one cuts) and returns the written part. Unknown values are left out.
std::string_view EncodeAccessLine(const AccessRecord& record, LogFormat format,
                                  std::span<char> buffer);

}  // namespace llmd::telemetry
