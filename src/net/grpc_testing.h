// A gRPC client for tests, on nghttp2's client side: opens streams, sends messages in DATA frames
// of any size, collects what comes back, and can send raw bytes in between. It shares the test's
// loop; waiting means turning it.
//
//   GrpcTestClient client(loop, port);
//   auto& stream = client.Open("/package.Service/Method");
//   client.Send(stream, "message");
//   client.HalfClose(stream);
//   ASSERT_TRUE(client.WaitForEnd(stream));
//   EXPECT_EQ(stream.grpc_status, 0);
#pragma once

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/net_testing.h"
#include "net/tls.h"
#include "runtime/stream.h"

namespace llmd::net {

// A message as gRPC frames it.
inline std::string GrpcFrame(std::string_view message, bool compressed = false) {
  const size_t n = message.size();
  std::string out = {static_cast<char>(compressed), static_cast<char>(n >> 24),
                     static_cast<char>(n >> 16), static_cast<char>(n >> 8), static_cast<char>(n)};
  return out += message;
}
// Any HTTP/2 frame.
inline std::string Http2Frame(uint8_t type, uint8_t flags, uint32_t stream_id,
                              std::string_view payload) {
  const size_t n = payload.size();
  std::string out = {static_cast<char>(n >> 16), static_cast<char>(n >> 8), static_cast<char>(n),
                     static_cast<char>(type), static_cast<char>(flags)};
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(stream_id >> shift);
  return out += payload;
}

class GrpcTestClient final : public runtime::IoHandler {
 public:
  struct Options {
    uint32_t stream_window = 65'535;
    bool give_window = true;    // false: the server gets its first window and no more
    bool read = true;           // false: nothing is taken from the socket
    std::string preface_extra;  // raw bytes right behind the preface and SETTINGS
    std::shared_ptr<TlsClientContext> tls;
    std::string tls_name = "localhost";
  };
  using Fields = std::vector<std::pair<std::string, std::string>>;

  struct Stream {
    int32_t id = 0;
    Fields headers, trailers;           // of the answer
    std::vector<std::string> messages;  // complete ones, prefix removed
    std::string partial;                // bytes of the next one, with prefix
    int http_status = 0;
    int grpc_status = -1;
    std::string grpc_message;  // as sent, percent-encoded
    bool closed = false;
    uint32_t error_code = 0;  // why it closed
    size_t window_given = 0;  // WINDOW_UPDATE of the server

    std::string out;  // not yet in a frame
    size_t frame_max = 16'384;
    bool end = false;
    bool deferred = false;
  };

  GrpcTestClient(runtime::EventLoop& loop, uint16_t port) : GrpcTestClient(loop, port, Options()) {}
  GrpcTestClient(runtime::EventLoop& loop, uint16_t port, Options options)
      : loop_(loop), options_(std::move(options)) {
    const int fd = runtime::ConnectTcp(runtime::SocketAddress::Ipv4(kLoopback, port)).value();
    stream_ = options_.tls ? options_.tls->NewStream(loop, fd, *this, options_.tls_name).value()
                           : runtime::NewTcpStream(loop, fd, *this).value();
    Start();
  }
  ~GrpcTestClient() { nghttp2_session_del(session_); }

  // `fields` come behind those that every call has; one with the same name replaces them.
  Stream& Open(std::string_view path, const Fields& fields = {}, bool end_stream = false) {
    Fields all = {{":method", "POST"},          {":scheme", "http"},
                  {":path", std::string(path)}, {":authority", "test"},
                  {"te", "trailers"},           {"content-type", "application/grpc"}};
    for (const auto& field : fields) {
      auto same = std::find_if(all.begin(), all.end(),
                               [&](const auto& other) { return other.first == field.first; });
      same != all.end() ? * same = field : all.emplace_back(field);
    }
    std::vector<nghttp2_nv> nv;
    for (const auto& [name, value] : all) {
      nv.push_back({U8(name), U8(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE});
    }
    streams_.push_back(std::make_unique<Stream>());
    Stream& stream = *streams_.back();
    nghttp2_data_provider provider{.source = {.ptr = &stream}, .read_callback = ReadOut};
    stream.id = nghttp2_submit_request(session_, nullptr, nv.data(), nv.size(),
                                       end_stream ? nullptr : &provider, &stream);
    return stream;
  }
  void Send(Stream& stream, std::string_view message) { SendBytes(stream, GrpcFrame(message)); }
  // Bytes for DATA frames, cut as `frame_max` says.
  void SendBytes(Stream& stream, std::string_view bytes) {
    stream.out += bytes;
    Resume(stream);
  }
  void HalfClose(Stream& stream) {
    stream.end = true;
    Resume(stream);
  }
  void Reset(Stream& stream, uint32_t code = NGHTTP2_CANCEL) {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream.id, code);
  }
  void Ping() { nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr); }
  // Grows the server's window by hand (with give_window = false).
  void GiveWindow(Stream& stream, int32_t bytes) {
    nghttp2_submit_window_update(session_, NGHTTP2_FLAG_NONE, stream.id, bytes);
    nghttp2_submit_window_update(session_, NGHTTP2_FLAG_NONE, 0, bytes);
  }
  // Bytes past nghttp2, behind all frames submitted so far.
  void SendRaw(std::string_view bytes) {
    Pump();
    out_ += bytes;
    Pump();
  }

  // Moves what can be moved, once. True while the connection lives.
  bool Pump() {
    while (!ended) {
      const uint8_t* bytes = nullptr;
      const ssize_t n = nghttp2_session_mem_send(session_, &bytes);
      if (n <= 0) break;
      out_.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
    }
    while (!ended && !out_.empty()) {
      const iovec part{out_.data(), out_.size()};
      const runtime::IoResult result = stream_->Write({&part, 1});
      out_.erase(0, result.bytes);
      if (result.status == runtime::IoStatus::kError) ended = true;
      if (result.status != runtime::IoStatus::kOk) break;
    }
    while (!ended && options_.read) {
      char room[64 << 10];
      const runtime::IoResult result = stream_->Read(room);
      bytes_read += result.bytes;
      if (result.bytes > 0 &&
          nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(room), result.bytes) <
              0) {
        ended = true;
      }
      if (result.status == runtime::IoStatus::kDrained && result.bytes == 0) break;
      if (result.status == runtime::IoStatus::kEnd || result.status == runtime::IoStatus::kError) {
        ended = true;
      }
    }
    return !ended;
  }
  template <class Done>
  bool WaitFor(Done done) {
    return TurnUntil(loop_, [&] {
      Pump();
      return done();
    });
  }
  bool WaitForEnd(const Stream& stream) {
    return WaitFor([&] { return stream.closed || ended; });
  }
  bool WaitForMessages(const Stream& stream, size_t count) {
    return WaitFor([&] { return stream.messages.size() >= count; });
  }
  bool WaitForClose() {
    return WaitFor([&] { return ended; });
  }
  void SetRead(bool read) { options_.read = read; }
  void Close() { stream_.reset(), ended = true; }
  void OnIo(runtime::IoEvents) override {}
  runtime::Stream& stream() { return *stream_; }

  bool ended = false;  // the connection
  bool goaway = false;
  uint32_t goaway_code = 0;
  int32_t goaway_last_stream = -1;
  int pings_answered = 0;
  size_t bytes_read = 0;
  Fields settings;  // of the server, as numbers

 private:
  static uint8_t* U8(std::string_view text) {
    return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data()));
  }
  static GrpcTestClient& Self(void* user) { return *static_cast<GrpcTestClient*>(user); }
  static Stream* Find(nghttp2_session* session, int32_t id) {
    return static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id));
  }

  void Resume(Stream& stream) {
    if (std::exchange(stream.deferred, false)) nghttp2_session_resume_data(session_, stream.id);
  }
  static ssize_t ReadOut(nghttp2_session*, int32_t, uint8_t* room, size_t length, uint32_t* flags,
                         nghttp2_data_source* source, void*) {
    auto& stream = *static_cast<Stream*>(source->ptr);
    const size_t n = std::min({length, stream.out.size(), stream.frame_max});
    if (n == 0 && !stream.end) {
      stream.deferred = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    std::copy_n(stream.out.data(), n, reinterpret_cast<char*>(room));
    stream.out.erase(0, n);
    if (stream.out.empty() && stream.end) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(n);
  }
  void Start() {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, OnData);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, OnFrame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnClose);
    nghttp2_option* option = nullptr;
    nghttp2_option_new(&option);
    nghttp2_option_set_peer_max_concurrent_streams(option, 100'000);
    if (!options_.give_window) nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_session_client_new2(&session_, callbacks, this, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry entry{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
                                       options_.stream_window};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, &entry, 1);
    if (!options_.preface_extra.empty()) SendRaw(options_.preface_extra);
  }

  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                      size_t name_size, const uint8_t* value, size_t value_size, uint8_t, void*) {
    Stream* stream = Find(session, frame->hd.stream_id);
    if (!stream) return 0;
    const std::string n(reinterpret_cast<const char*>(name), name_size);
    const std::string v(reinterpret_cast<const char*>(value), value_size);
    (frame->headers.cat == NGHTTP2_HCAT_RESPONSE ? stream->headers : stream->trailers)
        .emplace_back(n, v);
    if (n == ":status") stream->http_status = std::atoi(v.c_str());
    if (n == "grpc-status") stream->grpc_status = std::atoi(v.c_str());
    if (n == "grpc-message") stream->grpc_message = v;
    return 0;
  }
  static int OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t size,
                    void*) {
    Stream* stream = Find(session, id);
    if (!stream) return 0;
    stream->partial.append(reinterpret_cast<const char*>(data), size);
    while (stream->partial.size() >= 5) {
      const auto* p = reinterpret_cast<const unsigned char*>(stream->partial.data());
      const size_t bytes = size_t{p[1]} << 24 | size_t{p[2]} << 16 | size_t{p[3]} << 8 | p[4];
      if (stream->partial.size() - 5 < bytes) break;
      stream->messages.push_back(stream->partial.substr(5, bytes));
      stream->partial.erase(0, 5 + bytes);
    }
    return 0;
  }
  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    GrpcTestClient& self = Self(user);
    const bool is_ack = frame->hd.flags & NGHTTP2_FLAG_ACK;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
      self.goaway = true;
      self.goaway_code = frame->goaway.error_code;
      self.goaway_last_stream = frame->goaway.last_stream_id;
    } else if (frame->hd.type == NGHTTP2_PING && is_ack) {
      ++self.pings_answered;
    } else if (frame->hd.type == NGHTTP2_SETTINGS && !is_ack) {
      for (size_t i = 0; i < frame->settings.niv; ++i) {
        self.settings.emplace_back(std::to_string(frame->settings.iv[i].settings_id),
                                   std::to_string(frame->settings.iv[i].value));
      }
    } else if (frame->hd.type == NGHTTP2_WINDOW_UPDATE) {
      if (Stream* stream = Find(session, frame->hd.stream_id)) {
        stream->window_given += static_cast<size_t>(frame->window_update.window_size_increment);
      }
    }
    return 0;
  }
  static int OnClose(nghttp2_session* session, int32_t id, uint32_t error_code, void*) {
    Stream* stream = Find(session, id);
    if (!stream) return 0;
    stream->closed = true;
    stream->error_code = error_code;
    return 0;
  }

  runtime::EventLoop& loop_;
  Options options_;
  std::unique_ptr<runtime::Stream> stream_;
  nghttp2_session* session_ = nullptr;
  std::string out_;
  std::vector<std::unique_ptr<Stream>> streams_;
};

}  // namespace llmd::net
