#include "protocol/pieces.h"

#include "protocol/request.h"

namespace llmd::protocol {

void PieceList::BeginPrompt() {
  if (!in_value_) ++request_->prompt_count;
}

void PieceList::Add(PieceKind kind, std::string_view part, bool last, uint64_t ids) {
  if (!in_value_) piece_open_ = false;
  in_value_ = !last;
  if (last && IsMedia(kind)) ++request_->media_count;
  request_->text_bytes += part.size();
  Piece* open = piece_open_ ? &pieces_.back() : nullptr;
  if (open && open->bytes.data() + open->bytes.size() == part.data()) {
    open->bytes = {open->bytes.data(), open->bytes.size() + part.size()};
  } else if (!part.empty()) {
    if (pieces_.size() == kPiecesMax) {
      ++request_->pieces_dropped;
    } else {
      const uint32_t prompt = request_->prompt_count > 0 ? request_->prompt_count - 1 : 0;
      pieces_.Push(arena_, {part, prompt, 0, kind, open != nullptr});
      piece_open_ = true;
    }
  }
  if (kind != PieceKind::kTokenIds || !last) return;
  request_->token_count += ids;
  if (piece_open_) pieces_.back().token_count = static_cast<uint32_t>(ids);
}

void PieceList::Finish() { request_->pieces = pieces_.items(); }

void MediaFeatureList::AddHash(PieceKind modality, std::string_view hash) {
  if (hashes_.size() < kMediaFeaturesMax) hashes_.Push(arena_, {modality, hash});
}

void MediaFeatureList::AddPlaceholder(PieceKind modality, uint32_t offset, uint32_t length) {
  if (features_.size() == kMediaFeaturesMax) {
    ++dropped_;
    return;
  }
  features_.Push(arena_, {modality, offset, length, {}});
}

void MediaFeatureList::Finish(Request* request) {
  const std::span<const Hash> hashes = hashes_.items();
  size_t next[static_cast<size_t>(PieceKind::kFile) + 1] = {};  // by modality
  for (MediaFeature& feature : features_.items()) {
    size_t& at = next[static_cast<size_t>(feature.modality)];
    while (at < hashes.size() && hashes[at].modality != feature.modality) ++at;
    if (at < hashes.size()) feature.hash = hashes[at++].text;
  }
  std::ranges::sort(features_.items(), {}, &MediaFeature::offset);
  request->media_features = features_.items();
  request->pieces_dropped += dropped_;
}

}  // namespace llmd::protocol
