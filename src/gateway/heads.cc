#include "gateway/heads.h"

#include <algorithm>

#include "base/strings.h"

namespace llmd::gateway {
namespace {

using wire::HttpField;
using wire::HttpFieldId;

// Room beside the client's own head: our fields with an IPv6 address, a 128-byte id and two
// numbers.
constexpr size_t kOwnFieldBytes = 512;

// Runs `write` with a HeadWriter over a block of at least `bytes` and returns what was written.
template <class Write>
base::Slice WriteBlock(base::BufferPool& buffers, size_t bytes, Write write) {
  base::Block* block = buffers.Get(bytes);
  wire::HeadWriter writer({block->data(), block->capacity()});
  write(writer);
  LLMD_CHECK(writer.ok(), "a head outgrew the room computed for it");
  return base::Slice(block, block->data(), writer.size());
}

bool Sets(std::span<const plugin::Header> headers, std::string_view name) {
  return std::ranges::any_of(headers, [&](const plugin::Header& header) {
    return base::EqualsIgnoreCase(name, header.name);
  });
}

bool IsReplaced(const EngineHeadSpec& spec, const HttpField& field) {
  if (!spec.engine_header_name.empty() &&
      base::EqualsIgnoreCase(field.name, spec.engine_header_name)) {
    return true;
  }
  return Sets(spec.set_headers, field.name);
}

bool PassesToEngine(const EngineHeadSpec& spec, const HttpField& field) {
  if (field.hop_by_hop) return false;
  switch (field.id) {
    case HttpFieldId::kContentLength:
    case HttpFieldId::kAcceptEncoding:
    case HttpFieldId::kExpect:
    case HttpFieldId::kXRequestId:
    case HttpFieldId::kXForwardedFor:
    case HttpFieldId::kXForwardedProto: return false;
    case HttpFieldId::kAuthorization:
      return !spec.drop_authorization && !IsReplaced(spec, field);
    case HttpFieldId::kOther: return !IsControlHeader(field.name) && !IsReplaced(spec, field);
    default: return !IsReplaced(spec, field);
  }
}

size_t BytesOf(std::span<const plugin::Header> headers) {
  size_t bytes = 0;
  for (const plugin::Header& h : headers) bytes += h.name.size() + h.value.size() + 4;
  return bytes;
}

size_t ExtraBytes(const EngineHeadSpec& spec) {
  size_t bytes = spec.engine_header_name.size() + spec.engine_header_value.size() + 4 +
                 spec.request_id.size();
  return bytes + BytesOf(spec.set_headers);
}

void WriteForwardedFor(const EngineHeadSpec& spec, wire::HeadWriter& out) {
  out.Raw("x-forwarded-for: ");
  for (const HttpField& field : spec.client.fields) {
    if (field.id != HttpFieldId::kXForwardedFor || field.value.empty()) continue;
    out.Raw(field.value);
    out.Raw(", ");
  }
  out.Raw(spec.client_ip);
  out.Raw("\r\n");
}

}  // namespace

bool IsControlHeader(std::string_view name) {
  static constexpr std::string_view kNames[] = {
      "x-llm-d-inference-fairness-id",      "x-gateway-inference-fairness-id",
      "x-llm-d-inference-objective",        "x-gateway-inference-objective",
      "x-llm-d-model-name-rewrite",         "x-gateway-model-name-rewrite",
      "x-llm-d-slo-ttft-ms",                "x-slo-ttft-ms",
      "x-llm-d-slo-tpot-ms",                "x-slo-tpot-ms",
      "x-llm-d-video-fps",                  "x-llm-d-video-duration-seconds",
      "x-llm-d-video-resolution",           "x-gateway-destination-endpoint-subset",
      "x-gateway-destination-endpoint",     "x-gateway-destination-endpoint-served",
      "x-llm-d-request-dropped-reason",
  };
  if (name.size() < 13 || (name[0] | 0x20) != 'x' || name[1] != '-') return false;
  return std::ranges::any_of(
      kNames, [&](std::string_view control) { return base::EqualsIgnoreCase(name, control); });
}

base::Slice WriteEngineHead(const EngineHeadSpec& spec, base::BufferPool& buffers) {
  const size_t bytes = spec.client.head_bytes + kOwnFieldBytes + ExtraBytes(spec);
  return WriteBlock(buffers, bytes, [&](wire::HeadWriter& out) {
    // An absolute-form target is for us; the engine gets the origin form.
    if (spec.client.target.starts_with('/')) {
      out.RequestLine(spec.client.method_name, spec.client.target);
    } else {
      out.Raw(spec.client.method_name);
      out.Raw(" ");
      out.Raw(spec.client.path);
      if (!spec.client.query.empty()) out.Raw("?");
      out.Raw(spec.client.query);
      out.Raw(" HTTP/1.1\r\n");
    }
    bool has_host = false;
    for (const HttpField& field : spec.client.fields) {
      if (!PassesToEngine(spec, field)) continue;
      has_host |= field.id == HttpFieldId::kHost;
      out.Field(field.name, field.value);
    }
    if (!has_host) out.Field("host", spec.client.authority);
    out.Field("x-request-id", spec.request_id);
    out.Field("accept-encoding", "identity");
    out.Field("x-forwarded-proto", spec.client_is_tls ? "https" : "http");
    WriteForwardedFor(spec, out);
    for (const plugin::Header& h : spec.set_headers) out.Field(h.name, h.value);
    if (!spec.engine_header_name.empty()) {
      out.Field(spec.engine_header_name, spec.engine_header_value);
    }
    if (spec.body == EngineHeadSpec::Body::kLength) {
      out.Field("content-length", spec.content_length);
    } else if (spec.body == EngineHeadSpec::Body::kChunked) {
      out.Field("transfer-encoding", "chunked");
    }
    out.EndOfHead();
  });
}

base::Slice WriteClientHead(const wire::ResponseHead& engine, std::string_view request_id,
                            std::span<const plugin::Header> set_headers,
                            base::BufferPool& buffers) {
  const size_t bytes =
      engine.head_bytes + kOwnFieldBytes + request_id.size() + BytesOf(set_headers);
  return WriteBlock(buffers, bytes, [&](wire::HeadWriter& out) {
    out.StatusLine(engine.status, engine.reason);
    bool has_request_id = false;
    for (const HttpField& field : engine.fields) {
      if (field.hop_by_hop || field.id == HttpFieldId::kContentLength ||
          field.id == HttpFieldId::kDate) {
        continue;
      }
      if (!set_headers.empty() && Sets(set_headers, field.name)) continue;
      has_request_id |= field.id == HttpFieldId::kXRequestId;
      out.Field(field.name, field.value);
    }
    for (const plugin::Header& h : set_headers) out.Field(h.name, h.value);
    if (!has_request_id) out.Field("x-request-id", request_id);
  });
}

}  // namespace llmd::gateway
