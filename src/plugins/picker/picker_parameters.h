// What every picker takes.
#pragma once

#include <cstdint>

#include "config/schema.h"

namespace llmd::plugins {

struct PickerParameters {
  int64_t max_num_of_endpoints = 1;  // the pick and its fallbacks
};
const config::ObjectType<PickerParameters>& PickerParametersType();

}  // namespace llmd::plugins
