#include "plugins/factory.h"

namespace llmd::plugins {

const config::ObjectType<NoParameters>& NoParametersType() {
  static const auto type = config::Object<NoParameters>("NoParameters").Build();
  return *type;
}

}  // namespace llmd::plugins
