#include "plugins/producer/sidecar_messages.h"

#include <simdjson.h>

#include <algorithm>
#include <optional>
#include <ranges>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "wire/protobuf.h"

namespace llmd::plugins {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;
using wire::ProtoField;
using wire::ProtoReader;
using wire::ProtoWire;
using wire::ProtoWriter;

// One message, written from its last field to its first.
class Message {
 public:
  ProtoWriter* operator->() { return &out_; }
  ProtoWriter& operator*() { return out_; }
  std::string Take() { return std::string(out_.Take().view()); }

 private:
  base::BufferPool pool_;
  ProtoWriter out_{&pool_};
};

// A field that is there and not null.
std::optional<element> Find(const object& in, std::string_view field) {
  element value;
  if (in.at_key(field).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}

std::optional<std::string_view> Text(const object& in, std::string_view field) {
  std::string_view text;
  const auto value = Find(in, field);
  if (!value || value->get(text) != simdjson::SUCCESS) return std::nullopt;
  return text;
}

// The elements of an array, none where there is no array.
std::vector<element> Items(const std::optional<element>& value) {
  std::vector<element> out;
  array items;
  if (value && value->get(items) == simdjson::SUCCESS) out.assign(items.begin(), items.end());
  return out;
}

// ContentPart {type = 1, text = 2, image_url = 3 {url = 1}}
base::Status WritePart(const element& value, ProtoWriter& out) {
  object part;
  if (value.get(part) != simdjson::SUCCESS) {
    return base::InvalidArgument("a content part is not an object");
  }
  const std::string_view type = Text(part, "type").value_or("");
  if (type == "text") {
    out.Bytes(2, Text(part, "text").value_or(""));
  } else if (type == "image_url") {
    object image;
    const auto source = Find(part, "image_url");
    if (!source || source->get(image) != simdjson::SUCCESS) {
      return base::InvalidArgument("an image_url without a URL");
    }
    const size_t mark = out.size();
    out.Bytes(1, Text(image, "url").value_or(""));
    out.Wrap(3, mark);
  } else {
    return base::Unimplemented(
        base::Concat("the tokenizer sidecar takes no content of type \"", type, "\""));
  }
  out.Bytes(1, type);
  return base::OkStatus();
}

// ChatMessage {role = 1, content = 2, content_parts = 3, tool_calls_json = 4}
base::Status WriteMessage(const element& value, ProtoWriter& out) {
  object message;
  if (value.get(message) != simdjson::SUCCESS) {
    return base::InvalidArgument("a message is not an object");
  }
  const auto calls = Find(message, "tool_calls");
  if (!Items(calls).empty()) out.Bytes(4, simdjson::minify(*calls));
  const auto content = Find(message, "content");
  for (const element& part : Items(content) | std::views::reverse) {
    const size_t mark = out.size();
    LLMD_RETURN_IF_ERROR(WritePart(part, out));
    out.Wrap(3, mark);
  }
  if (const auto text = Text(message, "content")) out.Bytes(2, *text);
  out.Bytes(1, Text(message, "role").value_or(""));
  return base::OkStatus();
}

// The arguments of the template as JSON, or "".
std::string TemplateArguments(const object& request) {
  std::string out;
  object given;
  const auto arguments = Find(request, "chat_template_kwargs");
  const bool any = arguments && arguments->get(given) == simdjson::SUCCESS;
  const auto add = [&out](std::string_view key, const element& value) {
    out += out.empty() ? '{' : ',';
    base::AppendJsonString(&out, key);
    out += ':';
    out += simdjson::minify(value);
  };
  if (any) {
    for (const auto& [key, value] : given) add(key, value);
  }
  for (const std::string_view key : {"documents", "reasoning_effort"}) {
    const auto value = Find(request, key);
    if (value && !(any && Find(given, key))) add(key, *value);
  }
  if (!out.empty()) out += '}';
  return out;
}

bool ReadIds(const ProtoField& field, std::vector<uint32_t>* ids) {
  if (field.wire == ProtoWire::kVarint) {
    ids->push_back(static_cast<uint32_t>(field.value));
    return true;
  }
  if (field.wire != ProtoWire::kBytes) return false;
  ids->reserve(ids->size() + field.bytes.size() / 2);
  uint64_t id = 0;
  uint32_t shift = 0;
  for (const char c : field.bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (shift < 64) id |= uint64_t{byte & 0x7fu} << shift;
    shift += 7;
    if (byte >= 0x80) continue;
    ids->push_back(static_cast<uint32_t>(id));
    id = shift = 0;
  }
  return shift == 0;
}

// StringList {values = 1} or PlaceholderRangeList {ranges = 1 {offset = 1, length = 2}}
struct Features {
  TokenPrompt* prompt;
  MediaHashes hashes;

  void AddHashes(protocol::PieceKind modality, std::string_view list, ProtoReader& outer) {
    ProtoReader in(list);
    for (ProtoField f; in.Next(&f);) {
      if (f.number == 1 && in.Expect(f, ProtoWire::kBytes)) hashes.emplace_back(modality, f.bytes);
    }
    outer.Adopt(in.error());
  }
  void AddRanges(protocol::PieceKind modality, std::string_view list, ProtoReader& outer) {
    ProtoReader in(list);
    for (ProtoField f; in.Next(&f);) {
      if (f.number != 1 || !in.Expect(f, ProtoWire::kBytes)) continue;
      TokenPrompt::Feature feature{.modality = modality};
      ProtoReader range(f.bytes);
      for (ProtoField g; range.Next(&g);) {
        if (g.number > 2 || !range.Expect(g, ProtoWire::kVarint)) continue;
        (g.number == 1 ? feature.offset : feature.length) = static_cast<uint32_t>(g.value);
      }
      in.Adopt(range.error());
      prompt->features.push_back(std::move(feature));
    }
    outer.Adopt(in.error());
  }
};

// MultiModalFeatures {mm_hashes = 1, mm_placeholders = 2}, maps {key = 1, value = 2} by modality.
void ReadFeatures(std::string_view message, TokenPrompt* prompt, ProtoReader& outer) {
  Features features{.prompt = prompt, .hashes = {}};
  ProtoReader in(message);
  for (ProtoField f; in.Next(&f);) {
    if (f.number > 2 || !in.Expect(f, ProtoWire::kBytes)) continue;
    std::string_view key, value;
    ProtoReader entry(f.bytes);
    for (ProtoField g; entry.Next(&g);) {
      if (g.number > 2 || !entry.Expect(g, ProtoWire::kBytes)) continue;
      (g.number == 1 ? key : value) = g.bytes;
    }
    in.Adopt(entry.error());
    if (f.number == 1) {
      features.AddHashes(ModalityOf(key), value, in);
    } else {
      features.AddRanges(ModalityOf(key), value, in);
    }
  }
  outer.Adopt(in.error());
  GiveHashes(std::move(features.hashes), *prompt);
}

base::Status Outcome(const ProtoReader& in, bool success, std::string_view words) {
  if (in.error() != wire::ProtoError::kNone) {
    return base::Internal(base::Concat("a reply of the tokenizer sidecar that cannot be read: ",
                                       wire::ProtoErrorText(in.error())));
  }
  if (success) return base::OkStatus();
  return base::Status(base::StatusCode::kFailedPrecondition,
                      base::Concat("the tokenizer sidecar refuses: ", words));
}

// token_ids = 2, then features (chats only), success and error_message one behind the other.
base::Result<TokenPrompt> ReadRendered(std::string_view reply, bool chat) {
  const uint32_t success_number = chat ? 4 : 3;
  TokenPrompt prompt;
  bool success = false;
  std::string_view words;
  ProtoReader in(reply);
  for (ProtoField f; in.Next(&f);) {
    if (f.number == 2) {
      if (!ReadIds(f, &prompt.ids)) in.Adopt(wire::ProtoError::kWrongWireType);
    } else if (f.number == 3 && chat) {
      if (in.Expect(f, ProtoWire::kBytes)) ReadFeatures(f.bytes, &prompt, in);
    } else if (f.number == success_number) {
      if (in.Expect(f, ProtoWire::kVarint)) success = f.flag();
    } else if (f.number == success_number + 1) {
      if (in.Expect(f, ProtoWire::kBytes)) words = f.bytes;
    }
  }
  LLMD_RETURN_IF_ERROR(Outcome(in, success, words));
  return prompt;
}

}  // namespace

std::string SidecarInitializeRequest(std::string_view model) {
  Message out;
  out->Varint(3, 1);  // add_generation_prompt
  out->Bytes(1, model);
  return out.Take();
}

std::string SidecarTextRequest(std::string_view model, std::string_view prompt) {
  Message out;
  out->Bytes(2, prompt);
  out->Bytes(1, model);
  return out.Take();
}

base::Result<std::string> SidecarChatRequest(std::string_view model, std::string_view chat) {
  simdjson::dom::parser parser;
  object request;
  if (const auto error = parser.parse(chat.data(), chat.size()).get(request)) {
    return std::unexpected(base::InvalidArgument(
        base::Concat("the body of a chat completion: ", simdjson::error_message(error))));
  }
  Message out;
  const auto flag = [&](std::string_view field) -> std::optional<bool> {
    bool value = false;
    const auto found = Find(request, field);
    if (!found || found->get(value) != simdjson::SUCCESS) return std::nullopt;
    return value;
  };
  const std::string arguments = TemplateArguments(request);
  if (!arguments.empty()) out->Bytes(7, arguments);
  if (flag("continue_final_message").value_or(false)) out->Varint(6, 1);
  if (const auto prompt = flag("add_generation_prompt")) out->Varint(5, *prompt ? 1 : 0);
  out->BytesIfAny(4, Text(request, "chat_template").value_or(""));
  const auto tools = Find(request, "tools");
  if (!Items(tools).empty()) out->Bytes(3, simdjson::minify(*tools));
  for (const element& message : Items(Find(request, "messages")) | std::views::reverse) {
    const size_t mark = out->size();
    LLMD_RETURN_IF_ERROR(WriteMessage(message, *out));
    out->Wrap(2, mark);
  }
  out->Bytes(1, model);
  return out.Take();
}

base::Status ReadSidecarInitialized(std::string_view reply) {
  bool success = false;
  std::string_view words;
  ProtoReader in(reply);
  for (ProtoField f; in.Next(&f);) {
    if (f.number == 1 && in.Expect(f, ProtoWire::kVarint)) success = f.flag();
    if (f.number == 2 && in.Expect(f, ProtoWire::kBytes)) words = f.bytes;
  }
  return Outcome(in, success, words);
}

base::Result<TokenPrompt> ReadSidecarText(std::string_view reply) {
  return ReadRendered(reply, /*chat=*/false);
}

base::Result<TokenPrompt> ReadSidecarChat(std::string_view reply) {
  return ReadRendered(reply, /*chat=*/true);
}

}  // namespace llmd::plugins
