// For tests of plugins: a context that makes a plugin from YAML parameters, and a scene with a
// fleet, a view and a request.
//
//   Scene scene(3);
//   scene.Report(0, {.waiting = 2});
//   Made made = Make(QueueScorerType(), "");
//   EXPECT_THAT(scene.Score(made), ElementsAre(0, 1, 1));
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/document.h"
#include "plugin/catalogue.h"
#include "plugin/keys.h"
#include "plugin/request_context.h"

namespace llmd::plugins::testing {

// Slots are numbered by key and instance name, so that a producer and a consumer made by one
// context meet.
class TestContext final : public plugin::PluginContext {
 public:
  explicit TestContext(fleet::Fleet* fleet = nullptr) : fleet_(fleet) {}

  const std::string& name() const override { return name_; }
  const config::Node& parameters() const override { return parameters_; }
  config::ErrorList& errors() override { return errors_; }
  base::Result<fleet::CounterId> AddCounter() override { return fleet().AddCounter(); }
  fleet::Fleet& fleet() override { return *fleet_; }
  base::Result<plugin::EndpointAttribute> ProducesEndpointAttribute(std::string_view key) override {
    LLMD_ASSIGN_OR_RETURN(const fleet::AttributeId own, ConsumesEndpointAttribute(key, name_));
    LLMD_ASSIGN_OR_RETURN(const fleet::AttributeId any, ConsumesEndpointAttribute(key, ""));
    return plugin::EndpointAttribute{own, any};
  }
  base::Result<fleet::AttributeId> ConsumesEndpointAttribute(std::string_view key,
                                                             std::string_view producer) override {
    const auto [at, fresh] =
        attributes_.try_emplace({std::string(key), std::string(producer)}, 0);
    if (fresh) {
      LLMD_ASSIGN_OR_RETURN(at->second, fleet().AddAttribute());
    }
    return at->second;
  }

  // The plugin, or nullptr with the reasons in errors().
  std::unique_ptr<plugin::Plugin> Make(const plugin::PluginType& type, std::string_view yaml,
                                       std::string name = "") {
    name_ = name.empty() ? type.type : std::move(name);
    documents_.push_back(config::Document::Parse(yaml, "test.yaml", &errors_));
    if (!documents_.back()) return nullptr;
    parameters_ = documents_.back()->root();
    auto made = type.factory(*this);
    if (made) made->SetIdentity(name_, type.type);
    if (!type.default_producer_of.empty()) defaults_[type.default_producer_of] = name_;
    return made;
  }
  // The slot that `producer` ("": the default) writes.
  template <class T>
  plugin::Slot<T> SlotOf(std::string_view producer = "") {
    return Consumes<T>(producer);
  }
  size_t slot_count() const { return slots_.size(); }

 protected:
  uint32_t ProducesKey(std::string_view key) override { return SlotNumber(key, name_); }
  uint32_t ConsumesKey(std::string_view key, std::string_view producer, bool required) override {
    if (producer.empty() && !defaults_.contains(std::string(key)) && !required)
      return plugin::kNoSlot;
    return SlotNumber(key, producer.empty() ? defaults_[std::string(key)] : std::string(producer));
  }
  plugin::Plugin* ReferencedPlugin(std::string_view) override { return nullptr; }

 private:
  uint32_t SlotNumber(std::string_view key, const std::string& producer) {
    return slots_.try_emplace({std::string(key), producer}, static_cast<uint32_t>(slots_.size()))
        .first->second;
  }

  fleet::Fleet* fleet_;
  std::string name_;
  std::vector<std::shared_ptr<const config::Document>> documents_;
  config::Node parameters_;
  config::ErrorList errors_;
  std::map<std::pair<std::string, std::string>, uint32_t> slots_;
  std::map<std::string, std::string> defaults_;
  std::map<std::pair<std::string, std::string>, fleet::AttributeId> attributes_;
};

inline base::TimePoint At(base::Duration d = {}) {
  return base::TimePoint(std::chrono::seconds(1000) + d);
}

// A fleet of `count` endpoints "default/s0", "default/s1", ... and one request towards it.
class Scene {
 public:
  explicit Scene(size_t count) : fleet_(1), view_(fleet_, 0), context_(&fleet_) {
    std::vector<fleet::EndpointSpec> specs;
    for (size_t i = 0; i < count; ++i) {
      specs.push_back({.name = "s" + std::to_string(i),
                       .address = "10.0.0.1",
                       .port = static_cast<uint16_t>(8000 + i),
                       .labels = {}});
    }
    SetMembers(std::move(specs));
  }
  void SetMembers(std::vector<fleet::EndpointSpec> specs) {
    if (!fleet_.SetMembers(std::move(specs), At(std::chrono::seconds(-100))).ok()) std::abort();
    Refresh();
  }
  void Report(plugin::EndpointNumber n, const fleet::Load& load, base::TimePoint at = At()) {
    fleet_.ReportLoad(n, load, at);
    Refresh();
  }
  void Refresh() {
    clock_ += fleet::View::kRefreshInterval;
    view_.Refresh(At(clock_));
  }
  std::vector<plugin::EndpointNumber> Candidates() const {
    return {view_.members().begin(), view_.members().end()};
  }

  // Makes a plugin in this scene; nullptr when its parameters are wrong (see context().errors()).
  std::unique_ptr<plugin::Plugin> Make(const plugin::PluginType& type, std::string_view yaml = "",
                                       std::string name = "") {
    return context_.Make(type, yaml, std::move(name));
  }

  // A fresh request; the last one's memory is gone.
  plugin::RequestContext& NewRequest() {
    arena_.Reset();
    body_ = {};
    request_ = {};
    request_.body = &body_;
    request_.now = At();
    request_.random = base::Random(++seed_);
    request_.arena = &arena_;
    request_.fleet = &view_;
    request_.attributes =
        plugin::Attributes(arena_.NewSpan<const void*>(context_.slot_count() + 8));
    return request_;
  }
  plugin::RequestContext& request() { return request_.arena ? request_ : NewRequest(); }
  protocol::Request& body() { return body_; }
  // Gives the request one text prompt and counts on its living as long as the scene does.
  void SetPrompt(std::string_view text) {
    request();
    pieces_ = {{.bytes = text}};
    body_.pieces = pieces_;
    body_.prompt_count = 1;
    body_.text_bytes = text.size();
  }

  std::vector<double> Score(plugin::Plugin& made) {
    const auto candidates = Candidates();
    std::vector<double> scores(candidates.size(), -1);
    dynamic_cast<plugin::Scorer&>(made).Score(request(), candidates, scores);
    return scores;
  }
  std::vector<plugin::EndpointNumber> Filter(plugin::Plugin& made) {
    auto candidates = Candidates();
    plugin::Candidates left{candidates};
    dynamic_cast<plugin::Filter&>(made).Apply(request(), left);
    return {left.numbers.begin(), left.numbers.end()};
  }
  base::Status Produce(plugin::Plugin& made) {
    return dynamic_cast<plugin::DataProducer&>(made).Produce(request(), Candidates());
  }
  // Tells `made` that the request goes to `n` by the one profile there is.
  base::Status Route(plugin::Plugin& made, plugin::EndpointNumber n, plugin::BookingList* bookings,
                     std::string_view profile = "default") {
    const plugin::ScoredCandidate chosen[] = {{n, 1.0}};
    const plugin::ProfileResult profiles[] = {
        {.profile = profile, .endpoints = chosen, .ran = true}};
    return dynamic_cast<plugin::PreRequest&>(made).OnRouted(request(), {.profiles = profiles},
                                                            bookings);
  }

  fleet::Fleet& fleet() { return fleet_; }
  fleet::View& view() { return view_; }
  TestContext& context() { return context_; }

 private:
  fleet::Fleet fleet_;
  fleet::View view_;
  base::Duration clock_{};
  TestContext context_;
  base::Arena arena_;
  uint64_t seed_ = 0;
  protocol::Request body_;
  std::vector<protocol::Piece> pieces_;
  plugin::RequestContext request_;
};

}  // namespace llmd::plugins::testing
