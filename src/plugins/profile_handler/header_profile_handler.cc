#include "plugins/profile_handler/header_profile_handler.h"

#include <algorithm>

#include "base/strings.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

struct Parameters {
  std::string header_name = "EPP-Profile";
  std::string default_profile = "decode";
};

const config::ObjectType<Parameters>& ParametersType() {
  static const auto type =
      config::Object<Parameters>("HeaderProfileHandlerParameters")
          .Field("headerName", "Request header that names the profile.", &Parameters::header_name)
          .Field("defaultProfile", "Profile of requests without the header.",
                 &Parameters::default_profile)
          .Build();
  return *type;
}

std::string OrDefault(std::string_view text, std::string_view fallback) {
  const std::string_view trimmed = base::Trim(text);
  return std::string(trimmed.empty() ? fallback : trimmed);
}

class HeaderProfileHandler final : public plugin::Plugin, public plugin::ProfileHandler {
 public:
  HeaderProfileHandler(const Parameters& parameters, plugin::PluginContext&)
      : header_name_(OrDefault(parameters.header_name, Parameters().header_name)),
        default_profile_(OrDefault(parameters.default_profile, Parameters().default_profile)) {}

  std::optional<size_t> Next(plugin::RequestContext& request,
                             std::span<const plugin::ProfileResult> results) const override {
    const auto ran = [](const plugin::ProfileResult& r) { return r.ran; };
    if (std::any_of(results.begin(), results.end(), ran)) return std::nullopt;
    return Chosen(request, results);
  }

  base::Result<size_t> Primary(plugin::RequestContext& request,
                               std::span<const plugin::ProfileResult> results) const override {
    if (const auto chosen = Chosen(request, results)) return *chosen;
    return std::unexpected(base::ResourceExhausted(
        base::Concat("no scheduling profile is named \"", Wanted(request), "\" (header ",
                     header_name_, ")")));
  }

  base::Status CheckProfiles(std::span<const std::string> names) const override {
    if (!names.empty()) return base::OkStatus();
    return base::InvalidArgument("header-profile-handler needs a scheduling profile");
  }

 private:
  std::string_view Wanted(const plugin::RequestContext& request) const {
    const std::string_view named = base::Trim(request.FindHeader(header_name_).value_or(""));
    return named.empty() ? std::string_view(default_profile_) : named;
  }
  std::optional<size_t> Chosen(const plugin::RequestContext& request,
                               std::span<const plugin::ProfileResult> results) const {
    if (results.size() == 1) return 0;
    const std::string_view wanted = Wanted(request);
    for (size_t i = 0; i < results.size(); ++i) {
      if (results[i].profile == wanted) return i;
    }
    return std::nullopt;
  }

  const std::string header_name_;
  const std::string default_profile_;
};

}  // namespace

plugin::PluginType HeaderProfileHandlerType() {
  plugin::PluginType type = MakeType<HeaderProfileHandler>(
      "header-profile-handler", "Runs the scheduling profile that a request header names.",
      ParametersType);
  type.stability = plugin::Stability::kAlpha;
  return type;
}

}  // namespace llmd::plugins
