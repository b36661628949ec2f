// label-selector-filter: keeps the endpoints whose labels a Kubernetes LabelSelector matches.
//
// Parameters: matchLabels (key: value, all must be equal), matchExpressions (key, operator In,
// NotIn, Exists or DoesNotExist, values). All conditions must hold; none at all matches everything.
// NotIn holds for an endpoint without the label, as in Kubernetes
// (kubernetes.io/docs/concepts/overview/working-with-objects/labels).
#pragma once

#include "plugin/catalogue.h"

namespace llmd::plugins {

plugin::PluginType LabelSelectorFilterType();
// by-label-selector, its old name.
plugin::PluginType ByLabelSelectorType();

}  // namespace llmd::plugins
