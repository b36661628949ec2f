// What tokens cost: texts cold and warm, and a chat of 100,000 tokens from its JSON to its ids.
//
// With a model's tokenizer in .setup/text/NAME (tests/peers/text_models_test.sh fetches them) NAME
// is measured; LLMD_BENCH_TOKENIZER says which, llama3 by default. Otherwise it is the small one of
// the tests, whose words are a few letters long: times of that say little.
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "base/strings.h"
#include "benchmark/benchmark.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/tokenizer_testing.h"

namespace llmd::text {
namespace {

constexpr char kTemplate[] =
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
    "message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string Name() {
  const char* name = std::getenv("LLMD_BENCH_TOKENIZER");
  return name != nullptr ? name : "llama3";
}

std::shared_ptr<const Tokenizer> Load(size_t cache_bytes) {
  const std::string folder = base::Concat(".setup/text/", Name(), "/");
  std::string json = ReadFile(folder + "tokenizer.json");
  if (json.empty()) json = SmallTokenizerJson();
  return Tokenizer::Load({.tokenizer_json = json}, {.cache_bytes = cache_bytes}).value();
}

// Without a cache: what tokenising itself costs.
const Tokenizer& Bare() {
  static const auto tokenizer = Load(0);
  return *tokenizer;
}

const Tokenizer& Cached() {
  static const auto tokenizer = Load(256u << 20);
  return *tokenizer;
}

void ReportSpeed(benchmark::State& state, size_t bytes, size_t tokens) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
  state.SetLabel(base::Concat(Name(), ", ", std::to_string(tokens), " tokens"));
}

// Texts that were not seen before, of words that were.
void EncodeDistinct(benchmark::State& state) {
  std::vector<uint32_t> ids;
  unsigned seed = 0;
  (void)Bare().Encode(EnglishText(400'000, seed), false, ids);
  const size_t bytes = 100'000;
  for (auto _ : state) {
    state.PauseTiming();
    const std::string text = EnglishText(bytes, ++seed);
    state.ResumeTiming();
    (void)Bare().Encode(text, false, ids);
  }
  ReportSpeed(state, bytes, ids.size());
}
BENCHMARK(EncodeDistinct);

void EncodeSeen(benchmark::State& state) {
  std::vector<uint32_t> ids;
  const std::string text = EnglishText(100'000, 1);
  (void)Cached().Encode(text, false, ids);
  for (auto _ : state) (void)Cached().Encode(text, false, ids);
  ReportSpeed(state, text.size(), ids.size());
}
BENCHMARK(EncodeSeen);

// `bytes` of talk in turns of 4,000 bytes; the last twentieth depends on `end_seed`.
std::string ChatRequest(size_t bytes, unsigned seed, unsigned end_seed) {
  std::string request = R"({"model": "m", "messages": [)";
  constexpr size_t kTurn = 4000;
  const size_t turns = bytes / kTurn;
  for (size_t i = 0; i < turns; ++i) {
    if (i > 0) request += ", ";
    request +=
        i % 2 == 0 ? R"({"role": "user", "content": )" : R"({"role": "assistant", "content": )";
    const bool is_end = i * 20 >= turns * 19;
    const unsigned turn_seed = (is_end ? end_seed : seed) * 1000 + static_cast<unsigned>(i);
    base::AppendJsonString(&request, EnglishText(kTurn, turn_seed));
    request += "}";
  }
  return request + "]}";
}

// From the JSON of a request to the ids of its prompt; 560,000 bytes are about 100,000 tokens.
void Chat(benchmark::State& state, bool is_seen) {
  static const ChatTemplate chat_template =
      ChatTemplate::Load({.tokenizer_config_json = R"({"bos_token": "<|begin_of_text|>"})",
                          .chat_template = kTemplate})
          .value();
  const size_t bytes = 560'000;
  std::string prompt;
  std::vector<uint32_t> ids;
  unsigned seed = 1;
  const auto run = [&](const std::string& request) {
    (void)chat_template.Render(request, {}, prompt);
    (void)Cached().Encode(prompt, false, ids);
  };
  run(ChatRequest(bytes, seed, 0));
  for (auto _ : state) {
    state.PauseTiming();
    ++seed;
    const std::string request =
        is_seen ? ChatRequest(bytes, 1, seed) : ChatRequest(bytes, seed, seed);
    state.ResumeTiming();
    run(request);
  }
  ReportSpeed(state, prompt.size(), ids.size());
}
BENCHMARK_CAPTURE(Chat, nothing_seen, false)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Chat, most_seen, true)->Unit(benchmark::kMillisecond);

void Render(benchmark::State& state) {
  const auto chat_template = ChatTemplate::Load({.chat_template = kTemplate}).value();
  const std::string request = ChatRequest(560'000, 1, 1);
  std::string prompt;
  for (auto _ : state) (void)chat_template.Render(request, {}, prompt);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * request.size()));
}
BENCHMARK(Render)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace llmd::text
