// Whole files with a size limit. Blocking: for start-up, reload and pool threads. Thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/status.h"

namespace llmd::runtime {

constexpr size_t kFileBytesMax = 64u << 20;

// The content of `path`; kNotFound, kPermissionDenied, kResourceExhausted (over `bytes_max`).
base::Result<std::string> ReadFile(const std::string& path, size_t bytes_max = kFileBytesMax);
// Writes a temporary file beside `path` and renames it, so that readers see old or new, never half.
base::Status WriteFileAtomically(const std::string& path, std::string_view content);

}  // namespace llmd::runtime
