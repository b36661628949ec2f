#include "plugins/picker/picker_parameters.h"

#include "fleet/endpoint.h"

namespace llmd::plugins {

const config::ObjectType<PickerParameters>& PickerParametersType() {
  static const auto type =
      config::Object<PickerParameters>("PickerParameters")
          .Field("maxNumOfEndpoints", "Endpoints to name: the pick first, then fallbacks.",
                 &PickerParameters::max_num_of_endpoints,
                 config::Int<int64_t>(1, static_cast<int64_t>(fleet::kEndpointsMax)))
          .Build();
  return *type;
}

}  // namespace llmd::plugins
