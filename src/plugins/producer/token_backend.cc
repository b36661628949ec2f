#include "plugins/producer/token_backend.h"

#include <algorithm>
#include <utility>

namespace llmd::plugins {

protocol::PieceKind ModalityOf(std::string_view name) {
  if (name == "audio") return protocol::PieceKind::kAudio;
  if (name == "video") return protocol::PieceKind::kVideo;
  return protocol::PieceKind::kImage;
}

void GiveHashes(MediaHashes hashes, TokenPrompt& prompt) {
  for (TokenPrompt::Feature& feature : prompt.features) {
    const auto it =
        std::ranges::find_if(hashes, [&](const auto& h) { return h.first == feature.modality; });
    if (it == hashes.end()) continue;
    feature.hash = std::move(it->second);
    hashes.erase(it);
  }
  std::ranges::sort(prompt.features, {}, &TokenPrompt::Feature::offset);
}

std::string BodyOf(const plugin::RequestContext& request) {
  std::string body;
  body.reserve(request.body->body_bytes);
  for (const std::string_view part : request.body_parts) body.append(part);
  return body;
}

}  // namespace llmd::plugins
