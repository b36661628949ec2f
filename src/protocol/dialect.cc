#include "protocol/dialect.h"

#include <array>

#include "base/check.h"

namespace llmd::protocol {
namespace {

constexpr Dialect kOpaqueDialect = {
    .info = {Api::kOpaque, ApiFamily::kNone, "opaque", "", ReplyFormat::kNone, false},
    .format = BodyFormat::kRaw};

constexpr FieldRow kStreamOptionsFields[] = {{"include_usage", Field::kIncludeUsage}};
// Messages of chat, items of responses and conversations.
constexpr FieldRow kMessageFields[] = {
    {"role", Field::kRole},
    {"content", Field::kContent},
    {"tool_calls", Field::kToolCalls},
    {"arguments", Field::kToolCalls},
    {"output", Field::kToolCalls},
};
constexpr FieldRow kFeaturesFields[] = {
    {"mm_hashes", Field::kHashes},
    {"mm_placeholders", Field::kPlaceholders},
};
constexpr FieldRow kModalityFields[] = {
    {"image", Field::kImage},
    {"audio", Field::kAudio},
    {"video", Field::kVideo},
};
constexpr FieldRow kPlaceholderFields[] = {
    {"offset", Field::kOffset},
    {"length", Field::kLength},
};

std::array<const Dialect*, kApiCount> MakeTable() {
  std::array<const Dialect*, kApiCount> table{};
  table[static_cast<size_t>(Api::kOpaque)] = &kOpaqueDialect;
  for (const auto dialects :
       {OpenAiDialects(), AnthropicDialects(), EngineDialects(), GrpcDialects()}) {
    for (const Dialect& dialect : dialects) {
      table[static_cast<size_t>(dialect.info.api)] = &dialect;
    }
  }
  for (const Dialect* dialect : table) LLMD_CHECK(dialect, "an API without a dialect");
  return table;
}

}  // namespace

std::span<const FieldRow> FieldsIn(const Dialect& dialect, Context context) {
  switch (context) {
    case Context::kBody: return dialect.body;
    case Context::kStreamOptions: return kStreamOptionsFields;
    case Context::kSampling: return dialect.sampling;
    case Context::kMessage: return kMessageFields;
    case Context::kPart: return dialect.part;
    case Context::kMedia: return dialect.media;
    case Context::kFeatures: return kFeaturesFields;
    case Context::kModalities: return kModalityFields;
    case Context::kPlaceholder: return kPlaceholderFields;
    default: return {};
  }
}

const Dialect& DialectOf(Api api) {
  static const std::array<const Dialect*, kApiCount> table = MakeTable();
  return *table[static_cast<size_t>(api)];
}

const ApiInfo& InfoOf(Api api) { return DialectOf(api).info; }

}  // namespace llmd::protocol
