#include "bench/target.h"

#include <algorithm>

#include "base/strings.h"
#include "runtime/socket.h"

namespace llmd::bench {
namespace {

base::Status Malformed(std::string_view url, std::string_view why) {
  return base::InvalidArgument(
      base::Concat("URL \"", url, "\": ", why, "; expected http[s]://HOST[:PORT][/PREFIX]"));
}

bool IsPathByte(char c) { return c > ' ' && c < 0x7f && c != '?' && c != '#'; }

}  // namespace

base::Result<TargetUrl> ParseTargetUrl(std::string_view url) {
  TargetUrl target;
  std::string_view rest = url;
  if (const size_t scheme_end = rest.find("://"); scheme_end != std::string_view::npos) {
    const std::string scheme = base::ToLower(rest.substr(0, scheme_end));
    if (scheme != "http" && scheme != "https") {
      return std::unexpected(Malformed(url, "unknown scheme"));
    }
    target.tls = scheme == "https";
    rest.remove_prefix(scheme_end + 3);
  }
  const uint16_t scheme_port = target.tls ? 443 : 80;
  const size_t path_begin = std::min(rest.find('/'), rest.size());
  std::string_view path = rest.substr(path_begin);
  std::string authority(rest.substr(0, path_begin));
  if (authority.find('@') != std::string::npos) {
    return std::unexpected(Malformed(url, "user names do not belong here (use --api-key)"));
  }
  // A port is there when something follows the last colon outside of brackets.
  const size_t colon = authority.rfind(':');
  const size_t bracket = authority.rfind(']');
  const bool has_port =
      colon != std::string::npos && (bracket == std::string::npos || colon > bracket);
  if (!has_port) authority += ":" + std::to_string(scheme_port);
  const auto host_port = runtime::SplitHostPort(authority);
  if (!host_port || host_port->host.empty())
    return std::unexpected(Malformed(url, "no host or bad port"));
  target.host = host_port->host;
  target.port = host_port->port;
  target.host_field =
      target.port == scheme_port ? authority.substr(0, authority.rfind(':')) : authority;
  while (path.ends_with('/')) path.remove_suffix(1);
  if (path.ends_with("/v1")) path.remove_suffix(3);
  if (!std::ranges::all_of(path, IsPathByte)) {
    return std::unexpected(Malformed(url, "a query, a fragment or blanks in the path"));
  }
  target.base_path = path;
  return target;
}

}  // namespace llmd::bench
