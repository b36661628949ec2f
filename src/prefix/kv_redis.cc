#include "prefix/kv_redis.h"

#include <simdjson.h>

#include <algorithm>
#include <charconv>

namespace llmd::prefix {
namespace {

using wire::AppendRespCommand;
using wire::RespValue;

constexpr std::string_view kPodName = R"({"PodIdentifier":")";
constexpr std::string_view kTierName = R"(","DeviceTier":")";
constexpr std::string_view kSpeculativeName = R"(","Speculative":)";
constexpr std::string_view kHasGroupName = R"(,"HasGroup":)";
constexpr std::string_view kGroupName = R"(,"GroupIdx":)";
constexpr std::string_view kEnginePrefix = "engine:";
// Keys per call of a script: the server does nothing else meanwhile.
constexpr size_t kScriptKeysMax = 256;

// KEYS: engine keys; ARGV: a field. How many of the keys led somewhere.
constexpr std::string_view kRemoveScript = R"(
local known = 0
for _, engine in ipairs(KEYS) do
  local blocks = redis.call('ZRANGE', engine, 0, -1)
  local had = 0
  for _, block in ipairs(blocks) do
    redis.call('HDEL', block, ARGV[1])
    had = had + redis.call('EXISTS', block)
  end
  if #blocks > 0 then known = known + 1 end
  if had == 0 then redis.call('DEL', engine) end
end
return known
)";

// A 64-bit number in decimal, perhaps behind a prefix.
class Decimal {
 public:
  explicit Decimal(uint64_t number, std::string_view prefix = {}) {
    char* begin = std::copy(prefix.begin(), prefix.end(), text_);
    size_ = static_cast<size_t>(std::to_chars(begin, std::end(text_), number).ptr - text_);
  }
  operator std::string_view() const { return {text_, size_}; }

 private:
  char text_[32];
  size_t size_;
};

// --- JSON as Go's encoding/json writes it --------------------------------------------------------

void AppendEscape(uint32_t c, std::string* out) {
  constexpr char kDigits[] = "0123456789abcdef";
  out->append("\\u");
  for (int shift = 12; shift >= 0; shift -= 4) out->push_back(kDigits[(c >> shift) & 15]);
}

// Length of the UTF-8 sequence at the start of `text`, 0: it is none.
size_t SequenceLength(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = at(0);
  const size_t length = first < 0x80    ? 1
                        : first >= 0xf5 ? 0
                        : first >= 0xf0 ? 4
                        : first >= 0xe0 ? 3
                        : first >= 0xc2 ? 2
                                        : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  const bool is_bad = (first == 0xe0 && at(1) < 0xa0) || (first == 0xed && at(1) >= 0xa0) ||
                      (first == 0xf0 && at(1) < 0x90) || (first == 0xf4 && at(1) >= 0x90);
  return is_bad ? 0 : length;
}

void AppendGoText(std::string_view text, std::string* out) {
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    const auto c = static_cast<unsigned char>(text[0]);
    if (length == 0) {
      out->append("\\ufffd");
      text.remove_prefix(1);
      continue;
    }
    const std::string_view sequence = text.substr(0, length);
    switch (c) {
      case '"': out->append("\\\""); break;
      case '\\': out->append("\\\\"); break;
      case '\b': out->append("\\b"); break;
      case '\f': out->append("\\f"); break;
      case '\n': out->append("\\n"); break;
      case '\r': out->append("\\r"); break;
      case '\t': out->append("\\t"); break;
      case '<':
      case '>':
      case '&': AppendEscape(c, out); break;
      default:
        if (c < 0x20) {
          AppendEscape(c, out);
        } else if (sequence == "\u2028" || sequence == "\u2029") {
          AppendEscape(sequence == "\u2028" ? 0x2028 : 0x2029, out);
        } else {
          out->append(sequence);
        }
    }
    text.remove_prefix(length);
  }
}

// Takes `expected` off the front of `text`.
bool Skip(std::string_view* text, std::string_view expected) {
  if (!text->starts_with(expected)) return false;
  text->remove_prefix(expected.size());
  return true;
}

// Takes what stands before the next quote; false where there is an escape.
bool TakeText(std::string_view* text, std::string_view* out) {
  const size_t end = text->find_first_of("\"\\");
  if (end == text->npos || (*text)[end] == '\\') return false;
  *out = text->substr(0, end);
  text->remove_prefix(end);
  return true;
}

bool TakeBool(std::string_view* text, bool* out) {
  *out = text->starts_with("true");
  return Skip(text, *out ? "true" : "false");
}

}  // namespace

// --- entries -------------------------------------------------------------------------------------

void AppendKvRedisField(const KvRedisEntry& entry, std::string* out) {
  out->append(kPodName);
  AppendGoText(entry.pod, out);
  out->append(kTierName);
  AppendGoText(entry.tier, out);
  out->append(kSpeculativeName).append(entry.speculative ? "true" : "false");
  out->append(kHasGroupName).append(entry.group ? "true" : "false");
  out->append(kGroupName).append(std::to_string(entry.group.value_or(0))).append("}");
}

std::string KvRedisField(const KvRedisEntry& entry) {
  std::string out;
  AppendKvRedisField(entry, &out);
  return out;
}

const KvRedisEntry* KvRedisFieldReader::Read(std::string_view field) {
  std::string_view rest = field;
  bool has_group = false;
  entry_ = {};
  if (Skip(&rest, kPodName) && TakeText(&rest, &entry_.pod) && Skip(&rest, kTierName) &&
      TakeText(&rest, &entry_.tier) && Skip(&rest, kSpeculativeName) &&
      TakeBool(&rest, &entry_.speculative) && Skip(&rest, kHasGroupName) &&
      TakeBool(&rest, &has_group) && Skip(&rest, kGroupName)) {
    int64_t group = 0;
    const char* end = rest.data() + rest.size();
    const auto [at, error] = std::from_chars(rest.data(), end, group);
    if (error == std::errc() && std::string_view(at, end) == "}") {
      if (has_group) entry_.group = group;
      return &entry_;
    }
  }
  return ReadSlowly(field) ? &entry_ : nullptr;
}

// Another order, spaces, escapes, missing or further members.
bool KvRedisFieldReader::ReadSlowly(std::string_view field) {
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (parser.parse(field.data(), field.size()).get_object().get(object)) return false;
  bool has_group = false;
  int64_t group = 0;
  std::string_view pod, tier;
  const auto is_bad = [](simdjson::error_code error) {
    return error != simdjson::SUCCESS && error != simdjson::NO_SUCH_FIELD;
  };
  entry_ = {};
  if (is_bad(object["PodIdentifier"].get(pod)) || is_bad(object["DeviceTier"].get(tier)) ||
      is_bad(object["Speculative"].get(entry_.speculative)) ||
      is_bad(object["HasGroup"].get(has_group)) || is_bad(object["GroupIdx"].get(group))) {
    return false;
  }
  pod_ = pod;
  tier_ = tier;
  entry_.pod = pod_;
  entry_.tier = tier_;
  if (has_group) entry_.group = group;
  return true;
}

// --- operations ----------------------------------------------------------------------------------

size_t AppendKvRedisStore(const KvRedisEntry& entry, std::span<const EngineKey> engine_keys,
                          std::span<const BlockKey> blocks, std::string* out) {
  if (blocks.empty()) return 0;
  size_t commands = 0;
  // Step i of n joins the engine key and the block that lie at i/n of theirs.
  const size_t n = engine_keys.empty() ? 0 : std::max(engine_keys.size(), blocks.size());
  size_t place = 0;
  for (size_t i = 0; i < n; ++i) {
    const size_t engine = i * engine_keys.size() / n;
    place = i > 0 && engine == (i - 1) * engine_keys.size() / n ? place + 1 : 0;
    AppendRespCommand({"ZADD", Decimal(engine_keys[engine], kEnginePrefix), Decimal(place),
                       Decimal(blocks[i * blocks.size() / n])},
                      out);
    ++commands;
  }
  const std::string field = KvRedisField(entry);
  for (const BlockKey block : blocks) {
    AppendRespCommand({"HSET", Decimal(block), field, ""}, out);
    ++commands;
  }
  return commands;
}

size_t AppendKvRedisRemove(const KvRedisEntry& entry, std::span<const EngineKey> engine_keys,
                           std::string* out) {
  const std::string field = KvRedisField(entry);
  size_t commands = 0;
  while (!engine_keys.empty()) {
    const size_t count = std::min(engine_keys.size(), kScriptKeysMax);
    std::vector<Decimal> keys;
    for (const EngineKey key : engine_keys.first(count)) keys.emplace_back(key, kEnginePrefix);
    const Decimal count_text(count);
    std::vector<std::string_view> arguments = {"EVAL", kRemoveScript, count_text};
    arguments.insert(arguments.end(), keys.begin(), keys.end());
    arguments.push_back(field);
    AppendRespCommand(arguments, out);
    ++commands;
    engine_keys = engine_keys.subspan(count);
  }
  return commands;
}

size_t AppendKvRedisRemoveBlocks(const KvRedisEntry& entry, std::span<const BlockKey> blocks,
                                 std::string* out) {
  const std::string field = KvRedisField(entry);
  for (const BlockKey block : blocks) AppendRespCommand({"HDEL", Decimal(block), field}, out);
  return blocks.size();
}

size_t KvRedisClear::NextRound(std::string* commands) {
  for (;;) {
    switch (step_) {
      case Step::kScan:
        if (is_begun_ && cursor_ == "0") {
          step_ = Step::kDone;
          break;
        }
        is_begun_ = true;
        AppendRespCommand({"SCAN", cursor_, "COUNT", kPageKeys}, commands);
        return 1;
      case Step::kFields:
        if (!keys_.empty()) return AskFields(commands);
        step_ = Step::kScan;
        break;
      case Step::kRemove:
        if (!stale_.empty()) return AskRemove(commands);
        step_ = Step::kScan;
        break;
      case Step::kDone: return 0;
    }
  }
}

size_t KvRedisClear::AskFields(std::string* commands) {
  stale_.clear();
  for (const std::string& key : keys_) AppendRespCommand({"HKEYS", key}, commands);
  return keys_.size();
}

size_t KvRedisClear::AskRemove(std::string* commands) {
  std::vector<std::string_view> arguments;
  for (const Stale& stale : stale_) {
    arguments = {"HDEL", keys_[stale.key]};
    arguments.insert(arguments.end(), stale.fields.begin(), stale.fields.end());
    AppendRespCommand(arguments, commands);
  }
  return stale_.size();
}

void KvRedisClear::OnReply(size_t index, const RespValue& reply) {
  switch (step_) {
    case Step::kScan: return OnScan(reply);
    case Step::kFields: return OnFields(reply, index);
    case Step::kRemove:
      if (reply.type == RespValue::Type::kInteger) {
        removed_ += static_cast<uint64_t>(std::max<int64_t>(reply.integer, 0));
      } else if (reply.type == RespValue::Type::kError && error_.empty()) {
        error_ = reply.text;
      }
      if (index + 1 == stale_.size()) step_ = error_.empty() ? Step::kScan : Step::kDone;
      return;
    case Step::kDone: return;
  }
}

void KvRedisClear::OnScan(const RespValue& reply) {
  keys_.clear();
  if (reply.type != RespValue::Type::kArray || reply.items.size() != 2) {
    error_ = reply.type == RespValue::Type::kError ? reply.text : "SCAN: an unknown reply";
    step_ = Step::kDone;
    return;
  }
  cursor_ = reply.items[0].text;
  for (const RespValue& key : reply.items[1].items) {
    if (!key.text.starts_with(kEnginePrefix)) keys_.emplace_back(key.text);
  }
  step_ = Step::kFields;
}

// A key of somebody else's that is no hash answers with an error: it holds nothing of the pod.
void KvRedisClear::OnFields(const RespValue& reply, size_t index) {
  for (const RespValue& field : reply.items) {
    const KvRedisEntry* entry = reader_.Read(field.text);
    if (!entry || entry->pod != pod_) continue;
    if (stale_.empty() || stale_.back().key != index) stale_.push_back({index, {}});
    stale_.back().fields.emplace_back(field.text);
  }
  if (index + 1 == keys_.size()) step_ = Step::kRemove;
}

// --- lookups -------------------------------------------------------------------------------------

KvRedisPods::KvRedisPods(std::span<const std::string> names) : size_(names.size()) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (!names[i].empty()) numbers_.emplace(names[i], static_cast<uint32_t>(i));
  }
}

KvRedisLookup::KvRedisLookup(std::shared_ptr<const KvRedisPods> pods, const KvTiers* tiers,
                             std::span<const std::span<const BlockKey>> chains)
    : pods_(std::move(pods)), tiers_(tiers), blocks_(pods_->size()), weights_(pods_->size()) {
  for (const auto& keys : chains) {
    if (keys.empty()) continue;
    chains_.push_back({.keys = {keys.begin(), keys.end()},
                       .held = std::vector<uint32_t>(pods_->size()),
                       .last = std::vector<float>(pods_->size())});
  }
}

size_t KvRedisLookup::NextRound(std::string* commands) {
  size_t count = 0;
  for (Chain& chain : chains_) {
    if (chain.is_over) continue;
    const size_t end = std::min(chain.keys.size(), chain.asked + round_blocks_);
    for (; chain.asked < end; ++chain.asked, ++count) {
      AppendRespCommand({"HKEYS", Decimal(chain.keys[chain.asked])}, commands);
    }
  }
  round_blocks_ *= 2;
  current_ = 0;
  if (count > 0) return count;
  for (const Chain& chain : chains_) {
    uint32_t most = 0;
    for (size_t pod = 0; pod < chain.held.size(); ++pod) {
      blocks_[pod] += chain.held[pod];
      most = std::max(most, chain.held[pod]);
    }
    best_ += most;
  }
  return 0;
}

void KvRedisLookup::OnReply(size_t, const RespValue& reply) {
  while (current_ < chains_.size() && chains_[current_].answered == chains_[current_].asked) {
    ++current_;
  }
  if (current_ == chains_.size()) return;
  OnFields(reply, &chains_[current_]);
}

void KvRedisLookup::OnFields(const RespValue& reply, Chain* chain) {
  const auto before = static_cast<uint32_t>(chain->answered++);
  if (reply.type == RespValue::Type::kError && error_.empty()) error_ = reply.text;
  if (chain->is_over) return;
  bool somebody = false;
  for (const RespValue& field : reply.items) {
    const KvRedisEntry* entry = reader_.Read(field.text);
    if (!entry) continue;
    const auto pod = pods_->Find(entry->pod);
    if (!pod) continue;
    uint32_t& held = chain->held[*pod];
    float& last = chain->last[*pod];
    const float worth = tiers_->weights()[tiers_->Number(entry->tier)];
    if (held == before) {
      ++held;
      last = worth;
      weights_[*pod] += worth;
      somebody = true;
    } else if (held == before + 1 && worth > last) {
      weights_[*pod] += worth - last;
      last = worth;
    }
  }
  if (!somebody) chain->is_over = true;
}

}  // namespace llmd::prefix
