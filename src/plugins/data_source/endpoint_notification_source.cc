#include "plugins/data_source/endpoint_notification_source.h"

#include "plugins/factory.h"

namespace llmd::plugins {
namespace {

class EndpointNotificationSource final : public plugin::Plugin, public plugin::EndpointNotifier {
 public:
  EndpointNotificationSource(const NoParameters&, plugin::PluginContext&) {}
};

}  // namespace

plugin::PluginType EndpointNotificationSourceType() {
  plugin::PluginType type = MakeType<EndpointNotificationSource>(
      "endpoint-notification-source",
      "Without effect: plugins that keep track of endpoints are told of them.", NoParametersType);
  type.kinds = "data source";
  return type;
}

}  // namespace llmd::plugins
