#include "plugins/producer/shared_index.h"

#include <utility>
#include <vector>

namespace llmd::plugins {

const prefix::KvHolder* SharedIndexWriter::Holder(prefix::HolderId holder) {
  const prefix::KvHolders* holders = holders_->Get();
  if (!holders || holder >= holders->size() || (*holders)[holder].address.empty()) return nullptr;
  return &(*holders)[holder];
}

void SharedIndexWriter::OnStored(prefix::HolderId holder, prefix::Tier tier,
                                 std::optional<uint32_t> engine_group,
                                 std::span<const prefix::EngineKey> engine_keys,
                                 std::span<const prefix::BlockKey> blocks) {
  const prefix::KvHolder* pod = Holder(holder);
  if (!pod) return;
  const prefix::KvRedisEntry entry{
      .pod = pod->address, .tier = tiers_.name(tier), .group = engine_group};
  if (is_again_) return mirror_.StoreAgain(entry, engine_keys, blocks);
  mirror_.Store(entry, engine_keys, blocks);
}

void SharedIndexWriter::OnRemoved(prefix::HolderId holder, prefix::Tier tier,
                                  std::optional<uint32_t> engine_group,
                                  std::span<const prefix::EngineKey> engine_keys) {
  const prefix::KvHolder* pod = Holder(holder);
  if (!pod) return;
  mirror_.Remove({.pod = pod->address, .tier = tiers_.name(tier), .group = engine_group},
                 engine_keys);
}

void SharedIndexWriter::OnCleared(prefix::HolderId holder) {
  if (const prefix::KvHolder* pod = Holder(holder)) mirror_.Clear(pod->address);
}

wire::RespProgram* SharedIndexWriter::Next() {
  const bool changed = mirror_.TakeServerChanged(), dropped = mirror_.TakeDropped();
  if (changed || dropped) {
    tell_again_ = 0;
    clears_ = !changed;  // removals went with what the server forgot
  }
  while (tell_again_ && !mirror_.pending()) {
    const prefix::KvHolders* holders = holders_->Get();
    if (!holders || *tell_again_ >= holders->size()) {
      tell_again_.reset();
      break;
    }
    TellAgain(static_cast<prefix::HolderId>((*tell_again_)++));
  }
  return mirror_.pending() ? &mirror_ : nullptr;
}

// All ranks behind the address of `first`, if that is the first of them.
void SharedIndexWriter::TellAgain(prefix::HolderId first) {
  const prefix::KvHolders& holders = *holders_->Get();
  const std::string& address = holders[first].address;
  if (address.empty()) return;
  for (size_t h = 0; h < first; ++h) {
    if (holders[h].address == address) return;
  }
  if (clears_) mirror_.Clear(address);
  is_again_ = true;
  for (size_t h = first; h < holders.size(); ++h) {
    if (holders[h].address == address) feed_->TellAgain(static_cast<prefix::PublisherId>(h));
  }
  is_again_ = false;
}

SharedLookup::SharedLookup(std::string address, base::Duration limit,
                           std::shared_ptr<const prefix::KvRedisPods> pods,
                           std::shared_ptr<const prefix::KvTiers> tiers,
                           std::span<const std::span<const prefix::BlockKey>> chains)
    : tiers_(std::move(tiers)), lookup_(std::move(pods), tiers_.get(), chains) {
  server = std::move(address);
  timeout = limit;
}

std::shared_ptr<SharedLookup> SharedIndexReader::Ask(
    const fleet::View& view, base::Duration limit,
    std::span<const std::span<const prefix::BlockKey>> chains) {
  if (!pods_ || version_ != view.version()) {
    version_ = view.version();
    std::vector<std::string> names(view.members().empty() ? 0 : view.members().back() + 1);
    for (const fleet::EndpointNumber n : view.members()) names[n] = view.endpoint(n).host_port;
    pods_ = std::make_shared<prefix::KvRedisPods>(names);
  }
  return std::make_shared<SharedLookup>(address_, limit, pods_, tiers_, chains);
}

}  // namespace llmd::plugins
