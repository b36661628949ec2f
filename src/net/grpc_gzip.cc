#include "net/grpc_gzip.h"

#define ZLIB_CONST
#include <zlib.h>

#include <algorithm>

#include "base/check.h"

namespace llmd::net {
namespace {
constexpr int kGzipOnly = 16 + MAX_WBITS;
}  // namespace

GzipReader::GzipReader(base::BufferPool& pool)
    : pool_(pool), stream_(std::make_unique<z_stream_s>()) {
  LLMD_CHECK(inflateInit2(stream_.get(), kGzipOnly) == Z_OK, "out of memory");
}

GzipReader::~GzipReader() { inflateEnd(stream_.get()); }

void GzipReader::Begin(uint32_t bytes_max) {
  inflateReset(stream_.get());
  bytes_left_ = bytes_max;
  ended_ = false;
}

GzipReader::Step GzipReader::Next(std::string_view& input, base::Slice& piece) {
  if (ended_) return input.empty() ? Step::kEnd : Step::kError;
  if (input.empty() && stream_->avail_out > 0) return Step::kNeedInput;
  base::Block* block = pool_.Get(kPieceBytes);
  base::Slice hold(block, block->data(), block->capacity());
  // Room for one byte more than allowed shows that there is one.
  const size_t room = std::min<size_t>(block->capacity(), size_t{bytes_left_} + 1);
  stream_->next_in = reinterpret_cast<const Bytef*>(input.data());
  stream_->avail_in = static_cast<uInt>(input.size());
  stream_->next_out = reinterpret_cast<Bytef*>(block->data());
  stream_->avail_out = static_cast<uInt>(room);
  const int result = inflate(stream_.get(), Z_NO_FLUSH);
  input.remove_prefix(input.size() - stream_->avail_in);
  const size_t size = room - stream_->avail_out;
  if (size > bytes_left_) return Step::kTooLarge;
  bytes_left_ -= static_cast<uint32_t>(size);
  piece = base::Slice(block, block->data(), size);
  if (result == Z_STREAM_END) {
    ended_ = true;
    return input.empty() ? Step::kEnd : Step::kError;
  }
  if (result != Z_OK && result != Z_BUF_ERROR) return Step::kError;
  if (stream_->avail_out == 0) return Step::kMore;
  return input.empty() ? Step::kNeedInput : Step::kMore;
}

}  // namespace llmd::net
