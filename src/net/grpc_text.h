// The small textual parts of gRPC over HTTP/2: timeouts, status messages, content types. Pure.
//
// Formats: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/time.h"

namespace llmd::net {

// "5S", "200m", ...: 1 to 8 digits and one of H M S m u n. std::nullopt for anything else.
std::optional<base::Duration> ParseGrpcTimeout(std::string_view text);

// Appends the first `bytes_max` bytes of `message` as grpc-message wants them: printable ASCII
// without '%' as it is, other bytes as %XX. A UTF-8 character is not cut in two.
void AppendGrpcMessage(std::string* out, std::string_view message, size_t bytes_max);

// "application/grpc", alone or with a suffix "+proto" or parameters.
bool IsGrpcContentType(std::string_view type);

}  // namespace llmd::net
