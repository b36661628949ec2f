#include "plugins/producer/anthropic_chat.h"

#include <simdjson.h>

#include <charconv>
#include <optional>
#include <vector>

#include "base/strings.h"

namespace llmd::plugins {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::element_type;
using simdjson::dom::object;

constexpr std::string_view kBillingPrefix = "x-anthropic-billing-header";
// vLLM makes one up from the clock; this one is as long.
constexpr std::string_view kCallIdFallback = "call_0000000000";

base::Status Wrong(std::string_view field, std::string_view wanted) {
  return base::InvalidArgument(base::Concat("\"", field, "\" is not ", wanted));
}

// A field that is there and not null.
std::optional<element> Find(const object& in, std::string_view field) {
  element value;
  if (in.at_key(field).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}

// "" where it is absent.
base::Result<std::string_view> Text(const object& in, std::string_view field) {
  const auto value = Find(in, field);
  if (!value) return std::string_view();
  std::string_view text;
  if (value->get(text) != simdjson::SUCCESS) return std::unexpected(Wrong(field, "a string"));
  return text;
}

// Members of an array of objects; none where it is absent.
base::Result<std::vector<object>> Objects(const object& in, std::string_view field) {
  std::vector<object> out;
  const auto value = Find(in, field);
  if (!value) return out;
  array items;
  if (value->get(items) != simdjson::SUCCESS) return std::unexpected(Wrong(field, "an array"));
  for (const element item : items) {
    object one;
    if (item.get(one) != simdjson::SUCCESS) {
      return std::unexpected(Wrong(field, "an array of objects"));
    }
    out.push_back(one);
  }
  return out;
}

// A content: text, or blocks.
struct Content {
  std::string_view raw;
  std::vector<object> blocks;
};
base::Result<Content> ContentOf(const object& in, std::string_view field) {
  Content content;
  const auto value = Find(in, field);
  if (!value) return content;
  if (value->get(content.raw) == simdjson::SUCCESS) return content;
  LLMD_ASSIGN_OR_RETURN(content.blocks, Objects(in, field));
  return content;
}

// ---- json.dumps --------------------------------------------------------------------------------

void AppendUnit(std::string& out, uint32_t unit) {
  constexpr char kHex[] = "0123456789abcdef";
  out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out += kHex[unit >> shift & 15];
}

// With everything that is not ASCII escaped; `text` is valid UTF-8.
void DumpString(std::string& out, std::string_view text) {
  out += '"';
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    const size_t bytes = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (bytes == 1) {
      constexpr std::string_view kShort = "\"\\\b\f\n\r\t";
      constexpr std::string_view kLetters = "\"\\bfnrt";
      const size_t at = kShort.find(static_cast<char>(lead));
      if (at != std::string_view::npos) {
        out += '\\';
        out += kLetters[at];
      } else if (lead < 0x20 || lead == 0x7f) {
        AppendUnit(out, lead);
      } else {
        out += static_cast<char>(lead);
      }
    } else {
      uint32_t code = lead & (0x7fu >> bytes);
      for (size_t k = 1; k < bytes && i + k < text.size(); ++k) {
        code = code << 6 | (static_cast<uint8_t>(text[i + k]) & 0x3f);
      }
      if (code >= 0x10000) {
        AppendUnit(out, 0xd800 + ((code - 0x10000) >> 10));
        AppendUnit(out, 0xdc00 + ((code - 0x10000) & 0x3ff));
      } else {
        AppendUnit(out, code);
      }
    }
    i += bytes;
  }
  out += '"';
}

// As Python's repr: the shortest digits, an exponent below 1e-4 and from 1e16 on.
void DumpDouble(std::string& out, double value) {
  char text[40];
  const double size = value < 0 ? -value : value;
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  const std::string_view digits(
      text, static_cast<size_t>(std::to_chars(text, std::end(text), value, format).ptr - text));
  out += digits;
  if (plain && digits.find('.') == std::string_view::npos) out += ".0";
}

void Dump(std::string& out, const element& value) {
  switch (value.type()) {
    case element_type::OBJECT: {
      out += '{';
      bool first = true;
      for (const auto& [key, member] : object(value)) {
        if (!std::exchange(first, false)) out += ", ";
        DumpString(out, key);
        out += ": ";
        Dump(out, member);
      }
      out += '}';
      return;
    }
    case element_type::ARRAY: {
      out += '[';
      bool first = true;
      for (const element item : array(value)) {
        if (!std::exchange(first, false)) out += ", ";
        Dump(out, item);
      }
      out += ']';
      return;
    }
    case element_type::STRING: return DumpString(out, std::string_view(value));
    case element_type::DOUBLE: return DumpDouble(out, double(value));
    default: out += simdjson::minify(value);
  }
}

// ---- messages ----------------------------------------------------------------------------------

// Objects and arrays of the chat, comma by comma.
class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}
  std::string& Item() {
    if (!std::exchange(first_, false)) out_ += ',';
    return out_;
  }
  std::string& Key(std::string_view key) {
    base::AppendJsonString(&Item(), key);
    return out_ += ':';
  }
  void Field(std::string_view key, std::string_view text) {
    base::AppendJsonString(&Key(key), text);
  }

 private:
  std::string& out_;
  bool first_ = true;
};

class Converter {
 public:
  explicit Converter(std::string& out) : messages_(out), out_(out) {}

  base::Status AddSystem(const object& in, std::string_view field) {
    LLMD_ASSIGN_OR_RETURN(const Content content, ContentOf(in, field));
    std::string joined(content.raw);
    for (const object& block : content.blocks) {
      LLMD_ASSIGN_OR_RETURN(const std::string_view type, Text(block, "type"));
      LLMD_ASSIGN_OR_RETURN(const std::string_view text, Text(block, "text"));
      if (type == "text" && !text.starts_with(kBillingPrefix)) joined += text;
    }
    if (!joined.empty()) AddText("system", joined);
    return base::OkStatus();
  }

  base::Status AddMessage(const object& message) {
    LLMD_ASSIGN_OR_RETURN(const std::string_view role, Text(message, "role"));
    if (role == "system") return AddSystem(message, "content");
    LLMD_ASSIGN_OR_RETURN(const Content content, ContentOf(message, "content"));
    if (!content.raw.empty()) {
      AddText(role, content.raw);
      return base::OkStatus();
    }
    Draft draft;
    for (const object& block : content.blocks) {
      LLMD_RETURN_IF_ERROR(AddBlock(block, role == "user", draft));
    }
    // One of nothing but tool results has been told already.
    if (role == "user" && draft.parts.empty()) return base::OkStatus();
    Writer fields(messages_.Item() += '{');
    fields.Field("role", role);
    AddContent(draft, fields);
    if (!draft.reasoning.empty()) fields.Field("reasoning", draft.reasoning);
    if (!draft.tool_calls.empty()) fields.Key("tool_calls") += "[" + draft.tool_calls + "]";
    out_ += '}';
    return base::OkStatus();
  }

 private:
  struct Part {
    bool image = false;
    std::string text;  // or the URL
  };
  struct Draft {
    std::vector<Part> parts;
    std::string reasoning;
    std::string tool_calls;  // JSON, without the brackets
  };

  void AddText(std::string_view role, std::string_view text) {
    Writer fields(messages_.Item() += '{');
    fields.Field("role", role);
    fields.Field("content", text);
    out_ += '}';
  }

  void AddContent(const Draft& draft, Writer& fields) {
    if (draft.parts.empty()) return;
    if (draft.parts.size() == 1 && !draft.parts[0].image) {
      return fields.Field("content", draft.parts[0].text);
    }
    Writer parts(fields.Key("content") += '[');
    for (const Part& part : draft.parts) {
      Writer one(parts.Item() += '{');
      one.Field("type", part.image ? "image_url" : "text");
      if (part.image) {
        Writer(one.Key("image_url") += '{').Field("url", part.text);
        out_ += '}';
      } else {
        one.Field("text", part.text);
      }
      out_ += '}';
    }
    out_ += ']';
  }

  base::Status AddBlock(const object& block, bool of_user, Draft& draft) {
    LLMD_ASSIGN_OR_RETURN(const std::string_view type, Text(block, "type"));
    if (type == "text") {
      LLMD_ASSIGN_OR_RETURN(const std::string_view text, Text(block, "text"));
      if (!text.empty()) draft.parts.push_back({.text = std::string(text)});
    } else if (type == "image") {
      return AddImage(block, draft.parts);
    } else if (type == "thinking") {
      LLMD_ASSIGN_OR_RETURN(const std::string_view text, Text(block, "thinking"));
      draft.reasoning += text;
    } else if (type == "tool_use") {
      return AddToolCall(block, draft.tool_calls);
    } else if (type == "tool_result") {
      return AddToolResult(block, of_user, draft);
    }
    return base::OkStatus();  // redacted_thinking, and what the API has not got
  }

  static base::Status AddImage(const object& block, std::vector<Part>& parts) {
    const auto value = Find(block, "source");
    if (!value) return base::OkStatus();
    object source;
    if (value->get(source) != simdjson::SUCCESS) return Wrong("source", "an object");
    LLMD_ASSIGN_OR_RETURN(const std::string_view type, Text(source, "type"));
    LLMD_ASSIGN_OR_RETURN(const std::string_view url, Text(source, "url"));
    LLMD_ASSIGN_OR_RETURN(const std::string_view data, Text(source, "data"));
    LLMD_ASSIGN_OR_RETURN(std::string_view media_type, Text(source, "media_type"));
    if (media_type.empty()) media_type = "image/jpeg";
    if (type == "url" || !url.empty()) {
      if (!url.empty()) parts.push_back({.image = true, .text = std::string(url)});
    } else if (!data.empty()) {
      parts.push_back(
          {.image = true, .text = base::Concat("data:", media_type, ";base64,", data)});
    }
    return base::OkStatus();
  }

  static base::Status AddToolCall(const object& block, std::string& calls) {
    LLMD_ASSIGN_OR_RETURN(std::string_view id, Text(block, "id"));
    LLMD_ASSIGN_OR_RETURN(const std::string_view name, Text(block, "name"));
    if (id.empty()) id = kCallIdFallback;
    std::string arguments = "{}";
    if (const auto input = Find(block, "input")) {
      arguments.clear();
      Dump(arguments, *input);
    }
    if (!calls.empty()) calls += ',';
    Writer call(calls += '{');
    call.Field("id", id);
    call.Field("type", "function");
    Writer function(call.Key("function") += '{');
    function.Field("name", name);
    function.Field("arguments", arguments);
    calls += "}}";
    return base::OkStatus();
  }

  base::Status AddToolResult(const object& block, bool of_user, Draft& draft) {
    LLMD_ASSIGN_OR_RETURN(const Content content, ContentOf(block, "content"));
    LLMD_ASSIGN_OR_RETURN(const std::string_view id, Text(block, "tool_use_id"));
    std::string text(content.raw);
    Draft images;
    bool first = true;
    for (const object& item : content.blocks) {
      LLMD_ASSIGN_OR_RETURN(const std::string_view type, Text(item, "type"));
      if (type == "text") {
        LLMD_ASSIGN_OR_RETURN(const std::string_view line, Text(item, "text"));
        if (!std::exchange(first, false)) text += '\n';
        text += line;
      } else if (type == "image") {
        LLMD_RETURN_IF_ERROR(AddImage(item, images.parts));
      }
    }
    if (!of_user) {
      draft.parts.push_back({.text = "Tool result: " + text});
      return base::OkStatus();
    }
    Writer fields(messages_.Item() += '{');
    fields.Field("role", "tool");
    fields.Field("content", text);
    if (!id.empty()) fields.Field("tool_call_id", id);
    out_ += '}';
    if (images.parts.empty()) return base::OkStatus();
    Writer user(messages_.Item() += '{');
    user.Field("role", "user");
    AddContent(images, user);
    out_ += '}';
    return base::OkStatus();
  }

  Writer messages_;
  std::string& out_;
};

// In the order of the fields in vLLM's models, which templates print.
base::Status AddTool(const object& tool, std::string& out) {
  LLMD_ASSIGN_OR_RETURN(const std::string_view name, Text(tool, "name"));
  LLMD_ASSIGN_OR_RETURN(const std::string_view description, Text(tool, "description"));
  Writer fields(out += '{');
  fields.Field("type", "function");
  Writer function(fields.Key("function") += '{');
  function.Field("name", name);
  if (!description.empty()) function.Field("description", description);
  const auto schema = Find(tool, "input_schema");
  function.Key("parameters") += schema ? simdjson::minify(*schema) : R"({"type":"object"})";
  for (const std::string_view flag : {"strict", "defer_loading"}) {
    const auto value = Find(tool, flag);
    if (!value) continue;
    if (!value->is_bool()) return Wrong(flag, "true or false");
    function.Key(flag) += simdjson::minify(*value);
  }
  out += "}}";
  return base::OkStatus();
}

base::Status Convert(const object& request, std::string_view model, std::string& out) {
  Writer fields(out += '{');
  if (!model.empty()) fields.Field("model", model);
  Converter converter(fields.Key("messages") += '[');
  LLMD_RETURN_IF_ERROR(converter.AddSystem(request, "system"));
  LLMD_ASSIGN_OR_RETURN(const std::vector<object> messages, Objects(request, "messages"));
  for (const object& message : messages) LLMD_RETURN_IF_ERROR(converter.AddMessage(message));
  out += ']';
  LLMD_ASSIGN_OR_RETURN(const std::vector<object> tools, Objects(request, "tools"));
  if (!tools.empty()) {
    Writer list(fields.Key("tools") += '[');
    for (const object& tool : tools) LLMD_RETURN_IF_ERROR(AddTool(tool, list.Item()));
    out += ']';
  }
  out += '}';
  return base::OkStatus();
}

}  // namespace

base::Result<std::string> ChatOfMessages(std::string_view body, std::string_view model) {
  simdjson::dom::parser parser;
  object request;
  if (const auto error = parser.parse(body.data(), body.size()).get(request)) {
    return std::unexpected(base::InvalidArgument(
        base::Concat("the body of a messages request: ", simdjson::error_message(error))));
  }
  std::string out;
  out.reserve(body.size() + 64);
  LLMD_RETURN_IF_ERROR(Convert(request, model, out));
  return out;
}

}  // namespace llmd::plugins
