// The engines' own HTTP APIs, tokens in: vLLM's /inference/v1/generate, SGLang's /generate.
#include "protocol/dialect.h"

namespace llmd::protocol {
namespace {

constexpr FieldRow kVllmFields[] = {
    {"model", Field::kModel},
    {"token_ids", Field::kTokenIds},
    {"features", Field::kFeatures},
    {"sampling_params", Field::kSamplingParams},
    {"stream", Field::kStream},
    {"stream_options", Field::kStreamOptions},
    {"cache_salt", Field::kCacheSalt},
};
constexpr FieldRow kSglangFields[] = {
    {"input_ids", Field::kTokenIds},
    {"sampling_params", Field::kSamplingParams},
    {"stream", Field::kStream},
    {"extra_key", Field::kExtraKey},
};
constexpr FieldRow kVllmSampling[] = {{"max_tokens", Field::kOutputBound}, {"n", Field::kChoices}};
constexpr FieldRow kSglangSampling[] = {
    {"max_new_tokens", Field::kOutputBound},
    {"n", Field::kChoices},
};

constexpr std::string_view kUnreadable = "invalid generate request";

constexpr Dialect kDialects[] = {
    {.info = {Api::kVllmGenerate, ApiFamily::kVllmHttp, "inference/v1/generate",
              "inference/v1/generate"},
     .body = kVllmFields,
     .sampling = kVllmSampling,
     .content_error = "invalid generate request: must have non-empty token_ids field",
     .unreadable = kUnreadable},
    {.info = {Api::kSglangGenerate, ApiFamily::kSglangHttp, "generate", "generate",
              ReplyFormat::kSglang, false, /*exact_path=*/true},
     .body = kSglangFields,
     .sampling = kSglangSampling,
     .content_error = "invalid generate request: input_ids must be provided",
     .unreadable = kUnreadable},
};

}  // namespace

std::span<const Dialect> EngineDialects() { return kDialects; }

}  // namespace llmd::protocol
