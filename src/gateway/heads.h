// The heads that a proxy writes: towards the engine, and back towards the client. Pure.
//
// Hop-by-hop fields end here, the rest passes in order and as sent, apart from what EngineHeadSpec
// names. Framing fields are ours.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/buffer.h"
#include "plugin/request_context.h"
#include "wire/http1.h"

namespace llmd::gateway {

struct EngineHeadSpec {
  const wire::RequestHead& client;
  std::string_view request_id;
  std::string_view client_ip;  // appended to X-Forwarded-For
  bool client_is_tls = false;
  bool drop_authorization = false;  // it carried the gateway's own key
  std::string_view engine_header_name, engine_header_value;  // "" = none; replaces the client's
  std::span<const plugin::Header> set_headers;  // from the decision; replace the client's
  enum class Body : uint8_t { kNone, kLength, kChunked } body = Body::kNone;
  uint64_t content_length = 0;
};

// The request head for the engine, with its empty line. Encodings other than identity are not asked
// for, so that replies can be read as they pass.
base::Slice WriteEngineHead(const EngineHeadSpec& spec, base::BufferPool& buffers);

// Status line and fields of the engine's reply for ServerExchange::SendHead, which adds framing.
// With `request_id` when the engine sent none; `set_headers` replace the engine's.
base::Slice WriteClientHead(const wire::ResponseHead& engine, std::string_view request_id,
                            std::span<const plugin::Header> set_headers,
                            base::BufferPool& buffers);

// True for names that only the gateway may set: control headers of the inference extension, which
// are taken from clients and not passed on.
bool IsControlHeader(std::string_view name);

}  // namespace llmd::gateway
