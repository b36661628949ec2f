#include "plugins/profile_handler/single_profile_handler.h"

#include "base/strings.h"
#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

class SingleProfileHandler final : public plugin::Plugin, public plugin::ProfileHandler {
 public:
  SingleProfileHandler(const NoParameters&, plugin::PluginContext&) {}
  std::optional<size_t> Next(plugin::RequestContext&,
                             std::span<const plugin::ProfileResult> results) const override {
    if (results.empty() || results[0].ran) return std::nullopt;
    return 0;
  }
  base::Result<size_t> Primary(plugin::RequestContext&,
                               std::span<const plugin::ProfileResult>) const override {
    return 0;
  }
  base::Status CheckProfiles(std::span<const std::string> names) const override {
    if (names.size() == 1) return base::OkStatus();
    return base::InvalidArgument(base::Concat(
        "single-profile-handler runs exactly one scheduling profile, the config has ",
        std::to_string(names.size()), names.empty() ? "" : ": ", base::Join(names, ", ")));
  }
};

}  // namespace

plugin::PluginType SingleProfileHandlerType() {
  return MakeType<SingleProfileHandler>("single-profile-handler",
                                        "Runs the one scheduling profile that the config has.",
                                        NoParametersType);
}

}  // namespace llmd::plugins
