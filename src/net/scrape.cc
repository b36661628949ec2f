#include "net/scrape.h"

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/strings.h"

namespace llmd::net {
namespace {

// Room beyond the last page's size, so that a page that grew a little still fits one read.
constexpr size_t kPageSlackBytes = 2048;
// Targets started together at least: a wake-up costs as much as several sends, and the replies of a
// batch are mostly read in one turn.
constexpr size_t kBatchTargets = 8;
// New targets that connect in one tick: a few milliseconds of work.
constexpr size_t kFreshPerTickMax = 100;
constexpr size_t kPageReadBytesMax = base::BufferPool::kLargestPooledBytes;

}  // namespace

// One target and the scrape that may be under way for it.
class ScrapeJob final : public ClientHandler {
 public:
  ScrapeJob(Scraper::Impl& scraper, ScrapeId id, ScrapeTargetSpec spec, ScrapeSink& sink,
            ClientTarget* target)
      : scraper_(scraper), id_(id), spec_(std::move(spec)), sink_(sink), target_(target) {
    ComposeRequest();
  }

  void Begin() {
    may_repeat_ = true;
    Start();
  }
  void Cancel() {
    if (exchange_) std::exchange(exchange_, nullptr)->Cancel();
  }
  void SetPath(std::string path) {
    spec_.path = std::move(path);
    ComposeRequest();
  }
  bool busy() const { return exchange_ != nullptr; }
  base::TimePoint sent_at() const { return sent_at_; }
  ScrapeId id() const { return id_; }
  ClientTarget* target() const { return target_; }

  void OnResponseHead(const wire::ResponseHead& head) override {
    status_ = head.status;
    page_.clear();
    whole_ = base::Slice();
    page_bytes_ = 0;
  }
  void OnResponseBody(const base::Slice& raw, std::span<const std::string_view> decoded) override;
  void OnResponseEnd() override;
  void OnResponseError(const ClientError& error) override;

 private:
  void Start();
  void ComposeRequest() {
    request_ = base::Concat("GET ", spec_.path, " HTTP/1.1\r\nHost: ", spec_.host,
                            "\r\nAccept: text/plain\r\nAccept-Encoding: identity\r\n",
                            spec_.extra_lines, "\r\n");
  }

  Scraper::Impl& scraper_;
  const ScrapeId id_;
  ScrapeTargetSpec spec_;
  ScrapeSink& sink_;
  ClientTarget* target_;
  ClientExchange* exchange_ = nullptr;
  std::string request_;
  base::TimePoint sent_at_{};
  bool may_repeat_ = false;
  int status_ = 0;
  size_t page_bytes_ = 0;
  size_t last_page_bytes_ = 0;
  // The page: in place while it came in one piece, else gathered.
  base::Slice whole_;
  std::string_view whole_view_;
  std::string page_;
};

struct Scraper::Impl {
  Impl(runtime::EventLoop& event_loop, ScrapeOptions opts)
      : loop(event_loop),
        options(opts),
        client(event_loop, ClientOptionsFor(opts)),
        timer(event_loop, [this] { Tick(); }) {}

  // Connections wait for the next scrape at any interval that makes sense for keep-alive.
  static HttpClientOptions ClientOptionsFor(const ScrapeOptions& options) {
    HttpClientOptions result;
    result.idle_per_target_max = 1;
    result.connections_per_target_max = 2;
    result.idle_timeout = std::max(result.idle_timeout, 2 * options.interval);
    return result;
  }
  size_t TickCount() const {
    return static_cast<size_t>(std::max<int64_t>(1, options.interval / options.tick));
  }
  base::Duration TickLength() const { return options.interval / static_cast<int>(TickCount()); }
  void AssignPhases();
  void SkipEmptyTicks();
  void Tick();
  void Begin(ScrapeJob& job);

  runtime::EventLoop& loop;
  ScrapeOptions options;
  ScrapeStats stats;
  HttpClient client;
  runtime::Timer timer;
  std::unordered_map<ScrapeId, std::unique_ptr<ScrapeJob>> jobs;
  std::vector<std::vector<ScrapeJob*>> by_tick;
  std::vector<ScrapeJob*> fresh;  // start with the next tick
  bool phases_stale = true;
  size_t tick = 0;
  base::TimePoint next_tick{};
  ScrapeId last_id = 0;
  // Ids of the batch under way: a sink may remove or add targets meanwhile.
  std::vector<ScrapeId> batch;
};

void ScrapeJob::Start() {
  sent_at_ = scraper_.loop.now();
  StartOptions options;
  options.timeouts = {.connect = scraper_.options.timeout,
                      .write = scraper_.options.timeout,
                      .head = scraper_.options.timeout,
                      .body_idle = scraper_.options.timeout};
  options.reply_bytes_hint =
      std::min(last_page_bytes_ > 0 ? last_page_bytes_ + kPageSlackBytes : 0, kPageReadBytesMax);
  // Copied, so that SetPath may replace the text while a scrape is under way.
  exchange_ =
      scraper_.client.Start(target_, scraper_.loop.buffers().Copy(request_), {}, *this, options);
}

void ScrapeJob::OnResponseBody(const base::Slice& raw, std::span<const std::string_view> decoded) {
  for (std::string_view part : decoded) {
    if (part.empty()) continue;
    const bool first = page_bytes_ == 0;
    page_bytes_ += part.size();
    if (page_bytes_ > scraper_.options.page_bytes_max) {
      std::exchange(exchange_, nullptr)->Cancel();
      OnResponseError({.kind = ClientErrorKind::kBadReply,
                       .head_received = true,
                       .response_bytes = page_bytes_,
                       .detail = "the page is larger than the limit"});
      return;
    }
    if (first) {
      whole_ = raw;
      whole_view_ = part;
      continue;
    }
    if (!whole_.empty()) {
      page_.assign(whole_view_);
      whole_ = base::Slice();
    }
    page_.append(part);
  }
}

void ScrapeJob::OnResponseEnd() {
  exchange_ = nullptr;
  last_page_bytes_ = page_bytes_;
  ++scraper_.stats.completed;
  scraper_.stats.page_bytes += page_bytes_;
  // The sink may remove this job: what it looks at is moved out first and nothing is touched after.
  const base::Slice hold = std::move(whole_);
  if (page_bytes_ == 0 || !hold.empty()) {
    sink_.OnScrape(id_, status_, page_bytes_ == 0 ? std::string_view() : whole_view_, sent_at_);
    return;
  }
  std::string page = std::move(page_);
  Scraper::Impl& scraper = scraper_;
  const ScrapeId id = id_;
  sink_.OnScrape(id, status_, page, sent_at_);
  if (auto found = scraper.jobs.find(id); found != scraper.jobs.end()) {
    found->second->page_ = std::move(page);  // its capacity serves the next scrape
  }
}

void ScrapeJob::OnResponseError(const ClientError& error) {
  exchange_ = nullptr;
  // The server closed an idle connection while we wrote: a GET may simply be sent again, once.
  if (error.kind == ClientErrorKind::kResetBeforeReply && error.reused_connection &&
      std::exchange(may_repeat_, false)) {
    Start();
    return;
  }
  ++scraper_.stats.failed;
  const bool timeout = error.kind == ClientErrorKind::kConnectTimeout ||
                       error.kind == ClientErrorKind::kHeadTimeout ||
                       error.kind == ClientErrorKind::kBodyTimeout ||
                       error.kind == ClientErrorKind::kWriteTimeout;
  if (timeout) ++scraper_.stats.timeouts;
  whole_ = base::Slice();
  sink_.OnScrapeFailed(id_, error);
}

void Scraper::Impl::AssignPhases() {
  phases_stale = false;
  const size_t ticks = TickCount();
  by_tick.assign(ticks, {});
  // In the order of their ids, so that the places are stable when nothing changes.
  std::vector<ScrapeJob*> all;
  for (auto& [id, job] : jobs) all.push_back(job.get());
  std::sort(all.begin(), all.end(),
            [](const ScrapeJob* a, const ScrapeJob* b) { return a->id() < b->id(); });
  const size_t batches = std::clamp<size_t>(all.size() / kBatchTargets, 1, ticks);
  for (size_t i = 0; i < all.size(); ++i) {
    by_tick[i * batches / all.size() * ticks / batches].push_back(all[i]);
  }
}

// Ticks without a target cost no wake-up.
void Scraper::Impl::SkipEmptyTicks() {
  for (size_t skipped = 0; skipped < by_tick.size() && by_tick[tick].empty(); ++skipped) {
    tick = (tick + 1) % by_tick.size();
    next_tick += TickLength();
  }
}

void Scraper::Impl::Tick() {
  if (jobs.empty()) return;
  if (phases_stale) AssignPhases();
  const base::TimePoint now = loop.now();
  const base::Duration length = TickLength();
  if (now > next_tick + length) {
    // Behind: the ticks in between are merged into this one.
    ++stats.late_ticks;
  }
  batch.clear();
  const size_t fresh_count = std::min(fresh.size(), kFreshPerTickMax);
  for (size_t i = 0; i < fresh_count; ++i) batch.push_back(fresh[i]->id());
  fresh.erase(fresh.begin(), fresh.begin() + static_cast<ptrdiff_t>(fresh_count));
  size_t steps = 0;
  while (next_tick <= now && steps < by_tick.size()) {
    for (ScrapeJob* job : by_tick[tick]) batch.push_back(job->id());
    tick = (tick + 1) % by_tick.size();
    next_tick += length;
    ++steps;
  }
  if (next_tick <= now) next_tick = now + length;
  SkipEmptyTicks();
  timer.ArmAt(next_tick);
  for (ScrapeId id : batch) {
    if (auto found = jobs.find(id); found != jobs.end()) Begin(*found->second);
  }
}

void Scraper::Impl::Begin(ScrapeJob& job) {
  if (job.busy()) {
    // Not late: a new target whose first scrape began shortly before its place in the interval.
    if (loop.now() - job.sent_at() > options.interval - TickLength()) ++stats.late;
    return;
  }
  ++stats.started;
  job.Begin();
}

Scraper::Scraper(runtime::EventLoop& loop, ScrapeOptions options)
    : impl_(std::make_unique<Impl>(loop, options)) {}
Scraper::~Scraper() {
  for (auto& [id, job] : impl_->jobs) job->Cancel();
}

ScrapeId Scraper::Add(ScrapeTargetSpec spec, ScrapeSink& sink) {
  const ScrapeId id = ++impl_->last_id;
  ClientTarget* target = impl_->client.AddTarget(spec.target);
  auto job = std::make_unique<ScrapeJob>(*impl_, id, std::move(spec), sink, target);
  impl_->fresh.push_back(job.get());
  impl_->jobs.emplace(id, std::move(job));
  impl_->phases_stale = true;
  const base::TimePoint now = impl_->loop.now();
  if (!impl_->timer.armed()) impl_->next_tick = now;
  // The first scrape does not wait for the target's place in the interval.
  impl_->timer.ArmAt(std::min(impl_->next_tick, now + impl_->TickLength()));
  return id;
}

void Scraper::Remove(ScrapeId id) {
  auto found = impl_->jobs.find(id);
  if (found == impl_->jobs.end()) return;
  ScrapeJob* job = found->second.get();
  job->Cancel();
  impl_->client.RemoveTarget(job->target());
  std::erase(impl_->fresh, job);
  for (auto& jobs : impl_->by_tick) std::erase(jobs, job);
  impl_->phases_stale = true;
  impl_->jobs.erase(found);
}

void Scraper::SetPath(ScrapeId id, std::string path) {
  if (auto found = impl_->jobs.find(id); found != impl_->jobs.end()) {
    found->second->SetPath(std::move(path));
  }
}

void Scraper::SetInterval(base::Duration interval) {
  impl_->options.interval = std::max(interval, impl_->options.tick);
  impl_->phases_stale = true;
  impl_->tick = 0;
}

size_t Scraper::size() const { return impl_->jobs.size(); }
const ScrapeStats& Scraper::stats() const { return impl_->stats; }

}  // namespace llmd::net
