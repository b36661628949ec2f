#include "telemetry/access_log.h"

#include "telemetry/line_writer.h"

namespace llmd::telemetry {
namespace {

// One key/value of either format; a value that says nothing is left out.
class Fields {
 public:
  Fields(LineWriter* out, bool json) : out_(*out), json_(json) {}

  void Text(std::string_view key, std::string_view value) {
    if (value.empty()) return;
    Key(key);
    json_ ? out_.AppendJsonString(value, kAccessFieldMax)
          : out_.AppendTextValue(value, kAccessFieldMax);
  }
  void Number(std::string_view key, uint64_t value) {
    Key(key);
    out_.AppendUint(value);
  }
  void Known(std::string_view key, int64_t value) {
    if (value >= 0) Number(key, static_cast<uint64_t>(value));
  }
  void Milliseconds(std::string_view key, base::Duration value) {
    if (value.count() < 0) return;
    Key(key);
    out_.AppendMilliseconds(value.count());
  }
  void Time(base::WallTime time) {
    if (time.unix_ns == 0) return;
    if (json_) {
      out_.Append("\"ts\":\"");
      out_.AppendTime(time.unix_ns);
      out_.Append('"');
    } else {
      out_.AppendTime(time.unix_ns);
    }
    first_ = false;
  }
  void Kind() {
    if (json_) {
      Text("msg", "request");
    } else {
      out_.Append(first_ ? "request" : " request");
      first_ = false;
    }
  }

 private:
  // Keys are literals of this file that need no escapes.
  void Key(std::string_view key) {
    if (!first_) out_.Append(json_ ? ',' : ' ');
    first_ = false;
    if (json_) out_.Append('"');
    out_.Append(key);
    out_.Append(json_ ? "\":" : "=");
  }

  LineWriter& out_;
  const bool json_;
  bool first_ = true;
};

}  // namespace

std::string_view EncodeAccessLine(const AccessRecord& record, LogFormat format,
                                  std::span<char> buffer) {
  const bool json = format == LogFormat::kJson;
  LineWriter out(buffer);
  const size_t tail = json ? 2 : 1;
  if (buffer.size() < tail) return {};
  out.ShrinkBy(tail);
  if (json) out.Append('{');
  Fields fields(&out, json);
  fields.Time(record.time);
  fields.Kind();
  fields.Text("id", record.request_id);
  fields.Text("method", record.method);
  fields.Text("path", record.path);
  fields.Number("status", static_cast<uint64_t>(record.status < 0 ? 0 : record.status));
  fields.Text("outcome", record.outcome);
  fields.Text("model", record.model);
  if (record.target_model != record.model) fields.Text("target_model", record.target_model);
  fields.Text("endpoint", record.endpoint);
  fields.Text("key", record.key);
  fields.Milliseconds("duration_ms", record.duration);
  fields.Milliseconds("ttft_ms", record.ttft);
  fields.Number("bytes_in", record.bytes_in);
  fields.Number("bytes_out", record.bytes_out);
  fields.Known("input_tokens", record.input_tokens);
  fields.Known("output_tokens", record.output_tokens);
  fields.Known("cached_tokens", record.cached_tokens);
  fields.Number("retries", record.retries);
  if (record.streamed) fields.Number("streamed", 1);
  out.GrowBy(tail);
  out.Append(json ? "}\n" : "\n");
  return out.view();
}

}  // namespace llmd::telemetry
