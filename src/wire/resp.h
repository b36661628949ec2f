// RESP2, the protocol of Redis and Valkey: commands as bytes, replies as values, and programs of
// commands that a client runs (net/redis.h).
//
// Thread safety: values are views and programs belong to who runs them.
// Source: redis.io/docs/reference/protocol-spec, RESP2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

namespace llmd::wire {

struct RespValue {
  enum class Type : uint8_t { kNil, kText, kInteger, kArray, kError };

  Type type = Type::kNil;
  int64_t integer = 0;                 // kInteger
  std::string_view text = {};          // kText, kError
  std::span<const RespValue> items = {};  // kArray
};

// Appends one command: an array of bulk strings. Arguments may hold any bytes.
void AppendRespCommand(std::span<const std::string_view> arguments, std::string* out);
inline void AppendRespCommand(std::initializer_list<std::string_view> arguments,
                              std::string* out) {
  AppendRespCommand(std::span(arguments.begin(), arguments.size()), out);
}

// Commands in rounds: what a round asks may depend on what earlier ones were answered.
//
// Invariants for who runs it: NextRound first; then one OnReply per command of the round, in order;
// then NextRound again. A program that is given up hears nothing more.
class RespProgram {
 public:
  virtual ~RespProgram() = default;
  // Appends the commands of the next round; how many they are. 0: the program is done.
  virtual size_t NextRound(std::string* commands) = 0;
  // `index` counts within the round. `reply` lives until return; an error reply is one like others.
  virtual void OnReply(size_t index, const RespValue& reply) = 0;
};

}  // namespace llmd::wire
