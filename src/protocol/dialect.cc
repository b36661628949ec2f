#include "protocol/dialect.h"

#include <array>

#include "base/check.h"

namespace llmd::protocol {
namespace {

constexpr Dialect kOpaqueDialect = {{Api::kOpaque, "opaque", "", true}, {}, ""};

constexpr FieldRow kStreamOptionsFields[] = {{"include_usage", Field::kIncludeUsage}};
// Messages of chat, items of responses and conversations.
constexpr FieldRow kMessageFields[] = {
    {"role", Field::kRole},
    {"content", Field::kContent},
    {"tool_calls", Field::kToolCalls},
    {"arguments", Field::kToolCalls},
    {"output", Field::kToolCalls},
};
constexpr FieldRow kPartFields[] = {
    {"text", Field::kPartText},      {"image_url", Field::kImage},  {"input_audio", Field::kAudio},
    {"audio_url", Field::kAudio},    {"video_url", Field::kVideo},  {"file", Field::kFile},
    {"file_id", Field::kFile},       {"file_data", Field::kFile},   {"file_url", Field::kFile},
};
constexpr FieldRow kMediaFields[] = {
    {"url", Field::kMediaBytes},
    {"data", Field::kMediaBytes},
    {"file_data", Field::kMediaBytes},
    {"file_id", Field::kMediaBytes},
};

}  // namespace

std::span<const FieldRow> FieldsIn(Context context) {
  switch (context) {
    case Context::kStreamOptions: return kStreamOptionsFields;
    case Context::kMessage: return kMessageFields;
    case Context::kPart: return kPartFields;
    case Context::kMedia: return kMediaFields;
    default: return {};
  }
}

const Dialect& DialectOf(Api api) {
  for (const Dialect& dialect : OpenAiDialects()) {
    if (dialect.info.api == api) return dialect;
  }
  return kOpaqueDialect;
}

const ApiInfo& InfoOf(Api api) { return DialectOf(api).info; }

std::span<const ApiInfo> OpenAiApis() {
  static const auto apis = [] {
    std::array<ApiInfo, kApiCount - 1> all{};
    LLMD_CHECK(OpenAiDialects().size() == all.size(), "an API without a dialect");
    for (size_t i = 0; i < all.size(); ++i) all[i] = OpenAiDialects()[i].info;
    return all;
  }();
  return apis;
}

std::optional<Api> OpenAiApiOfPath(std::string_view path) {
  if (path.ends_with('/')) path.remove_suffix(1);
  const ApiInfo* best = nullptr;
  for (const ApiInfo& info : OpenAiApis()) {
    if (!path.ends_with(info.path_suffix)) continue;
    if (!best || info.path_suffix.size() > best->path_suffix.size()) best = &info;
  }
  if (!best) return std::nullopt;
  return best->api;
}

}  // namespace llmd::protocol
