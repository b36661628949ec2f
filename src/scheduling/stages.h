// Stages: the one wrapper around every plugin call. One clock reading per border: the end of a
// stage is the beginning of the next, also from one Stages to the next over the same Trace
// (Trace::border). Thread safety: none; lives on the stack of one decision.
#pragma once

#include <type_traits>

#include "scheduling/trace.h"

namespace llmd::scheduling {

class Stages {
 public:
  // `trace` may be nullptr. The first stage begins at the trace's border, or now if it has none.
  explicit Stages(Trace* trace) : trace_(trace && trace->clock && trace->sink ? trace : nullptr) {
    if (trace_ && trace_->border == base::TimePoint{}) Skip();
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
    if (trace_) trace_->border = trace_->clock();
  }

 private:
  void Border(ExtensionPoint point, uint32_t plugin) {
    if (!trace_) return;
    const base::TimePoint now = trace_->clock();
    trace_->sink->OnStage(point, plugin, now - trace_->border);
    trace_->border = now;
  }

  Trace* trace_;
};

}  // namespace llmd::scheduling
