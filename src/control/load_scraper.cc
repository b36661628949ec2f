#include "control/load_scraper.h"

#include <algorithm>
#include <unordered_map>

#include "base/strings.h"
#include "telemetry/log.h"

namespace llmd::control {
namespace {

// "name[]=a&name[]=b"; family names need no escaping ([a-zA-Z0-9_:]).
std::string FilterQuery(const std::vector<std::string>& families) {
  std::string query;
  for (const std::string& family : families) {
    query.append(query.empty() ? "" : "&").append("name[]=").append(family);
  }
  return query;
}

// The configured type behind a plugin's face.
template <class Face>
std::string_view TypeOf(const Face* face) {
  const auto* plugin = dynamic_cast<const plugin::Plugin*>(face);
  return plugin ? std::string_view(plugin->type()) : std::string_view();
}

}  // namespace

// One data source of the config over all endpoints.
class LoadScraper::Source final : public net::ScrapeSink {
 public:
  Source(LoadScraper& owner, const director::ScrapeStep& step,
         std::shared_ptr<net::TlsClientContext> tls)
      : owner_(owner),
        step_(step),
        tls_(std::move(tls)),
        scraper_(owner.loop_,
                 {.interval = std::max(step.source->fetch().interval, owner.interval_min_)}) {
    using telemetry::MetricId;
    ok_ = owner.metrics_.Counter(MetricId::kScrapesTotal, {"ok"});
    error_ = owner.metrics_.Counter(MetricId::kScrapesTotal, {"error"});
    timeout_ = owner.metrics_.Counter(MetricId::kScrapesTotal, {"timeout"});
    seconds_ = owner.metrics_.Histogram(MetricId::kScrapeSeconds);
    const std::string_view source = TypeOf(step.source);
    poll_errors_ = owner.metrics_.Counter(MetricId::kDatalayerPollErrorsTotal, {source});
    for (const plugin::Extractor* extractor : step.extractors) {
      extract_errors_.push_back(owner.metrics_.Counter(MetricId::kDatalayerExtractErrorsTotal,
                                                       {source, TypeOf(extractor)}));
    }
  }

  void SetBackends(const Backends& backends) {
    const auto members = owner_.fleet_.members();
    std::vector<bool> present(by_number_.size());
    for (const Backend& backend : backends) {
      if (backend.number >= by_number_.size()) {
        by_number_.resize(backend.number + 1);
        present.resize(backend.number + 1);
      }
      Entry& entry = by_number_[backend.number];
      const auto& endpoint = members->by_number[backend.number];
      if (entry.endpoint && entry.endpoint->generation == backend.generation &&
          entry.address == backend.target.address) {
        entry.endpoint = endpoint;  // labels may have changed
      } else {
        Forget(entry);
        Begin(entry, backend, endpoint);
      }
      present[backend.number] = true;
    }
    for (size_t i = 0; i < by_number_.size(); ++i) {
      if (!present[i]) Forget(by_number_[i]);
    }
  }

  void OnScrape(net::ScrapeId id, int status, std::string_view page,
                base::TimePoint sent_at) override {
    Entry& entry = by_number_[by_id_.at(id)];
    bool found = false;
    if (status == 200) {
      entry.report->BeginPage();
      for (size_t i = 0; i < step_.extractors.size(); ++i) {
        const bool used =
            step_.extractors[i]->Extract(entry.endpoint->spec, page, entry.report.get());
        if (!used && !entry.filtered) extract_errors_[i].Add(owner_.writer_);
        found |= used;
      }
    } else if (!entry.filtered) {
      poll_errors_.Add(owner_.writer_);
    }
    if (found) {
      entry.failing = false;
      ok_.Add(owner_.writer_);
      seconds_.Observe(owner_.writer_, base::ToSeconds(owner_.loop_.now() - sent_at));
      Report(entry.endpoint->number, *entry.report);
      return;
    }
    error_.Add(owner_.writer_);
    if (entry.filtered) {
      entry.filtered = false;
      scraper_.SetPath(id, step_.source->fetch().path);
      return;
    }
    Failed(entry, status == 200 ? "no known series on the page" : "status is not 200");
  }

  void OnScrapeFailed(net::ScrapeId id, const net::ClientError& error) override {
    const bool timeout = error.kind == net::ClientErrorKind::kHeadTimeout ||
                         error.kind == net::ClientErrorKind::kBodyTimeout ||
                         error.kind == net::ClientErrorKind::kConnectTimeout;
    (timeout ? timeout_ : error_).Add(owner_.writer_);
    poll_errors_.Add(owner_.writer_);
    Failed(by_number_[by_id_.at(id)], net::ClientErrorName(error.kind));
  }

 private:
  struct Entry {
    std::shared_ptr<const fleet::Endpoint> endpoint;  // null: no such number
    runtime::SocketAddress address;
    net::ScrapeId id = 0;
    std::unique_ptr<plugin::EndpointReport> report;
    bool filtered = false;
    bool failing = false;
  };

  void Begin(Entry& entry, const Backend& backend,
             const std::shared_ptr<const fleet::Endpoint>& endpoint) {
    const plugin::FetchSpec& fetch = step_.source->fetch();
    entry.endpoint = endpoint;
    entry.report = std::make_unique<plugin::EndpointReport>();
    entry.address = backend.target.address;
    std::vector<std::string> families;
    for (const plugin::Extractor* extractor : step_.extractors) {
      const auto more = extractor->WantedFamilies(endpoint->spec);
      families.insert(families.end(), more.begin(), more.end());
    }
    net::ScrapeTargetSpec spec;
    spec.target = backend.target;
    spec.target.tls = fetch.scheme == "https" ? tls_ : backend.target.tls;
    if (fetch.port != 0) spec.target.address = spec.target.address.WithPort(fetch.port);
    spec.host = fleet::JoinHostPort(endpoint->spec.address, spec.target.address.port());
    spec.path = fetch.path;
    entry.filtered = !families.empty();
    if (entry.filtered) {
      spec.path.append(fetch.path.find('?') == std::string::npos ? "?" : "&");
      spec.path.append(FilterQuery(families));
    }
    spec.extra_lines = owner_.extra_lines_;
    entry.id = scraper_.Add(std::move(spec), *this);
    by_id_[entry.id] = backend.number;
  }

  void Report(fleet::EndpointNumber number, const plugin::EndpointReport& report) {
    if (report.found_load) owner_.fleet_.ReportLoad(number, report.load, owner_.loop_.now());
    if (report.found_adapters) owner_.fleet_.ReportAdapters(number, report.adapters);
    for (size_t i = 0; i < report.value_count; ++i) {
      owner_.fleet_.ReportAttribute(number, report.values[i].attribute, report.values[i].value);
    }
  }

  void Forget(Entry& entry) {
    if (!entry.endpoint) return;
    scraper_.Remove(entry.id);
    by_id_.erase(entry.id);
    entry = Entry();
  }

  void Failed(Entry& entry, std::string_view why) {
    if (std::exchange(entry.failing, true)) return;
    LLMD_LOG(kInfo, "an endpoint's metrics cannot be read", {"endpoint", entry.endpoint->host_port},
             {"why", why});
  }

  LoadScraper& owner_;
  const director::ScrapeStep& step_;
  std::shared_ptr<net::TlsClientContext> tls_;
  net::Scraper scraper_;
  std::vector<Entry> by_number_;
  std::unordered_map<net::ScrapeId, fleet::EndpointNumber> by_id_;
  telemetry::CounterHandle ok_, error_, timeout_, poll_errors_;
  std::vector<telemetry::CounterHandle> extract_errors_;  // by extractor
  telemetry::HistogramHandle seconds_;
};

LoadScraper::LoadScraper(runtime::EventLoop& loop, fleet::Fleet& fleet, telemetry::Metrics& metrics,
                         size_t writer, base::Duration interval_min)
    : loop_(loop),
      fleet_(fleet),
      metrics_(metrics),
      writer_(writer),
      interval_min_(interval_min) {}

LoadScraper::~LoadScraper() = default;

base::Status LoadScraper::SetGeneration(std::shared_ptr<const director::Generation> generation) {
  std::vector<std::unique_ptr<Source>> sources;
  for (const director::ScrapeStep& step : generation->scrapes()) {
    const plugin::FetchSpec& fetch = step.source->fetch();
    std::shared_ptr<net::TlsClientContext> tls;
    if (fetch.scheme == "https") {
      LLMD_ASSIGN_OR_RETURN(
          tls, net::TlsClientContext::Create({.ca_file = fetch.ca_file,
                                              .insecure_skip_verify = !fetch.verify_server,
                                              .certificate_file = fetch.client_cert_file,
                                              .key_file = fetch.client_key_file}));
    }
    sources.push_back(std::make_unique<Source>(*this, step, std::move(tls)));
  }
  sources_ = std::move(sources);
  generation_ = std::move(generation);  // after the old sources, which point into the old one
  if (backends_) SetBackends(backends_);
  return base::OkStatus();
}

void LoadScraper::SetBackends(std::shared_ptr<const Backends> backends) {
  backends_ = std::move(backends);
  for (auto& source : sources_) source->SetBackends(*backends_);
}

}  // namespace llmd::control
