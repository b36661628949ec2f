#include "control/event_store.h"

#include <utility>

#include "telemetry/log.h"

namespace llmd::control {

base::Result<std::unique_ptr<EventStoreWriter>> EventStoreWriter::Create(
    runtime::EventLoop& loop, runtime::ThreadPool& lookups, plugin::EventStore& store) {
  LLMD_ASSIGN_OR_RETURN(net::RedisAddress address,
                        net::RedisAddress::Parse(store.store_address()));
  return std::make_unique<EventStoreWriter>(loop, lookups, store, std::move(address));
}

EventStoreWriter::EventStoreWriter(runtime::EventLoop& loop, runtime::ThreadPool& lookups,
                                   plugin::EventStore& store, net::RedisAddress address)
    : store_(store), client_(loop, lookups, {.address = std::move(address)}) {}

void EventStoreWriter::Write() {
  // Without a connection nothing is taken from the store: what it gives out is lost with a failure.
  if (is_writing_) return;
  if (const base::Status status = client_.status(); !status.ok()) {
    if (client_.stats().failures > 0 && !std::exchange(was_told_, true)) {
      LLMD_LOG(kWarn, "the shared KV index cannot be written", {"error", status});
    }
    return;
  }
  was_told_ = false;
  if (std::exchange(connects_, client_.stats().connects) != client_.stats().connects) {
    store_.OnStoreConnected();
  }
  wire::RespProgram* program = store_.NextStore();
  if (!program) return;
  const auto run = client_.Run(*program, *this, kProgramMax);
  is_writing_ = run.has_value();
  if (!run) store_.OnStoreEnd(run.error());
}

void EventStoreWriter::OnRedisEnd(const base::Status& status) {
  is_writing_ = false;
  store_.OnStoreEnd(status);
  Write();
}

}  // namespace llmd::control
