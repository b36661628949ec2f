#include "wire/otlp.h"

#include <algorithm>
#include <array>
#include <string>

namespace llmd::wire {
namespace {

// Bytes of the UTF-8 character that begins at text[at]; 0: there is none.
size_t CharacterBytes(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  const uint8_t lead = byte(0);
  const size_t n = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (n == 0 || lead > 0xf4 || text.size() - at < n) return 0;
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, and what lies beyond U+10FFFF.
  if (lead == 0xe0 && byte(1) < 0xa0) return 0;
  if (lead == 0xed && byte(1) > 0x9f) return 0;
  if (lead == 0xf0 && byte(1) < 0x90) return 0;
  if (lead == 0xf4 && byte(1) > 0x8f) return 0;
  return n;
}

std::string_view Cut(std::string_view text) {
  if (text.size() <= kOtlpTextBytesMax) return text;
  size_t end = kOtlpTextBytesMax;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end);
}

void WriteText(uint32_t number, std::string_view text, ProtoWriter* out) {
  text = Cut(text);
  if (std::ranges::all_of(text, [](char c) { return static_cast<uint8_t>(c) < 0x80; })) {
    return out->Bytes(number, text);
  }
  std::array<char, kOtlpTextBytesMax> mended;
  bool valid = true;
  size_t size = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t n = CharacterBytes(text, at);
    if (n == 0) {
      valid = false;
      mended[size++] = '?';
      ++at;
      continue;
    }
    std::copy_n(text.data() + at, n, mended.data() + size);
    size += n;
    at += n;
  }
  out->Bytes(number, valid ? text : std::string_view(mended.data(), size));
}

void WriteId(uint32_t number, std::span<const uint64_t> words, ProtoWriter* out) {
  std::array<char, 16> bytes;
  for (size_t i = 0; i < words.size() * 8; ++i) {
    bytes[i] = static_cast<char>(words[i / 8] >> (56 - 8 * (i % 8)));
  }
  out->Bytes(number, {bytes.data(), words.size() * 8});
}

// The fields of AnyValue.
void WriteValue(std::string_view value, ProtoWriter* out) { WriteText(1, value, out); }
void WriteValue(int64_t value, ProtoWriter* out) { out->Varint(3, static_cast<uint64_t>(value)); }
void WriteValue(double value, ProtoWriter* out) { out->Double(4, value); }
template <class T>
void WriteValue(std::span<const T> values, ProtoWriter* out) {
  const size_t list = out->size();
  for (size_t i = values.size(); i-- > 0;) {
    const size_t entry = out->size();
    WriteValue(values[i], out);
    out->Wrap(1, entry);
  }
  out->Wrap(5, list);
}

void WriteAttributes(uint32_t number, std::span<const OtlpAttribute> attributes,
                     ProtoWriter* out) {
  for (size_t i = attributes.size(); i-- > 0;) {
    const size_t entry = out->size();
    const size_t value = out->size();
    std::visit([&](const auto& v) { WriteValue(v, out); }, attributes[i].value);
    out->Wrap(2, value);
    WriteText(1, attributes[i].key, out);
    out->Wrap(number, entry);
  }
}

}  // namespace

void WriteOtlpSpan(const OtlpSpan& span, ProtoWriter* out) {
  constexpr uint64_t kStatusError = 2;
  const size_t mark = out->size();
  if (span.failed) {
    const size_t status = out->size();
    out->Varint(3, kStatusError);
    if (!span.error.empty()) WriteText(2, span.error, out);
    out->Wrap(15, status);
  }
  WriteAttributes(9, span.attributes, out);
  out->Fixed64(8, static_cast<uint64_t>(span.end_unix_ns));
  out->Fixed64(7, static_cast<uint64_t>(span.start_unix_ns));
  out->Varint(6, static_cast<uint64_t>(span.kind));
  WriteText(5, span.name, out);
  if (span.parent_id != 0) WriteId(4, {&span.parent_id, 1}, out);
  if (!span.trace_state.empty()) WriteText(3, span.trace_state, out);
  WriteId(2, {&span.span_id, 1}, out);
  const uint64_t trace_id[] = {span.trace_high, span.trace_low};
  WriteId(1, trace_id, out);
  out->Wrap(2, mark);
}

base::Slice OtlpTraceRequestHead(const OtlpSource& source, size_t spans_bytes, ProtoWriter* out) {
  out->Gap(spans_bytes);
  const size_t scope = out->size();
  if (!source.scope_version.empty()) WriteText(2, source.scope_version, out);
  WriteText(1, source.scope, out);
  out->Wrap(1, scope);
  out->Wrap(2, 0);
  const size_t resource = out->size();
  WriteAttributes(1, source.resource, out);
  out->Wrap(1, resource);
  out->Wrap(1, 0);
  return out->Take();
}

base::Result<OtlpTraceReply> ReadOtlpTraceReply(std::string_view reply) {
  OtlpTraceReply read;
  ProtoReader in(reply);
  for (ProtoField f; in.Next(&f);) {
    if (f.number != 1 || !in.Expect(f, ProtoWire::kBytes)) continue;
    ProtoReader partial(f.bytes);
    for (ProtoField p; partial.Next(&p);) {
      if (p.number == 1 && partial.Expect(p, ProtoWire::kVarint)) read.rejected_spans = p.value;
      if (p.number == 2 && partial.Expect(p, ProtoWire::kBytes)) read.message = p.bytes;
    }
    in.Adopt(partial.error());
  }
  if (in.error() != ProtoError::kNone) {
    return std::unexpected(ProtoStatus(in.error(), "ExportTraceServiceResponse"));
  }
  return read;
}

}  // namespace llmd::wire
