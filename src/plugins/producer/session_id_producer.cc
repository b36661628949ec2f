#include "plugins/producer/session_id_producer.h"

#include "base/strings.h"
#include "plugin/keys.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

struct Parameters {
  std::string header_name, cookie_name;
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("SessionIdProducerParameters")
          .Field("headerName", "Request header with the session's name.", &Parameters::header_name)
          .Field("cookieName", "Cookie with the session's name.", &Parameters::cookie_name)
          .Build();
  return *type;
}

// RFC 6265, 4.2.1: name=value pairs with semicolons between them.
std::string_view CookieValue(std::string_view cookies, std::string_view name) {
  for (const std::string_view piece : base::Split(cookies, ';')) {
    const std::string_view pair = base::Trim(piece);
    const size_t equals = pair.find('=');
    if (equals != std::string_view::npos && pair.substr(0, equals) == name) {
      return pair.substr(equals + 1);
    }
  }
  return {};
}

class SessionIdProducer final : public plugin::Plugin, public plugin::DataProducer {
 public:
  SessionIdProducer(const Parameters& parameters, plugin::PluginContext& context)
      : session_(context.Produces<plugin::SessionId>()),
        header_name_(base::Trim(parameters.header_name)),
        cookie_name_(base::Trim(parameters.cookie_name)) {
    if (header_name_.empty() == cookie_name_.empty()) {
      context.errors().Add(context.parameters(),
                           "exactly one of headerName and cookieName must be given");
    }
  }
  base::Status Produce(plugin::RequestContext& request,
                       std::span<const plugin::EndpointNumber>) override {
    std::string_view id;
    if (!header_name_.empty()) {
      id = request.FindHeader(header_name_).value_or("");
    } else {
      id = CookieValue(request.FindHeader("cookie").value_or(""), cookie_name_);
    }
    id = base::Trim(id);
    if (id.empty()) return base::OkStatus();
    auto* session = request.arena->New<plugin::SessionId>();
    session->id = id;
    request.attributes.Set(session_, session);
    return base::OkStatus();
  }

 private:
  const plugin::Slot<plugin::SessionId> session_;
  const std::string header_name_;
  const std::string cookie_name_;
};

}  // namespace

plugin::PluginType SessionIdProducerType() {
  plugin::PluginType type = MakeType<SessionIdProducer>(
      "session-id-producer", "Reads the session's name from a header or a cookie.",
      ParametersType);
  type.default_producer_of = plugin::SessionId::kKey;
  return type;
}

}  // namespace llmd::plugins
