#include "workload/prompts.h"

#include <algorithm>

#include "base/hash.h"

namespace llmd::workload {
namespace {

// 256 common words, so that one random byte chooses one.
constexpr std::string_view kWords =
    "act add ago aid aim air all and any arm art ash ask ate bad bag ban bar bat bay bed bee bet "
    "bid big bit bow box boy bug bus but buy cab can cap car cat cow cry cup cut day did die dig "
    "dog dot dry due ear eat egg ego end era eye fan far fat fed fee few fig fit fix fly fog for "
    "fox fun fur gap gas get got guy had has hat her hid him hip his hit hot how ice ill ink ion "
    "its jam jar jaw jet job joy key kid kit lab lap law lay led leg let lid lie lip lit log lot "
    "low mad man map mat may men met mix mob mom mud net new nor not now nut oak odd off oil old "
    "one our out owe own pad pan pay pen per pet pie pin pit pop pot put ran rat raw ray red rib "
    "rid rim rod rot row rub rug run sad sat saw say sea see set she shy sin sit six ski sky son "
    "spy sum sun tab tag tap tax tea ten the tie tin tip toe ton too top toy try tub two use van "
    "vet via war was wax way web wet who why win wit wow yes yet you zip zoo ace age ape arc awe "
    "axe cod cue dam den dip elf elm fin gem gum hay hen hum hut inn ivy jog keg lad lag mug nap "
    "nod oar oat ";
static_assert(kWords.size() == 256 * kBytesPerToken);

// Every random stream of a source has a number of its own under the source's seed.
enum Stream : uint64_t {
  kCorpusSeed = 0x636f72,
  kSystems,
  kQuestions,
  kShuffle,
  kMeasured,
  kWarmUp
};

void AppendWords(base::Random& random, size_t bytes, std::string* out) {
  const size_t begin = out->size();
  out->resize(begin + (bytes + 31) / 32 * 32);
  char* at = out->data() + begin;
  for (size_t done = 0; done < bytes; done += 32) {
    uint64_t bits = random.Next();
    for (int i = 0; i < 8; ++i, bits >>= 8, at += kBytesPerToken) {
      kWords.copy(at, kBytesPerToken, (bits & 255) * kBytesPerToken);
    }
  }
  out->resize(begin + bytes);
}

}  // namespace

Corpus::Corpus() {
  base::Random random(kCorpusSeed);
  AppendWords(random, kBytes, &words_);
}

size_t Corpus::AppendUnique(const TextSpec& text, std::string* unique) {
  const size_t bytes = std::min<uint64_t>(text.bytes, kUniqueBytes);
  base::Random random(text.seed);
  AppendWords(random, bytes, unique);
  return bytes;
}

void Corpus::AppendWindows(const TextSpec& text, std::vector<std::string_view>* windows) const {
  if (text.bytes <= kUniqueBytes) return;
  uint64_t left = text.bytes - kUniqueBytes;
  uint64_t offset = text.seed % (kBytes / kBytesPerToken) * kBytesPerToken;
  while (left > 0) {
    const uint64_t bytes = std::min<uint64_t>(left, kBytes - offset);
    windows->push_back(std::string_view(words_).substr(offset, bytes));
    left -= bytes;
    offset = 0;
  }
}

base::Result<PromptSource> PromptSource::New(const PromptSpec& spec) {
  const SharedPrefixSpec& groups = spec.groups;
  if (spec.shared_prefix) {
    if (groups.group_count == 0 || groups.prompts_per_group == 0) {
      return std::unexpected(
          base::InvalidArgument("shared-prefix groups: at least 1 group and 1 prompt per group"));
    }
    if (groups.group_count > kPromptCountMax / groups.prompts_per_group) {
      return std::unexpected(base::InvalidArgument("shared-prefix groups: more than " +
                                                   std::to_string(kPromptCountMax) + " prompts"));
    }
  }
  return PromptSource(spec);
}

PromptSource::PromptSource(const PromptSpec& spec)
    : spec_(spec), corpus_(std::make_unique<const Corpus>()) {
  if (!spec.shared_prefix) return;
  base::Random systems(base::Mix64(spec.seed, kSystems));
  base::Random questions(base::Mix64(spec.seed, kQuestions));
  for (uint64_t group = 0; group < spec.groups.group_count; ++group) {
    systems_.push_back({.seed = systems.Next(),
                        .bytes = spec.groups.system_tokens.Draw(systems) * kBytesPerToken});
    for (uint64_t i = 0; i < spec.groups.prompts_per_group; ++i) {
      grouped_.push_back(
          {.group = group,
           .user_bytes = spec.groups.question_tokens.Draw(questions) * kBytesPerToken,
           .output_tokens = spec.output_tokens.Draw(questions)});
    }
  }
  // Fisher and Yates.
  base::Random shuffle(base::Mix64(spec.seed, kShuffle));
  for (size_t i = grouped_.size() - 1; i > 0; --i) {
    std::swap(grouped_[i], grouped_[shuffle.Below(i + 1)]);
  }
}

Prompt PromptSource::At(uint64_t index, bool warm_up) const {
  if (!grouped_.empty()) {
    const uint64_t position = index % grouped_.size();
    const Grouped& grouped = grouped_[position];
    const uint64_t seed = base::Mix64(base::Mix64(spec_.seed, kQuestions), position);
    return {.system = systems_[grouped.group],
            .user = {.seed = seed, .bytes = grouped.user_bytes},
            .output_tokens = grouped.output_tokens};
  }
  const uint64_t stream = base::Mix64(spec_.seed, warm_up ? kWarmUp : kMeasured);
  base::Random random(base::Mix64(stream, index));
  Prompt prompt;
  prompt.user.seed = random.Next();
  prompt.user.bytes = spec_.length.Draw(random) * (spec_.length_in_bytes ? 1 : kBytesPerToken);
  prompt.output_tokens = spec_.output_tokens.Draw(random);
  return prompt;
}

}  // namespace llmd::workload
