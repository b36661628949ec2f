// JSON text as msgpack: the form in which KvEventReader reads events that come as JSON. Objects
// become maps, integers of up to 64 bits integers, other numbers floats.
//
// Thread safety: stateless. Limits: nesting of wire/msgpack.h. Not fast: no engine publishes JSON
// in quantity.
#pragma once

#include <string_view>

#include "wire/msgpack.h"

namespace llmd::prefix {

// False: not one JSON value, or nested too deep; `out` then holds anything.
bool JsonToMsgpack(std::string_view json, wire::MsgpackWriter* out);

}  // namespace llmd::prefix
