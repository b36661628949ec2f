// TokenBackend: where the token ids of a prompt come from, other than from the client: a vLLM
// render server over HTTP, a tokenizer sidecar over gRPC, or a tokenizer in this process. Owned by
// token-producer.
//
// Thread safety: Ask, Next and Read are called by all workers; NextErrand and OnErrandEnd by the
// control thread; Describe by any.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/time.h"
#include "plugin/outside.h"
#include "plugin/request_context.h"

namespace llmd::plugins {

struct TokenPrompt {
  struct Feature {
    protocol::PieceKind modality = protocol::PieceKind::kImage;
    uint32_t offset = 0;
    uint32_t length = 0;
    std::string hash;
  };
  std::vector<uint32_t> ids;
  std::vector<Feature> features;  // by offset
};

class TokenBackend : public plugin::ErrandRunner {
 public:
  // The task that will tell the ids; nullptr: requests of this kind cannot be asked for, or not
  // now.
  virtual std::shared_ptr<plugin::OutsideTask> Ask(const plugin::RequestContext& request) = 0;
  // What is to be done after `task`, which has ended, before there is anything to read; nullptr:
  // nothing more.
  virtual std::shared_ptr<plugin::OutsideTask> Next(plugin::OutsideTask& task) { return nullptr; }
  // What the last task, which has ended, brought.
  virtual base::Result<std::vector<TokenPrompt>> Read(plugin::OutsideTask& task,
                                                      base::TimePoint now) = 0;
  // How long a request waits at most.
  virtual base::Duration wait_max() const = 0;
  // A JSON object for /debug/plugins/state.
  virtual std::string Describe() const = 0;

  std::shared_ptr<plugin::OutsideTask> NextErrand(base::TimePoint now) override = 0;
  void OnErrandEnd(plugin::OutsideTask& task, base::TimePoint now) override = 0;
};

// How servers of token ids name a modality; what is neither audio nor video counts as an image.
protocol::PieceKind ModalityOf(std::string_view name);
// The hashes of a prompt's media, each modality's in its order: the n-th feature of a modality, as
// they stand, gets its n-th hash. Sorts the features by offset.
using MediaHashes = std::vector<std::pair<protocol::PieceKind, std::string>>;
void GiveHashes(MediaHashes hashes, TokenPrompt& prompt);
// The request's body in one piece.
std::string BodyOf(const plugin::RequestContext& request);

}  // namespace llmd::plugins
