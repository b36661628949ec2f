#include "plugins/extractor/dcgm_extractor.h"

#include <algorithm>

#include "plugins/factory.h"
#include "wire/prometheus.h"

namespace llmd::plugins {
namespace {

constexpr std::string_view kGpuUse = "DCGM_FI_DEV_GPU_UTIL";

class DcgmExtractor final : public plugin::Plugin, public plugin::Extractor {
 public:
  DcgmExtractor(const NoParameters&, plugin::PluginContext& context)
      : wanted_({{.name = std::string(kGpuUse), .labels = {}}}) {
    const auto attribute = context.ProducesEndpointAttribute("GPUUtilization");
    if (attribute) {
      use_ = *attribute;
    } else {
      context.errors().Add(context.parameters(), attribute.error().message());
    }
  }
  std::vector<std::string> WantedFamilies(const fleet::EndpointSpec&) const override {
    return {std::string(kGpuUse)};
  }
  bool Extract(const fleet::EndpointSpec& endpoint, std::string_view page,
               plugin::EndpointReport* report) const override {
    double use = -1;
    std::string scratch;
    wire::PageScanner scan(wanted_, page);
    for (wire::ScrapedSample sample; scan.Next(&sample);) {
      const auto pod = sample.Label("pod", &scratch);
      if (!pod || endpoint.name.empty() || *pod == endpoint.name) {
        use = std::max(use, sample.value);
      }
    }
    if (use < 0) return false;
    report->Set(use_, use / 100);
    return true;
  }

 private:
  const wire::WantedMetrics wanted_;
  plugin::EndpointAttribute use_;
};

}  // namespace

plugin::PluginType DcgmExtractorType() {
  plugin::PluginType type =
      MakeType<DcgmExtractor>("dcgm-extractor", "Reads GPU use from a page of the DCGM exporter.",
                              NoParametersType);
  type.stability = plugin::Stability::kAlpha;
  return type;
}

}  // namespace llmd::plugins
