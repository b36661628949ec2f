// endpoint-notification-source: upstream's way of telling plugins (precise-prefix-cache-producer,
// mm-embeddings-cache-producer) who the fleet's members are. Here they are told whether it is there
// or not, so that it does nothing: documents that name it are read. No parameters.
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType EndpointNotificationSourceType();

}  // namespace llmd::plugins
