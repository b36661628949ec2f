#include "plugins/producer/token_estimate.h"

#include <algorithm>
#include <cmath>

#include "base/strings.h"
#include "plugins/producer/image_size.h"

namespace llmd::plugins {
namespace {

constexpr std::string_view kVideoFpsHeader = "x-llm-d-video-fps";
constexpr std::string_view kVideoDurationHeader = "x-llm-d-video-duration-seconds";
constexpr std::string_view kVideoResolutionHeader = "x-llm-d-video-resolution";

config::TypePtr<Resolution> ResolutionType() {
  static const auto type =
      config::Object<Resolution>("Resolution")
          .Field("width", "Pixels.", &Resolution::width, config::Int<int64_t>(1, 1 << 20))
          .Field("height", "Pixels.", &Resolution::height, config::Int<int64_t>(1, 1 << 20))
          .Build();
  return type;
}
config::TypePtr<CountMode> CountModeType() {
  return config::Enum<CountMode>(
      {{"dynamic", CountMode::kDynamic}, {"static", CountMode::kStatic}});
}
config::TypePtr<int64_t> Count(int64_t min = 0) { return config::Int<int64_t>(min, 1 << 30); }

config::TypePtr<Dynamic> DynamicType() {
  static const auto type = config::Object<Dynamic>("Dynamic")
                               .Field("factor", "Pixels per token.", &Dynamic::factor, Count(1))
                               .Build();
  return type;
}

config::TypePtr<Image> ImageType() {
  static const auto fixed =
      config::Object<StaticImage>("StaticImage")
          .Field("staticToken", "Tokens of every image.", &StaticImage::static_token, Count(1))
          .Build();
  static const auto type =
      config::Object<Image>("ImageEstimate")
          .Field("mode", "By pixels or a fixed number.", &Image::mode, CountModeType())
          .Field("defaultResolution", "Of images whose size cannot be read.", &Image::resolution,
                 ResolutionType())
          .Field("static", "For mode static.", &Image::fixed, config::TypePtr<StaticImage>(fixed))
          .Field("dynamic", "For mode dynamic.", &Image::dynamic, DynamicType())
          .Build();
  return type;
}

config::TypePtr<Frames> FramesType() {
  static const auto sampled = config::Object<Sampled>("SampledFrames")
                                  .Field("sampleFPS", "Frames that the model looks at per second.",
                                         &Sampled::sample_fps, config::Double(1e-3, 1e3))
                                  .Field("temporalPatchSize", "Frames that become one.",
                                         &Sampled::temporal_patch_size, Count())
                                  .Build();
  static const auto strided =
      config::Object<Strided>("StridedFrames")
          .Field("defaultSourceFPS", "Frames per second of the video.", &Strided::source_fps,
                 config::Double(1e-3, 1e4))
          .Field("frameStride", "Of so many frames one is kept.", &Strided::frame_stride, Count(1))
          .Build();
  static const auto type =
      config::Object<Frames>("Frames")
          .Field("mode", "How frames are chosen.", &Frames::mode,
                 config::Enum<FrameMode>(
                     {{"sampled", FrameMode::kSampled}, {"strided", FrameMode::kStrided}}))
          .Field("minFrames", "At least so many.", &Frames::min_frames, Count())
          .Field("maxFrames", "At most so many, 0 for any number.", &Frames::max_frames, Count())
          .Field("sampled", "For mode sampled.", &Frames::sampled,
                 config::TypePtr<Sampled>(sampled))
          .Field("strided", "For mode strided.", &Frames::strided,
                 config::TypePtr<Strided>(strided))
          .Build();
  return type;
}

config::TypePtr<Video> VideoType() {
  static const auto fixed = config::Object<StaticFrame>("StaticFrame")
                                .Field("numTokensPerFrame", "Tokens of every frame.",
                                       &StaticFrame::num_tokens_per_frame, Count(1))
                                .Build();
  static const auto per_frame =
      config::Object<TokensPerFrame>("TokensPerFrame")
          .Field("mode", "By pixels or a fixed number.", &TokensPerFrame::mode, CountModeType())
          .Field("static", "For mode static.", &TokensPerFrame::fixed,
                 config::TypePtr<StaticFrame>(fixed))
          .Field("dynamic", "For mode dynamic.", &TokensPerFrame::dynamic, DynamicType())
          .Build();
  static const auto type =
      config::Object<Video>("VideoEstimate")
          .Field("defaultResolution", "Of videos without the header.", &Video::resolution,
                 ResolutionType())
          .Field("defaultDuration", "Seconds, of videos without the header.",
                 &Video::duration_seconds, config::Double(1e-3, 1e6))
          .Field("tokensPerFrame", "Tokens of one frame.", &Video::tokens_per_frame,
                 config::TypePtr<TokensPerFrame>(per_frame))
          .Field("frames", "Frames of a video.", &Video::frames, FramesType())
          .Field("maxVideoTokens", "At most so many per video, 0 for any number.",
                 &Video::max_tokens, Count())
          .Build();
  return type;
}

// Bounded below by one and above by kMediaTokensMax; NaN counts as one.
uint32_t Bounded(double tokens) {
  if (!(tokens >= 1)) return 1;
  return static_cast<uint32_t>(std::min<double>(tokens, kMediaTokensMax));
}

std::optional<double> PositiveHeader(const plugin::RequestContext& request, std::string_view name) {
  const auto text = request.FindHeader(name);
  const auto value = text ? base::ParseDouble(base::Trim(*text)) : std::nullopt;
  if (!value || !(*value > 0) || !std::isfinite(*value)) return std::nullopt;
  return value;
}

// "WIDTHxHEIGHT".
std::optional<Resolution> ResolutionHeader(const plugin::RequestContext& request) {
  const auto text = request.FindHeader(kVideoResolutionHeader);
  if (!text) return std::nullopt;
  const size_t x = text->find_first_of("xX");
  if (x == std::string_view::npos) return std::nullopt;
  const auto width = base::ParseInt(base::Trim(text->substr(0, x)));
  const auto height = base::ParseInt(base::Trim(text->substr(x + 1)));
  if (!width || !height || *width <= 0 || *height <= 0) return std::nullopt;
  return Resolution{*width, *height};
}

}  // namespace

config::TypePtr<EstimateParameters> EstimateParametersType() {
  using E = EstimateParameters;
  static const auto type = config::Object<E>("Estimate")
                               .Field("image", "Tokens of images.", &E::image, ImageType())
                               .Field("video", "Tokens of videos.", &E::video, VideoType())
                               .Build();
  return type;
}

TokenEstimate::TokenEstimate(const EstimateParameters& parameters)
    : parameters_(parameters),
      image_{.mode = parameters.image.mode,
             .fixed = parameters.image.fixed.static_token,
             .factor = parameters.image.dynamic.factor},
      frame_{.mode = parameters.video.tokens_per_frame.mode,
             .fixed = parameters.video.tokens_per_frame.fixed.num_tokens_per_frame,
             .factor = parameters.video.tokens_per_frame.dynamic.factor} {}

void TokenEstimate::Count(const plugin::RequestContext& request,
                          plugin::TokenizedPrompt* prompt) const {
  const std::span<uint32_t> media = request.arena->NewSpan<uint32_t>(request.body->media_count);
  if (!media.empty()) {
    ForEachValue(*request.body, [&](const PromptValue& value) {
      if (protocol::IsMedia(value.kind) && value.media_index < media.size()) {
        media[value.media_index] = MediaTokens(request, value);
      }
    });
  }
  prompt->token_count = CountTokens(*request.body, media);
  prompt->media_tokens = media;
}

uint32_t TokenEstimate::MediaTokens(const plugin::RequestContext& request,
                                    const PromptValue& value) const {
  switch (value.kind) {
    case protocol::PieceKind::kImage:
      return Bounded(ImageTokens(value));
    case protocol::PieceKind::kVideo:
      return Bounded(VideoTokens(request));
    case protocol::PieceKind::kAudio:
      return Bounded(std::ceil(static_cast<double>(value.bytes()) / prefix::kBytesPerToken));
    default:
      return 1;
  }
}

double TokenEstimate::ImageTokens(const PromptValue& value) const {
  std::optional<ImageSize> size;
  if (image_.mode == CountMode::kDynamic) size = ImageSizeOf(value.pieces);
  const Resolution& standard = parameters_.image.resolution;
  return size ? image_.Tokens(size->width, size->height)
              : image_.Tokens(static_cast<double>(standard.width),
                              static_cast<double>(standard.height));
}

double TokenEstimate::VideoTokens(const plugin::RequestContext& request) const {
  const Video& video = parameters_.video;
  const Resolution size = ResolutionHeader(request).value_or(video.resolution);
  const double per_frame = std::max(
      1.0, frame_.Tokens(static_cast<double>(size.width), static_cast<double>(size.height)));
  const double tokens = FrameCount(request) * per_frame;
  return video.max_tokens > 0 ? std::min(tokens, static_cast<double>(video.max_tokens)) : tokens;
}

double TokenEstimate::FrameCount(const plugin::RequestContext& request) const {
  const Frames& frames = parameters_.video.frames;
  const double duration =
      PositiveHeader(request, kVideoDurationHeader).value_or(parameters_.video.duration_seconds);
  const bool strided = frames.mode == FrameMode::kStrided;
  double n;
  if (strided) {
    const double fps =
        PositiveHeader(request, kVideoFpsHeader).value_or(frames.strided.source_fps);
    n = std::floor(std::floor(duration * fps) / static_cast<double>(frames.strided.frame_stride));
  } else {
    n = std::floor(duration * frames.sampled.sample_fps);
  }
  if (frames.min_frames > 0) n = std::max(n, static_cast<double>(frames.min_frames));
  if (frames.max_frames > 0) n = std::min(n, static_cast<double>(frames.max_frames));
  if (!strided && frames.sampled.temporal_patch_size > 1) {
    n = std::floor(n / static_cast<double>(frames.sampled.temporal_patch_size));
  }
  return n;
}

}  // namespace llmd::plugins
