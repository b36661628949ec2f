// How many tokens a prompt has, guessed without a tokenizer: four bytes of raw JSON text per token,
// token ids as they are, and placeholder tokens for media:
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
// Thread safety: immutable.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "config/schema.h"
#include "plugin/keys.h"
#include "plugin/request_context.h"
#include "plugins/producer/prompt.h"

namespace llmd::plugins {

// The default limit of tokens that prefix matching looks at; a picture is never more than a prompt.
inline constexpr uint32_t kMediaTokensMax = 131072;

enum class CountMode { kDynamic, kStatic };
enum class FrameMode { kSampled, kStrided };

struct Resolution {
  int64_t width = 640;
  int64_t height = 360;
};
// Fixed, or pixels over a factor: for images and for the frames of a video.
struct PixelCount {
  CountMode mode = CountMode::kDynamic;
  int64_t fixed = 1;
  int64_t factor = 1024;

  double Tokens(double width, double height) const {
    return mode == CountMode::kStatic ? static_cast<double>(fixed)
                                      : std::floor(width * height / static_cast<double>(factor));
  }
};

struct StaticImage {
  int64_t static_token = 1;
};
struct StaticFrame {
  int64_t num_tokens_per_frame = 1;
};
struct Dynamic {
  int64_t factor = 1024;
};
struct Image {
  CountMode mode = CountMode::kDynamic;
  Resolution resolution;
  StaticImage fixed;
  Dynamic dynamic;
};
struct TokensPerFrame {
  CountMode mode = CountMode::kDynamic;
  StaticFrame fixed;
  Dynamic dynamic;
};
struct Sampled {
  double sample_fps = 2;
  int64_t temporal_patch_size = 0;
};
struct Strided {
  double source_fps = 24;
  int64_t frame_stride = 1;
};
struct Frames {
  FrameMode mode = FrameMode::kSampled;
  int64_t min_frames = 0;
  int64_t max_frames = 0;
  Sampled sampled;
  Strided strided;
};
struct Video {
  Resolution resolution;
  double duration_seconds = 10;
  TokensPerFrame tokens_per_frame;
  Frames frames;
  int64_t max_tokens = 0;
};
struct EstimateParameters {
  Image image;
  Video video;
};
config::TypePtr<EstimateParameters> EstimateParametersType();

class TokenEstimate {
 public:
  explicit TokenEstimate(const EstimateParameters& parameters);
  // Counts tokens and placeholders of the request's prompt, in its arena.
  void Count(const plugin::RequestContext& request, plugin::TokenizedPrompt* prompt) const;

 private:
  uint32_t MediaTokens(const plugin::RequestContext& request, const PromptValue& value) const;
  double ImageTokens(const PromptValue& value) const;
  double VideoTokens(const plugin::RequestContext& request) const;
  double FrameCount(const plugin::RequestContext& request) const;

  const EstimateParameters parameters_;
  const PixelCount image_;
  const PixelCount frame_;
};

}  // namespace llmd::plugins
