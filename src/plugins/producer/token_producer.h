// token-producer: how many tokens the prompt has. The default producer of TokenizedPrompt.
//
// Built is the `estimate` back end, which needs no tokenizer: four bytes of raw JSON text per
// token, token ids as they are, and placeholder tokens for media:
//   image  width * height / factor, from the header of a PNG, JPEG or GIF in a data URL, else
//          defaultResolution; or staticToken each
//   video  min(frames * tokens per frame, maxVideoTokens); tokens per frame as for images. Mode
//          sampled: frames = duration * sampleFPS, kept within minFrames and maxFrames, over
//          temporalPatchSize. Mode strided: duration * source FPS / frameStride, kept within.
//          Duration, source FPS and resolution come from the headers
//          x-llm-d-video-duration-seconds, -fps and -resolution (WxH), else from the parameters
//   audio  a token per four bytes of its base64 text
//   file   one
// and never less than one. Division rounds down. At most kMediaTokensMax per value.
//
// Parameters: estimate {image {mode dynamic|static, defaultResolution {width 640, height 360},
// static {staticToken}, dynamic {factor 1024}}, video {defaultResolution, defaultDuration 10,
// maxVideoTokens, tokensPerFrame {mode, static {numTokensPerFrame}, dynamic {factor 1024}}, frames
// {mode sampled|strided, minFrames, maxFrames, sampled {sampleFPS 2, temporalPatchSize}, strided
// {defaultSourceFPS 24, frameStride 1}}}}. The back ends `vllm` (which modelName selects, too) and
// `udsTokenizerConfig` are refused as not built yet.
//
// Requests whose body is opaque get no TokenizedPrompt.
#pragma once

#include <cstdint>

#include "plugin/catalogue.h"

namespace llmd::plugins {

// The default limit of tokens that prefix matching looks at; a picture is never more than a prompt.
inline constexpr uint32_t kMediaTokensMax = 131072;

plugin::PluginType TokenProducerType();
// tokenizer, its old name.
plugin::PluginType TokenizerType();

}  // namespace llmd::plugins
