// Errands: has what plugins want done beside the requests (plugin::ErrandRunner) performed, one
// task of each plugin at a time.
//
// Thread safety: belongs to the control loop's thread.
#pragma once

#include <memory>
#include <vector>

#include "control/outside.h"
#include "director/config.h"
#include "runtime/loop.h"

namespace llmd::control {

class Errands {
 public:
  // How often a plugin that wanted nothing is asked again.
  static constexpr base::Duration kInterval = std::chrono::seconds(1);

  // `outside` belongs to the same loop. References outlive the object.
  Errands(runtime::EventLoop& loop, Outside& outside);
  ~Errands();

  // Whose errands are run from now on; plugins that were there before go on with what they do.
  void SetGeneration(const director::Generation& generation);

 private:
  class Slot;

  runtime::EventLoop& loop_;
  Outside& outside_;
  std::vector<std::unique_ptr<Slot>> slots_;
  runtime::Timer timer_;
};

}  // namespace llmd::control
