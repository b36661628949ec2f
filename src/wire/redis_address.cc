#include "wire/redis_address.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/strings.h"

namespace llmd::wire {
namespace {

// Options of go-redis that have no meaning here.
constexpr auto kOtherOptions = std::to_array<std::string_view>(
    {"protocol",           "client_name",        "max_retries",        "min_retry_backoff",
     "max_retry_backoff",  "dial_timeout",       "read_timeout",       "write_timeout",
     "pool_fifo",          "pool_size",          "pool_timeout",       "min_idle_conns",
     "max_idle_conns",     "max_active_conns",   "max_concurrent_dials", "conn_max_idle_time",
     "idle_timeout",       "conn_max_lifetime",  "max_conn_age",       "conn_max_lifetime_jitter"});

base::Status Bad(std::string_view why) {
  return base::InvalidArgument(base::Concat("Redis address: ", why));
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> Unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

std::optional<int> ParseDatabase(std::string_view text) {
  const auto number = base::ParseInt(text);
  if (!number || *number < 0 || *number > 1'000'000) return std::nullopt;
  return static_cast<int>(*number);
}

base::Status ReadOptions(std::string_view query, RedisAddress* address) {
  for (const std::string_view option : base::Split(query, '&')) {
    if (option.empty()) continue;
    const size_t equals = std::min(option.find('='), option.size());
    const std::string_view name = option.substr(0, equals);
    const std::string_view value = option.substr(std::min(equals + 1, option.size()));
    if (name == "db") {
      const auto database = ParseDatabase(value);
      if (!database) return Bad("db is not a number of a database");
      address->database = *database;
    } else if (name == "skip_verify" && address->tls) {
      address->skip_verify = value == "true" || value == "1";
    } else if (std::ranges::find(kOtherOptions, name) == kOtherOptions.end()) {
      return Bad(base::Concat("unexpected option ", name));
    }
  }
  return base::OkStatus();
}

base::Status ReadUser(std::string_view text, RedisAddress* address) {
  const size_t colon = text.find(':');
  auto user = Unescape(text.substr(0, colon));
  auto password = Unescape(colon == text.npos ? "" : text.substr(colon + 1));
  if (!user || !password) return Bad("bad percent encoding in user or password");
  address->user = *std::move(user);
  address->password = *std::move(password);
  return base::OkStatus();
}

base::Status ReadHost(std::string_view text, RedisAddress* address) {
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == text.npos) return Bad("[ without ]");
    address->host = text.substr(1, end - 1);
    text.remove_prefix(end + 1);
    if (text.starts_with(':')) port = text.substr(1);
    else if (!text.empty()) return Bad("something between ] and the port");
  } else {
    const size_t colon = text.rfind(':');
    if (text.find(':') != colon) return Bad("an IPv6 address needs brackets");
    address->host = text.substr(0, colon);
    if (colon != text.npos) port = text.substr(colon + 1);
  }
  if (address->host.empty()) address->host = "localhost";
  if (port.empty()) return base::OkStatus();
  const auto number = base::ParseInt(port);
  if (!number || *number < 1 || *number > 65535) return Bad("the port is not one");
  address->port = static_cast<uint16_t>(*number);
  return base::OkStatus();
}

base::Status ReadDatabasePath(std::string_view path, RedisAddress* address) {
  std::string_view name;
  for (const std::string_view part : base::Split(path, '/')) {
    if (part.empty()) continue;
    if (!name.empty()) return Bad("more than a database in the path");
    name = part;
  }
  if (name.empty()) return base::OkStatus();
  const auto database = ParseDatabase(name);
  if (!database) return Bad("the path is not a number of a database");
  address->database = *database;
  return base::OkStatus();
}

}  // namespace

base::Result<RedisAddress> RedisAddress::Parse(std::string_view text) {
  RedisAddress address;
  std::string_view scheme = "redis", rest = text;
  if (const size_t end = text.find("://"); end != text.npos) {
    scheme = text.substr(0, end);
    rest = text.substr(end + 3);
  }
  const bool is_unix = scheme == "unix";
  address.tls = scheme == "rediss" || scheme == "valkeys";
  if (!is_unix && !address.tls && scheme != "redis" && scheme != "valkey") {
    return std::unexpected(Bad(base::Concat("unknown scheme ", scheme)));
  }
  const size_t question = rest.find('?');
  const std::string_view query = question == rest.npos ? "" : rest.substr(question + 1);
  rest = rest.substr(0, question);
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view authority = rest.substr(0, slash);
  const std::string_view path = rest.substr(slash);
  if (const size_t at = authority.rfind('@'); at != authority.npos) {
    LLMD_RETURN_IF_ERROR(ReadUser(authority.substr(0, at), &address));
    authority.remove_prefix(at + 1);
  }
  if (is_unix) {
    auto unescaped = Unescape(path);
    if (!unescaped || base::Trim(*unescaped).empty()) {
      return std::unexpected(Bad("unix:// needs the path of a socket"));
    }
    address.unix_path = *std::move(unescaped);
  } else {
    LLMD_RETURN_IF_ERROR(ReadHost(authority, &address));
    LLMD_RETURN_IF_ERROR(ReadDatabasePath(path, &address));
  }
  LLMD_RETURN_IF_ERROR(ReadOptions(query, &address));
  return address;
}

std::string RedisAddress::Where() const {
  if (!unix_path.empty()) return unix_path;
  const bool v6 = host.find(':') != host.npos;
  return base::Concat(v6 ? "[" : "", host, v6 ? "]:" : ":", std::to_string(port));
}

}  // namespace llmd::wire
