// Stages: the one wrapper around every plugin call of a cycle. One clock reading per border: the end
// of a stage is the beginning of the next.
// Thread safety: none; lives on the stack of one cycle.
#pragma once

#include "scheduling/trace.h"

namespace llmd::scheduling {

class Stages {
 public:
  // `trace` may be nullptr.
  explicit Stages(const Trace* trace)
      : trace_(trace && trace->clock && trace->sink ? trace : nullptr) {
    if (trace_) last_ = trace_->clock();
  }
  // Runs `stage` and reports how long it took.
  template <class Stage>
  auto operator()(ExtensionPoint point, uint32_t plugin, Stage stage) {
    if constexpr (std::is_void_v<decltype(stage())>) {
      stage();
      Border(point, plugin);
    } else {
      auto result = stage();
      Border(point, plugin);
      return result;
    }
  }
  // Work that belongs to no plugin: the next stage begins now.
  void Skip() {
    if (trace_) last_ = trace_->clock();
  }

 private:
  void Border(ExtensionPoint point, uint32_t plugin) {
    if (!trace_) return;
    const base::TimePoint now = trace_->clock();
    trace_->sink->OnStage(point, plugin, now - last_);
    last_ = now;
  }

  const Trace* trace_;
  base::TimePoint last_{};
};

}  // namespace llmd::scheduling
