// Door: the index service's face on one worker, for HTTP and gRPC. A query is read, its prompt
// tokenized on the pool when it is text, and the config's PrefixQuery plugin asked.
//
// Thread safety: belongs to one worker. What workers share (DoorShared) is thread-safe or
// immutable.
// Limits: bodies by the servers' options, and all of them together by the memory budget (429);
// queries whose prompt waits for a tokenizer by control::OutsidePools.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/snapshot.h"
#include "control/api_keys.h"
#include "control/outside.h"
#include "control/state.h"
#include "director/config.h"
#include "index/query.h"
#include "net/grpc_server.h"
#include "net/http_server.h"
#include "text/tokenizer.h"

namespace llmd::index {

struct DoorShared {
  control::State& state;
  base::Snapshot<control::ApiKeys> keys;       // null: no keys asked for
  base::Snapshot<text::Tokenizer> tokenizer;   // null: none, or not loaded yet
  bool tokenizes = false;                      // there will be one
};

class Door final : public net::HttpService, public net::GrpcService {
 public:
  static constexpr std::string_view kPodScores = "/indexer.v1.IndexerService/GetPodScores";

  // `shared` and `loop` outlive the door.
  Door(DoorShared& shared, size_t worker, runtime::EventLoop& loop);
  ~Door() override;

  net::ExchangeHandler* OnRequest(net::ServerExchange& exchange) override;
  net::GrpcHandler* OnCall(net::GrpcCall& call) override;

 private:
  class Asker;
  class HttpAsker;
  class GrpcAsker;

  // The status to refuse with, OK: the key is fine, or none is wanted.
  base::Status CheckKey(std::string_view authorization);
  // nullptr: the config has none.
  plugin::PrefixQuery* Asked();
  void TakeBack(Asker* asker);

  DoorShared& shared_;
  const size_t worker_;
  runtime::EventLoop& loop_;
  control::BudgetLease lease_;
  control::Outside outside_;
  base::Snapshot<director::Generation>::Reader generation_;
  const director::Generation* asked_generation_ = nullptr;  // in which asked_ was looked for
  plugin::PrefixQuery* asked_ = nullptr;
  base::Snapshot<control::ApiKeys>::Reader keys_;
  base::Snapshot<text::Tokenizer>::Reader tokenizer_;
  std::unordered_map<Asker*, std::unique_ptr<Asker>> askers_;
  telemetry::CounterHandle answered_[2], refused_[2];  // HTTP, gRPC
};

}  // namespace llmd::index
