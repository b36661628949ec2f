// Which column of endpoint attributes the parameters of a plugin name.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/strings.h"
#include "plugin/catalogue.h"

namespace llmd::plugins {

// Without a producer the attribute is one of core-metrics-extractor's custom metrics. A slash in
// the name is then an error: "attribute/producer" in one word is not a spelling of both.
inline fleet::AttributeId AttributeColumn(const std::string& attribute,
                                          const std::optional<std::string>& producer,
                                          std::string_view field, plugin::PluginContext& context) {
  const config::Node at = context.parameters().FindOrSelf(field);
  if (!producer && attribute.find('/') != std::string::npos) {
    context.errors().Add(at, base::Concat("\"", attribute,
                                          "\" has a slash and no producer is given; attribute and "
                                          "producer are separate parameters"));
    return 0;
  }
  const auto column =
      context.ConsumesEndpointAttribute(attribute, producer.value_or("core-metrics-extractor"));
  if (!column) context.errors().Add(at, column.error().message());
  return column.value_or(0);
}

}  // namespace llmd::plugins
