#include "engine/profile.h"

namespace llmd::engine {
namespace {

constexpr base::Duration kFrontend = std::chrono::milliseconds(90);
constexpr uint32_t kSequences = 1024;
constexpr uint32_t kBlock = 64;

constexpr std::string_view kQwen32 = "Qwen/Qwen3-32B";
constexpr std::string_view kQwen32Fp8 = "Qwen/Qwen3-32B-FP8";
constexpr std::string_view kLlama70 = "meta-llama/Llama-3.1-70B-Instruct";
constexpr std::string_view kLlama70Fp8 = "RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8";
constexpr std::string_view kLlama8 = "meta-llama/Llama-3.1-8B-Instruct";
constexpr std::string_view kGptOss = "openai/gpt-oss-120b";
constexpr uint32_t kQwenLength = 40960;
constexpr uint32_t kLongLength = 131072;

// Milliseconds, microseconds, nanoseconds, microseconds: the units of the published fit.
constexpr Timing Fit(double c0_ms, double cseq_us, double ckv_ns, double pa_us) {
  return StepCost{.base_ns = c0_ms * 1e6,
                  .prefill_token_ns = pa_us * 1e3,
                  .prefill_pair_ns = 0,
                  .sequence_ns = cseq_us * 1e3,
                  .context_token_ns = ckv_ns};
}

constexpr Profile Row(std::string_view name, std::string_view model, std::string_view source,
                      uint32_t model_tokens_max, uint32_t kv_tokens, Timing timing) {
  return {name, model, source, model_tokens_max, kSequences, kv_tokens, kBlock, kFrontend, timing};
}

// n rows fitted and the mean error of the fit stand in `source`. MoE rows miss a term for the
// number of experts that a batch wakes up: 4 to 12 % off outside the measured batches.
constexpr Profile kProfiles[] = {
    {"instant", "instant", "no time passes: for tests of what stands in front of an engine",
     kLongLength, kSequences, 1u << 20, kBlock, base::Duration(0), Pace{}},
    Row("qwen3-32b-h100-tp2", kQwen32, "bf16, vLLM 0.12, n 26, 1.6 %; KV size published",
        kQwenLength, 307328, Fit(14.19, 50.9, 54.1, 50.9)),
    Row("qwen3-32b-h100-tp4", kQwen32, "bf16, vLLM 0.12, n 30, 1.4 %", kQwenLength, 864800,
        Fit(9.41, 57, 25.0, 29.8)),
    Row("qwen3-32b-h100-tp8", kQwen32, "bf16, vLLM 0.12, n 30, 1.6 %", kQwenLength, 1979400,
        Fit(7.13, 64, 10.5, 18.6)),
    Row("qwen3-32b-fp8-h100-tp1", kQwen32Fp8, "TensorRT-LLM, n 40-44, 2.8 %", kQwenLength, 147800,
        Fit(13.9, 63, 38.5, 71)),
    Row("qwen3-32b-fp8-h100-tp2", kQwen32Fp8, "TensorRT-LLM, n 40-44, 2.8 %", kQwenLength, 426500,
        Fit(9.1, 43, 20.5, 42)),
    Row("llama-3.1-8b-h100-tp1", kLlama8, "bf16, TensorRT-LLM, n 42, 1.5 %", kLongLength, 434800,
        Fit(6.55, 0, 48.3, 20.2)),
    Row("llama-3.1-70b-h100-tp4", kLlama70,
        "bf16, estimate: the fp8 row with weights and GEMM scaled by 1.8; KV size published",
        kLongLength, 461376, Fit(17, 55, 27, 85)),
    Row("llama-3.1-70b-fp8-h100-tp2", kLlama70Fp8, "vLLM, n 12-15, 0.7-2.5 %", kLongLength, 224000,
        Fit(16.66, 32, 58.5, 75.6)),
    Row("llama-3.1-70b-fp8-h100-tp4", kLlama70Fp8, "vLLM, n 12-15, 0.7-2.5 %", kLongLength, 669900,
        Fit(11.12, 51, 27.9, 46.5)),
    Row("llama-3.1-70b-fp8-h100-tp8", kLlama70Fp8, "vLLM, n 12-15, 0.7-2.5 %", kLongLength,
        1561600, Fit(8.90, 61, 11.5, 30.9)),
    Row("llama-3.1-70b-fp8-h200-tp1", kLlama70Fp8, "vLLM, n 12-15, 2.3-3.4 %", kLongLength, 180300,
        Fit(20.2, 53, 87, 117)),
    Row("llama-3.1-70b-fp8-h200-tp2", kLlama70Fp8, "vLLM, n 12-15, 2.3-3.4 %", kLongLength, 582600,
        Fit(13.3, 32, 38, 74)),
    Row("llama-3.1-70b-fp8-h200-tp4", kLlama70Fp8, "vLLM, n 12-15, 2.3-3.4 %", kLongLength,
        1386800, Fit(9.3, 42, 21, 44)),
    Row("llama-3.1-70b-fp8-h200-tp8", kLlama70Fp8, "vLLM, n 12-15, 2.3-3.4 %", kLongLength,
        2995000, Fit(7.8, 45, 9, 27)),
    Row("llama-3.1-70b-fp8-b200-tp1", kLlama70Fp8, "vLLM, n 14-15, 0.7 %", kLongLength, 294400,
        Fit(15.85, 8, 23.8, 71)),
    Row("llama-3.1-70b-fp8-b200-tp2", kLlama70Fp8, "vLLM, n 14-15, 0.7 %", kLongLength, 810600,
        Fit(10.07, 29, 9.9, 47.6)),
    // Half of the layers see a window of 128 tokens only, so a token costs 36,864 bytes of KV. CKV
    // of the H200 fits is between 0 and 3 ns: 1.5 is the middle.
    Row("gpt-oss-120b-h200-tp1", kGptOss, "fp4, vLLM, n 18-20, 2-7 %", kLongLength, 1803000,
        Fit(5.39, 311, 1.5, 37)),
    Row("gpt-oss-120b-h200-tp2", kGptOss, "fp4, vLLM, n 18-20, 2-7 %", kLongLength, 5378000,
        Fit(4.40, 146, 1.5, 22)),
    Row("gpt-oss-120b-h200-tp4", kGptOss, "fp4, vLLM, n 18-20, 2-7 %", kLongLength, 12527000,
        Fit(3.69, 84, 1.5, 14)),
    Row("gpt-oss-120b-h200-tp8", kGptOss, "fp4, vLLM, n 18-20, 2-7 %", kLongLength, 26825000,
        Fit(3.49, 50, 1.5, 10)),
    Row("gpt-oss-120b-h100-tp2", kGptOss, "fp4, vLLM, n 19, 4.5 %", kLongLength, 2191000,
        Fit(4.69, 149, 2.7, 23.7)),
};

}  // namespace

EngineConfig Profile::Config() const {
  EngineConfig config;
  config.block_tokens = block_tokens;
  config.kv_blocks = kv_tokens / block_tokens;
  config.model_tokens_max = model_tokens_max;
  config.sequences_max = sequences_max;
  config.frontend_delay = frontend_delay;
  config.timing = timing;
  return config;
}

std::span<const Profile> Profiles() { return kProfiles; }

const Profile* FindProfile(std::string_view name) {
  for (const Profile& profile : kProfiles) {
    if (profile.name == name) return &profile;
  }
  return nullptr;
}

}  // namespace llmd::engine
