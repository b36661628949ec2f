#include "control/errands.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace llmd::control {

class Errands::Slot final : public OutsideWaiter {
 public:
  Slot(Errands& owner, std::shared_ptr<plugin::Plugin> plugin, plugin::ErrandRunner& runner)
      : owner_(owner), plugin_(std::move(plugin)), runner_(runner) {}
  ~Slot() {
    owner_.outside_.Forget(*this);
    if (task_) task_->Cancel();
  }

  const plugin::Plugin* plugin() const { return plugin_.get(); }

  void Ask() {
    if (task_) return;
    task_ = runner_.NextErrand(owner_.loop_.now());
    if (!task_) return;
    if (!task_->Begin()) {
      LLMD_BUG("a plugin gave the same errand twice");
      task_.reset();
      return;
    }
    // One that cannot begin is told of; the plugin is asked again with the next tick.
    if (!owner_.outside_.Begin(task_, *this)) Tell();
  }
  void OnOutsideEnd() override {
    Tell();
    Ask();
  }

 private:
  void Tell() {
    const std::shared_ptr<plugin::OutsideTask> task = std::move(task_);
    runner_.OnErrandEnd(*task, owner_.loop_.now());
  }

  Errands& owner_;
  const std::shared_ptr<plugin::Plugin> plugin_;
  plugin::ErrandRunner& runner_;
  std::shared_ptr<plugin::OutsideTask> task_;  // under way
};

Errands::Errands(runtime::EventLoop& loop, Outside& outside)
    : loop_(loop), outside_(outside), timer_(loop, [this] {
        for (const auto& slot : slots_) slot->Ask();
        timer_.ArmAfter(kInterval);
      }) {}

Errands::~Errands() = default;

void Errands::SetGeneration(const director::Generation& generation) {
  std::vector<std::unique_ptr<Slot>> slots;
  for (const director::LoadedPlugin& loaded : generation.plugins()) {
    auto* runner = dynamic_cast<plugin::ErrandRunner*>(loaded.object.get());
    if (!runner) continue;
    const auto old = std::ranges::find_if(slots_, [&](const auto& slot) {
      return slot && slot->plugin() == loaded.object.get();
    });
    slots.push_back(old != slots_.end() ? std::move(*old)
                                        : std::make_unique<Slot>(*this, loaded.object, *runner));
  }
  slots_ = std::move(slots);
  timer_.ArmAfter({});
}

}  // namespace llmd::control
