// Sequences of ext_proc messages from a proxy that keeps no order: what kinds come when, how bodies
// are cut, which streams are reset where. Through HTTP/2 and gRPC into a Door with the default
// profile. The first byte says how reads are cut; then every operation is a stream, a kind and what
// that needs.
#include <sys/epoll.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "director/config.h"
#include "epp/door.h"
#include "net/fed_stream_testing.h"
#include "net/grpc_server.h"
#include "plugins/discovery/file_discovery.h"
#include "plugins/extractor/core_metrics_extractor.h"
#include "plugins/data_source/metrics_data_source.h"
#include "plugins/parser/openai_parser.h"
#include "plugins/parser/passthrough_parser.h"
#include "plugins/picker/max_score_picker.h"
#include "plugins/producer/approx_prefix_cache_producer.h"
#include "plugins/producer/token_producer.h"
#include "plugins/profile_handler/single_profile_handler.h"
#include "plugins/saturation/utilization_detector.h"
#include "plugins/scorer/kv_cache_utilization_scorer.h"
#include "plugins/scorer/prefix_cache_scorer.h"
#include "plugins/scorer/queue_scorer.h"
#include "wire/ext_proc_client.h"

namespace llmd::epp {
namespace {

constexpr std::string_view kPath = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";
constexpr size_t kStreams = 3;
constexpr size_t kOperationsMax = 200;

// What lives from input to input: a picker's worker with two endpoints.
struct World {
  World() : state(1, 32 << 10, "default"), server(loop) {
    for (auto type :
         {plugins::FileDiscoveryType(), plugins::MetricsDataSourceType(),
          plugins::CoreMetricsExtractorType(), plugins::OpenAiParserType(),
          plugins::PassthroughParserType(), plugins::TokenProducerType(),
          plugins::ApproxPrefixCacheProducerType(), plugins::UtilizationDetectorType(),
          plugins::SingleProfileHandlerType(), plugins::QueueScorerType(),
          plugins::KvCacheUtilizationScorerType(), plugins::PrefixCacheScorerType(),
          plugins::MaxScorePickerType()}) {
      catalogue.Add(std::move(type));
    }
    auto generation = director::Compile("", "fuzz", catalogue, state.fleet,
                                        {.endpoints_given = true}, nullptr);
    LLMD_CHECK(generation.has_value(), "the default configuration");
    state.generations.Publish(*generation);
    const base::Status members = state.fleet.SetMembers(
        {{.name = "a", .address = "10.0.0.1", .port = 8000, .labels = {}},
         {.name = "b", .address = "10.0.0.2", .port = 8000, .labels = {}}},
        base::TimePoint(std::chrono::seconds(1)));
    LLMD_CHECK(members.ok(), "two endpoints");
    door = std::make_unique<Door>(shared, 0, loop, 7);
    server.AddService(std::string(kPath), *door);
  }
  plugin::Catalogue catalogue;
  control::State state;
  EppOptions options;
  DoorShared shared{.state = state, .options = options};
  runtime::EventLoop loop;
  std::unique_ptr<Door> door;
  net::GrpcServer server;
};

// Bytes of the input, zeros behind its end.
class Input {
 public:
  explicit Input(std::string_view bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  uint8_t Byte() {
    if (bytes_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(bytes_.front());
    bytes_.remove_prefix(1);
    return byte;
  }
  std::string_view Text(size_t size) {
    const std::string_view text = bytes_.substr(0, size);
    bytes_.remove_prefix(text.size());
    return text;
  }

 private:
  std::string_view bytes_;
};

std::string Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  const size_t n = payload.size();
  std::string frame = {static_cast<char>(n >> 16),      static_cast<char>(n >> 8),
                       static_cast<char>(n),            static_cast<char>(type),
                       static_cast<char>(flags),        static_cast<char>(stream >> 24),
                       static_cast<char>(stream >> 16), static_cast<char>(stream >> 8),
                       static_cast<char>(stream)};
  return frame.append(payload);
}

// A request's HEADERS, every field a literal (RFC 7541, 6.2.2).
std::string OpeningFrame(uint32_t stream) {
  std::string block;
  const std::pair<std::string_view, std::string_view> fields[] = {
      {":method", "POST"}, {":scheme", "http"}, {":path", kPath}, {"te", "trailers"},
      {"content-type", "application/grpc"}};
  for (const auto& [name, value] : fields) {
    block.push_back(0);
    block.append(1, static_cast<char>(name.size())).append(name);
    block.append(1, static_cast<char>(value.size())).append(value);
  }
  return Frame(1, 4, stream, block);
}

std::string MessageFrame(uint32_t stream, std::string_view message) {
  const size_t n = message.size();
  std::string data = {0, static_cast<char>(n >> 24), static_cast<char>(n >> 16),
                      static_cast<char>(n >> 8), static_cast<char>(n)};
  return Frame(0, 0, stream, data.append(message));
}

constexpr wire::ExtProcHeader kHeaders[] = {
    {":method", "POST"},
    {":path", "/v1/chat/completions"},
    {":path", "/v1/completions?x=1"},
    {":path", "/upload"},
    {":method", "GET"},
    {"content-type", "application/json"},
    {"content-type", "multipart/form-data; boundary=b"},
    {"content-length", "5"},
    {"x-llm-d-model-name-rewrite", "other"},
    {"prefer", "if-available"},
    {":status", "200"},
    {":status", "503"},
    {"content-type", "text/event-stream"},
    {"x-gateway-destination-endpoint", "1.1.1.1:1"},
    {"x-request-id", "r"},
    {"", ""},
};
constexpr std::string_view kBodies[] = {
    R"({"model":"m","messages":[{"role":"user","content":"hello"}]})",
    R"({"model":"m","prompt":)",
    R"("text"})",
    "data: {\"model\":\"oth",
    "er\",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n",
    "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n",
    "",
};

std::string Headers(Input& input, wire::ExtProcClientWriter& writer, wire::ExtProcKind kind) {
  std::vector<wire::ExtProcHeader> headers;
  const uint16_t wanted = static_cast<uint16_t>(input.Byte() << 8 | input.Byte());
  for (size_t i = 0; i < std::size(kHeaders); ++i) {
    if (wanted >> i & 1) headers.push_back(kHeaders[i]);
  }
  const uint8_t flags = input.Byte();
  const wire::StructField entries[] = {wire::StructField::String("", "10.0.0.2:8000")};
  const wire::StructField hint[] = {
      flags & 2 ? wire::StructField::List(wire::kSubsetKey, {entries, flags & 4 ? 1u : 0u})
                : wire::StructField::String(wire::kSubsetKey, "10.0.0.1, [::1]:1")};
  const wire::StructField metadata[] = {wire::StructField::Struct(wire::kSubsetNamespace, hint)};
  wire::ExtProcContext context;
  if (flags & 8) context.filter_metadata = metadata;
  return std::string(writer.Headers(kind, headers, flags & 1, context).view());
}

std::string Body(Input& input, wire::ExtProcClientWriter& writer, wire::ExtProcKind kind) {
  const uint8_t what = input.Byte();
  const std::string text(what & 0x40 ? input.Text(what & 0x3f)
                                     : kBodies[(what & 0x3f) % std::size(kBodies)]);
  const base::Slice slice = base::Slice::Unowned(text);
  std::vector<base::Slice> out;
  writer.Body(kind, {&slice, text.empty() ? 0u : 1u}, what & 0x80, &out);
  std::string message;
  for (const base::Slice& piece : out) message += piece.view();
  return message;
}

std::string Operation(Input& input, wire::ExtProcClientWriter& writer, uint32_t stream) {
  using wire::ExtProcKind;
  switch (input.Byte() % 10) {
    case 0: return MessageFrame(stream, Headers(input, writer, ExtProcKind::kRequestHeaders));
    case 1: case 2: return MessageFrame(stream, Body(input, writer, ExtProcKind::kRequestBody));
    case 3:
      return MessageFrame(stream, writer.Trailers(ExtProcKind::kRequestTrailers, {}).view());
    case 4: return MessageFrame(stream, Headers(input, writer, ExtProcKind::kResponseHeaders));
    case 5: case 6: return MessageFrame(stream, Body(input, writer, ExtProcKind::kResponseBody));
    case 7:
      return MessageFrame(stream, writer.Trailers(ExtProcKind::kResponseTrailers, {}).view());
    case 8: return Frame(3, 0, stream, std::string_view("\0\0\0\2", 4));  // RST_STREAM
    default: return MessageFrame(stream, input.Text(input.Byte() & 0x1f));
  }
}

std::string Conversation(Input& input, base::BufferPool& pool) {
  std::string bytes = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(4, 0, 0, "");
  wire::ExtProcClientWriter writer(&pool);
  uint32_t next_stream = 1;
  uint32_t streams[kStreams] = {};
  for (size_t i = 0; i < kOperationsMax && !input.empty(); ++i) {
    uint32_t& stream = streams[input.Byte() % kStreams];
    if (stream == 0) {
      stream = next_stream;
      next_stream += 2;
      bytes += OpeningFrame(stream);
    }
    const std::string frame = Operation(input, writer, stream);
    bytes += frame;
    if (frame[3] == 3) stream = 0;  // reset: the next operation begins a new one
  }
  return bytes;
}

}  // namespace
}  // namespace llmd::epp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace llmd;  // NOLINT
  static epp::World world;
  epp::Input input({reinterpret_cast<const char*>(data), size});
  const uint8_t cut = input.Byte();
  const std::string bytes = epp::Conversation(input, world.loop.buffers());
  auto stream = std::make_unique<net::FedStream>(bytes, cut == 0 ? 1 << 20 : 16 * cut);
  runtime::IoHandler* connection = world.server.AdoptForTest(std::move(stream));
  for (size_t turns = 0; turns < bytes.size() && world.server.connection_count() > 0; ++turns) {
    world.loop.Turn({});
  }
  // The client hangs up.
  if (world.server.connection_count() > 0) connection->OnIo({.bits = EPOLLHUP | EPOLLERR});
  for (size_t turns = 0; turns < 64 && world.server.connection_count() > 0; ++turns) {
    world.loop.Turn({});
  }
  LLMD_CHECK(world.server.connection_count() == 0, "a connection that does not end");
  LLMD_CHECK(world.door->active_streams() == 0, "a stream was not told of its end");
  LLMD_CHECK(world.door->budget().held_bytes() == 0, "a body was not given back");
  LLMD_CHECK(world.door->director().active() == 0, "a session did not end");
  for (const fleet::EndpointNumber n : world.state.fleet.members()->numbers) {
    LLMD_CHECK(world.state.fleet.CounterSum(fleet::kRequestsInFlight, n) == 0,
               "a booking was not taken back");
  }
  LLMD_CHECK(base::FirstBugSite() == nullptr, "something that cannot happen was counted");
  return 0;
}
