// What a test or fuzzer compares: a parsed request as text, for any cutting of the body.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/strings.h"
#include "protocol/request.h"

namespace llmd::protocol {

constexpr std::string_view PieceKindName(PieceKind kind) {
  constexpr std::string_view kNames[] = {"role", "text",  "system", "tools", "tool_calls",
                                         "ids",  "image", "audio",  "video", "file"};
  return kNames[static_cast<int>(kind)];
}

// One line per value: kind, prompt and raw bytes, parts put together.
inline std::vector<std::string> PieceLines(const Request& request) {
  std::vector<std::string> lines;
  for (const Piece& piece : request.pieces) {
    if (!piece.continued) {
      lines.push_back(
          base::Concat(PieceKindName(piece.kind), "|", std::to_string(piece.prompt), "|"));
    }
    if (piece.kind != PieceKind::kTokenIds || request.encoding == Encoding::kJson) {
      lines.back().append(piece.bytes);
    }
  }
  return lines;
}

// The ids of every list of token ids, each list on a line.
inline std::string TokenIdLines(const Request& request) {
  std::string out;
  const std::span<const Piece> pieces = request.pieces;
  for (size_t begin = 0, end; begin < pieces.size(); begin = end) {
    end = begin + 1;
    while (end < pieces.size() && pieces[end].continued) ++end;
    if (pieces[begin].kind != PieceKind::kTokenIds) continue;
    out += "tokens:";
    ForEachTokenId(request.encoding, pieces.subspan(begin, end - begin),
                   [&out](uint32_t id) { out += " " + std::to_string(id); });
    out += "\n";
  }
  return out;
}

// The error, or every field and piece of the request.
inline std::string DescribeRequest(Api api, std::string_view body, const std::vector<size_t>& cuts,
                                   RequestOptions options = {}) {
  base::Arena arena;
  Request request;
  RequestParser parser(api, arena, &request, options);
  std::vector<std::vector<char>> chunks;  // a copy of its own each, kept as a body is kept
  size_t begin = 0;
  for (size_t i = 0; i <= cuts.size(); ++i) {
    const size_t end = i < cuts.size() ? cuts[i] : body.size();
    chunks.emplace_back(body.begin() + begin, body.begin() + end);
    parser.Feed({chunks.back().data(), chunks.back().size()});
    begin = end;
  }
  const base::Status status = parser.Finish();
  if (!status.ok()) return status.ToString();
  std::string out = base::Concat(
      "model=", request.model, "@", std::to_string(request.model_begin), "-",
      std::to_string(request.model_end), request.stream ? " stream" : "",
      request.include_usage ? " usage" : "", request.skip_response ? " skip" : "",
      " salt=", request.cache_salt,
      " max=", request.max_output_tokens ? std::to_string(*request.max_output_tokens) : "none",
      " n=", std::to_string(request.n), " prompts=", std::to_string(request.prompt_count),
      " messages=", std::to_string(request.message_count),
      " media=", std::to_string(request.media_count), " ids=", std::to_string(request.token_count),
      " text=", std::to_string(request.text_bytes), " body=", std::to_string(request.body_bytes),
      "\n");
  uint64_t ids = 0;
  for (const Piece& piece : request.pieces) ids += piece.token_count;
  if (ids != request.token_count) out += "the pieces count other ids\n";
  for (const std::string& line : PieceLines(request)) out += line + "\n";
  if (request.encoding == Encoding::kProtobuf) out += TokenIdLines(request);
  for (const MediaFeature& f : request.media_features) {
    out += base::Concat("feature|", PieceKindName(f.modality), "|", std::to_string(f.offset), "+",
                        std::to_string(f.length), "|", f.hash, "\n");
  }
  return out;
}

}  // namespace llmd::protocol
