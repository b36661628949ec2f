#include "workload/pacer.h"

#include <algorithm>

namespace llmd::workload {
namespace {

// Worker `worker` of `count` gets its part of `total`; the first ones get the remainder.
uint64_t Share(uint64_t total, uint32_t worker, uint32_t count) {
  return total / count + (worker < total % count ? 1 : 0);
}

base::TimePoint After(base::TimePoint from, base::Duration delay) {
  return delay > base::TimePoint::max() - from ? base::TimePoint::max() : from + delay;
}

}  // namespace

Pacer::Pacer(const PacerOptions& options, base::TimePoint begin)
    : options_(options),
      begin_(begin),
      measured_from_(After(begin, options.warm_up)),
      until_(After(measured_from_, options.duration)),
      random_(options.seed) {
  const bool closed = options.arrival == Arrival::kClosedLoop;
  in_flight_max_ = static_cast<uint32_t>(Share(closed ? options.concurrency : options.in_flight_max,
                                               options.worker, options.worker_count));
  // An open loop with fewer places than workers still takes its share of the schedule.
  if (!closed) in_flight_max_ = std::max(in_flight_max_, 1u);
  measured_left_ = Share(options.request_count_max, options.worker, options.worker_count);
  was_warm_up_ = options.warm_up.count() > 0;
  if (in_flight_max_ == 0 || measured_left_ == 0) {
    exhausted_ = true;
  } else if (!closed) {
    DrawNext();
  }
}

// Walks the common schedule to the next request that is this worker's.
void Pacer::DrawNext() {
  const double gap_mean = 1.0 / options_.rate;
  for (;;) {
    if (options_.arrival == Arrival::kPoisson) {
      at_s_ += random_.Exponential(gap_mean);
    } else {
      at_s_ = static_cast<double>(drawn_) * gap_mean;
    }
    ++drawn_;
    // Beyond a century the schedule is over rather than out of range.
    const base::TimePoint due =
        at_s_ > 3e9 ? base::TimePoint::max() : begin_ + base::FromSeconds(at_s_);
    if (due >= until_) {
      exhausted_ = true;
      return;
    }
    const bool warm_up = due < measured_from_;
    if (warm_up != was_warm_up_) {
      was_warm_up_ = warm_up;
      phase_drawn_ = 0;
    }
    const uint64_t index = phase_drawn_++;
    if (index % options_.worker_count != options_.worker) continue;
    next_ = {.index = index, .warm_up = warm_up, .due = due};
    return;
  }
}

std::optional<Start> Pacer::TryStart(base::TimePoint now) {
  if (exhausted_ || in_flight_ >= in_flight_max_) return std::nullopt;
  if (options_.arrival == Arrival::kClosedLoop) return TryStartClosed(now);
  if (now < next_.due) return std::nullopt;
  const Start start = next_;
  ++in_flight_;
  if (!start.warm_up && --measured_left_ == 0) {
    exhausted_ = true;
  } else {
    DrawNext();
  }
  return start;
}

std::optional<Start> Pacer::TryStartClosed(base::TimePoint now) {
  if (now >= until_) {
    exhausted_ = true;
    return std::nullopt;
  }
  const bool warm_up = now < measured_from_;
  if (warm_up != was_warm_up_) {
    was_warm_up_ = warm_up;
    started_ = 0;
  }
  ++in_flight_;
  if (!warm_up && --measured_left_ == 0) exhausted_ = true;
  return Start{.index = options_.worker + started_++ * options_.worker_count,
               .warm_up = warm_up,
               .due = now};
}

base::TimePoint Pacer::next_due() const {
  if (exhausted_ || in_flight_ >= in_flight_max_) return base::TimePoint::max();
  return options_.arrival == Arrival::kClosedLoop ? begin_ : next_.due;
}

}  // namespace llmd::workload
