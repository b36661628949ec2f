// An ext_proc message as text, once from the protobuf library's object and once from our readers:
// equal texts mean that both understood the same.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/random.h"
#include "base/strings.h"
#include "envoy/service/ext_proc/v3/external_processor.pb.h"
#include "wire/ext_proc.h"
#include "wire/ext_proc_client.h"

namespace llmd::wire {

namespace pb = envoy::service::ext_proc::v3;

inline std::string Flat(std::span<const base::Slice> slices) {
  std::string out;
  for (const base::Slice& slice : slices) out.append(slice.view());
  return out;
}

// --- Structs ------------------------------------------------------------------------------------

inline std::string Text(const StructField& value);
inline std::string Text(std::span<const StructField> fields) {
  std::map<std::string_view, std::string> texts;  // the last of a name counts
  for (const StructField& field : fields) texts[field.name] = Text(field);
  std::string out = "{";
  for (const auto& [name, text] : texts) out += base::Concat(name, ":", text, ",");
  return out + "}";
}
inline std::string Text(const StructField& value) {
  switch (value.kind) {
    case StructKind::kNull: return "null";
    case StructKind::kNumber: return "#" + std::to_string(value.number);
    case StructKind::kString: return base::Concat("'", value.text, "'");
    case StructKind::kBool: return value.flag ? "true" : "false";
    case StructKind::kStruct: return Text(value.fields);
    case StructKind::kList: break;
  }
  std::string out = "[";
  for (const StructField& element : value.fields) out += Text(element) + ",";
  return out + "]";
}

inline std::string Text(const google::protobuf::Value& value);
inline std::string Text(const google::protobuf::Struct& fields) {
  std::map<std::string_view, std::string> texts;
  for (const auto& [name, value] : fields.fields()) texts[name] = Text(value);
  std::string out = "{";
  for (const auto& [name, text] : texts) out += base::Concat(name, ":", text, ",");
  return out + "}";
}
inline std::string Text(const google::protobuf::Value& value) {
  switch (value.kind_case()) {
    case google::protobuf::Value::kNumberValue: return "#" + std::to_string(value.number_value());
    case google::protobuf::Value::kStringValue: return "'" + value.string_value() + "'";
    case google::protobuf::Value::kBoolValue: return value.bool_value() ? "true" : "false";
    case google::protobuf::Value::kStructValue: return Text(value.struct_value());
    case google::protobuf::Value::kListValue: break;
    default: return "null";
  }
  std::string out = "[";
  for (const auto& element : value.list_value().values()) out += Text(element) + ",";
  return out + "]";
}

// --- requests -----------------------------------------------------------------------------------

inline std::string Text(const envoy::config::core::v3::HeaderValue& header) {
  const std::string& value = header.raw_value().empty() ? header.value() : header.raw_value();
  return header.key() + "=" + value + "\n";
}

inline std::string SubsetText(bool has_subset, std::span<const std::string_view> subset) {
  std::string out = has_subset ? "subset" : "no subset";
  for (const std::string_view endpoint : subset) out += base::Concat(" ", endpoint);
  return out + "\n";
}

inline std::string SubsetText(const envoy::config::core::v3::Metadata& metadata) {
  const auto space = metadata.filter_metadata().find("envoy.lb.subset_hint");
  if (space == metadata.filter_metadata().end()) return SubsetText(false, {});
  const auto hint = space->second.fields().find("x-gateway-destination-endpoint-subset");
  if (hint == space->second.fields().end()) return SubsetText(false, {});
  std::vector<std::string_view> endpoints;
  if (hint->second.has_string_value()) {
    endpoints = base::Split(hint->second.string_value(), ',');
  } else if (hint->second.has_list_value()) {
    for (const auto& element : hint->second.list_value().values()) {
      endpoints.push_back(element.string_value());
    }
  } else {
    return SubsetText(false, {});
  }
  for (std::string_view& endpoint : endpoints) endpoint = base::Trim(endpoint);
  std::erase(endpoints, "");
  return SubsetText(true, endpoints);
}

inline std::string ServedText(const envoy::config::core::v3::Metadata& metadata) {
  const auto space = metadata.filter_metadata().find("envoy.lb");
  if (space == metadata.filter_metadata().end()) return "nobody told";
  const auto served = space->second.fields().find("x-gateway-destination-endpoint-served");
  if (served == space->second.fields().end()) return "";
  return std::string(base::Trim(served->second.string_value()));
}

inline std::string Text(const pb::ProcessingRequest& request) {
  std::string out;
  const auto headers = [&](const char* kind, const auto& map, bool end_of_stream) {
    out += std::string(kind) + (end_of_stream ? " eos\n" : "\n");
    for (const auto& header : map.headers()) out += Text(header);
  };
  const auto body = [&](const char* kind, const pb::HttpBody& body) {
    out += std::string(kind) + (body.end_of_stream() ? " eos\n" : "\n") + body.body() + "\n";
  };
  using Case = pb::ProcessingRequest::RequestCase;
  switch (request.request_case()) {
    case Case::kRequestHeaders:
      headers("request_headers", request.request_headers().headers(),
              request.request_headers().end_of_stream());
      break;
    case Case::kResponseHeaders:
      headers("response_headers", request.response_headers().headers(),
              request.response_headers().end_of_stream());
      break;
    case Case::kRequestBody: body("request_body", request.request_body()); break;
    case Case::kResponseBody: body("response_body", request.response_body()); break;
    case Case::kRequestTrailers:
      headers("request_trailers", request.request_trailers().trailers(), false);
      break;
    case Case::kResponseTrailers:
      headers("response_trailers", request.response_trailers().trailers(), false);
      break;
    case Case::REQUEST_NOT_SET: out += "none\n"; break;
  }
  if (request.observability_mode()) out += "observability\n";
  if (request.has_protocol_config()) {
    for (const int mode : {request.protocol_config().request_body_mode(),
                           request.protocol_config().response_body_mode()}) {
      out += mode >= 0 && mode <= 5 ? "mode " + std::to_string(mode) + "\n" : "mode 255\n";
    }
  }
  return out + SubsetText(request.metadata_context()) + "served " +
         ServedText(request.metadata_context()) + "\n";
}

// Of the message that `reader` has complete.
inline std::string Text(const ExtProcReader& reader) {
  const ExtProcMessage& message = reader.message();
  std::string out(ExtProcKindName(message.kind));
  out += message.end_of_stream ? " eos\n" : "\n";
  for (const ExtProcHeader& header : message.headers) {
    out += base::Concat(header.name, "=", header.value, "\n");
  }
  if (message.kind == ExtProcKind::kRequestBody || message.kind == ExtProcKind::kResponseBody) {
    std::vector<base::Slice> body;
    reader.TakeBody(&body);
    const std::string bytes = Flat(body);
    LLMD_CHECK(bytes.size() == message.body_bytes, "body_bytes is not the length of the body");
    out += bytes + "\n";
  }
  if (message.observability_mode) out += "observability\n";
  if (message.has_protocol_config) {
    for (const ExtProcBodyMode mode : {message.request_body_mode, message.response_body_mode}) {
      out += "mode " + std::to_string(static_cast<int>(mode)) + "\n";
    }
  }
  const base::Result<ExtProcMetadata> metadata = reader.ReadMetadata();
  if (!metadata) return out + metadata.error().ToString();
  return base::Concat(out, SubsetText(metadata->has_subset, metadata->subset), "served ",
                      metadata->served_endpoint.value_or("nobody told"), "\n");
}

// --- replies ------------------------------------------------------------------------------------

inline std::string Text(const pb::HeaderMutation& mutation) {
  std::string out;
  for (const auto& option : mutation.set_headers()) out += "set " + Text(option.header());
  for (const std::string& name : mutation.remove_headers()) out += "remove " + name + "\n";
  return out;
}

inline std::string Text(const pb::CommonResponse& common) {
  std::string out;
  if (common.status() == pb::CommonResponse::CONTINUE_AND_REPLACE) out += "replace\n";
  if (common.clear_route_cache()) out += "clear_route_cache\n";
  out += Text(common.header_mutation());
  if (!common.has_body_mutation()) return out;
  const pb::BodyMutation& mutation = common.body_mutation();
  out += "mutation";
  if (mutation.has_streamed_response()) out += " streamed";
  if (mutation.streamed_response().end_of_stream()) out += " eos";
  if (mutation.clear_body()) out += " clear";
  return out + "\n" + mutation.body() + mutation.streamed_response().body() + "\n";
}

inline std::string Text(const pb::ProcessingResponse& response) {
  std::string out;
  using Case = pb::ProcessingResponse::ResponseCase;
  switch (response.response_case()) {
    case Case::kRequestHeaders:
      out = "request_headers\n" + Text(response.request_headers().response());
      break;
    case Case::kResponseHeaders:
      out = "response_headers\n" + Text(response.response_headers().response());
      break;
    case Case::kRequestBody:
      out = "request_body\n" + Text(response.request_body().response());
      break;
    case Case::kResponseBody:
      out = "response_body\n" + Text(response.response_body().response());
      break;
    case Case::kRequestTrailers:
      out = "request_trailers\n" + Text(response.request_trailers().header_mutation());
      break;
    case Case::kResponseTrailers:
      out = "response_trailers\n" + Text(response.response_trailers().header_mutation());
      break;
    case Case::kImmediateResponse: {
      const pb::ImmediateResponse& immediate = response.immediate_response();
      out = "immediate " + std::to_string(immediate.status().code());
      if (immediate.has_grpc_status()) {
        out += " grpc " + std::to_string(immediate.grpc_status().status());
      }
      out += " " + immediate.details() + "\n" + Text(immediate.headers()) + immediate.body() + "\n";
      break;
    }
    default: out = "none\n";
  }
  return out + Text(response.dynamic_metadata());
}

inline std::string Text(const ExtProcReplyReader& reader) {
  const ExtProcReply& reply = reader.reply();
  std::string out = reply.immediate ? "immediate " + std::to_string(reply.status)
                                    : std::string(ExtProcKindName(reply.kind));
  if (reply.grpc_status) out += " grpc " + std::to_string(*reply.grpc_status);
  if (reply.immediate) out += base::Concat(" ", reply.details);
  out += "\n";
  if (reply.continue_and_replace) out += "replace\n";
  if (reply.clear_route_cache) out += "clear_route_cache\n";
  for (const ExtProcHeader& header : reply.set_headers) {
    out += base::Concat("set ", header.name, "=", header.value, "\n");
  }
  for (const std::string_view name : reply.remove_headers) {
    out += base::Concat("remove ", name, "\n");
  }
  std::vector<base::Slice> body;
  reader.TakeBody(&body);
  if (reply.has_body_mutation) {
    out += "mutation";
    if (reply.streamed) out += " streamed";
    if (reply.end_of_stream) out += " eos";
    if (reply.clear_body) out += " clear";
    out += "\n";
  }
  if (reply.has_body_mutation || reply.immediate) out += Flat(body) + "\n";
  return out + Text(reply.dynamic_metadata);
}

// --- feeding ------------------------------------------------------------------------------------

// Feeds `message` cut at `cuts` (ascending), each piece in a block of its own so that reading
// outside of it is seen by the address sanitizer.
template <class Reader>
base::Status FeedCut(std::string_view message, const std::vector<size_t>& cuts,
                     base::BufferPool* pool, Reader* reader) {
  size_t begin = 0;
  for (const size_t cut : cuts) {
    LLMD_RETURN_IF_ERROR(reader->Feed(pool->Copy(message.substr(begin, cut - begin)), false));
    begin = cut;
  }
  return reader->Feed(pool->Copy(message.substr(begin)), true);
}

}  // namespace llmd::wire
