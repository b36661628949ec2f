// The prompt of a request as views of its body: Pieces, token ids, and what the engine fills into
// token ids; PieceList and MediaFeatureList collect them while a body is read (internal to
// protocol/).
//
// Thread safety: none; lists belong to one request. Memory: the request's arena only.
// Invariants and limits: request.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/arena.h"

namespace llmd::protocol {

struct Request;

// What the bytes of a Piece are.
enum class Encoding : uint8_t {
  kJson,      // text: the inside of a JSON string, escapes untouched; token ids: decimal numbers
  kProtobuf,  // text: itself; token ids: packed varints
};

enum class PieceKind : uint8_t {
  kRole,          // of a message
  kText,          // message content, prompt or input
  kSystem,        // a system prompt beside the messages, which engines put before them
  kTools,         // the tools array as raw JSON
  kToolCalls,     // tool calls (or call arguments, results that are no text) as raw JSON
  kTokenIds,      // token ids, `token_count` of them
  // Content that is not text: bytes are its URL, data or file id.
  kImage,
  kAudio,
  kVideo,
  kFile,
};
constexpr bool IsMedia(PieceKind kind) { return kind >= PieceKind::kImage; }

struct Piece {
  std::string_view bytes;
  // Which prompt of the request it belongs to: completions and embeddings take lists of prompts,
  // messages are all prompt 0.
  uint32_t prompt = 0;
  uint32_t token_count = 0;  // kTokenIds, on the last Piece of the value
  PieceKind kind = PieceKind::kText;
  bool continued = false;    // goes on with the value of the Piece before
};

// Token ids [offset, offset + length) of the prompt stand for this content.
struct MediaFeature {
  PieceKind modality = PieceKind::kImage;
  uint32_t offset = 0;
  uint32_t length = 0;
  std::string_view hash;  // of the content, as the sender computed it; empty when it sent none
};

// Calls visit(uint32_t) for each token id of a value of kind kTokenIds. A number may be cut between
// two pieces.
template <class Visit>
void ForEachTokenId(Encoding encoding, std::span<const Piece> value, Visit visit) {
  uint32_t id = 0;
  uint32_t shift = 0;
  bool in_number = false;
  for (const Piece& piece : value) {
    for (const char c : piece.bytes) {
      const auto byte = static_cast<uint8_t>(c);
      if (encoding == Encoding::kProtobuf) {
        if (shift < 32) id |= (byte & 0x7fu) << shift;
        shift += 7;
        if (byte >= 0x80) continue;
        visit(id);
        id = shift = 0;
      } else if (byte >= '0' && byte <= '9') {
        id = id * 10 + (byte - '0');
        in_number = true;
      } else if (in_number) {
        visit(id);
        id = 0;
        in_number = false;
      }
    }
  }
  if (in_number) visit(id);
}

// A growing array in an arena; earlier places of it stay readable.
template <class T>
class ArenaList {
 public:
  T& Push(base::Arena& arena, const T& item) {
    if (size_ == capacity_) {
      capacity_ = capacity_ ? capacity_ * 2 : 16;
      const std::span<T> grown = arena.NewSpan<T>(capacity_);
      std::copy_n(items_, size_, grown.data());
      items_ = grown.data();
    }
    return items_[size_++] = item;
  }
  size_t size() const { return size_; }
  T& back() { return items_[size_ - 1]; }
  std::span<T> items() { return {items_, size_}; }

 private:
  T* items_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

class PieceList {
 public:
  // 8,192 pieces are 256 KiB of arena: a conversation of over 4,000 messages.
  static constexpr size_t kPiecesMax = 8192;

  PieceList(base::Arena& arena, Request* request) : arena_(arena), request_(request) {}

  // Counts the prompt that the value at hand is, once for all of its parts: call before Add.
  void BeginPrompt();
  // Records a part of a value; `last` ends the value, and then `ids` is the number of its token
  // ids.
  void Add(PieceKind kind, std::string_view part, bool last, uint64_t ids = 0);
  void Finish();

 private:
  base::Arena& arena_;
  Request* request_;
  ArenaList<Piece> pieces_;
  bool piece_open_ = false;  // the value at hand has a Piece already
  bool in_value_ = false;    // the value at hand has had a part
};

class MediaFeatureList {
 public:
  // The smallest images take some sixty tokens: a prompt of that many media is 64k tokens.
  static constexpr size_t kMediaFeaturesMax = 1024;

  explicit MediaFeatureList(base::Arena& arena) : arena_(arena) {}

  // The n-th placeholder of a modality belongs to its n-th hash.
  void AddHash(PieceKind modality, std::string_view hash);
  void AddPlaceholder(PieceKind modality, uint32_t offset, uint32_t length);
  void Finish(Request* request);

 private:
  struct Hash {
    PieceKind modality;
    std::string_view text;
  };
  base::Arena& arena_;
  ArenaList<Hash> hashes_;
  ArenaList<MediaFeature> features_;
  uint64_t dropped_ = 0;
};

}  // namespace llmd::protocol
