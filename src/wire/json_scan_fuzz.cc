// The events of a document are the same for any cutting and any kernel, and reading stays inside
// the chunk. Input: policy byte, number of cuts, that many cut bytes, the document.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "wire/json_kernels.h"
#include "wire/json_scan_testing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace llmd::wire;
  if (size < 2) return 0;
  const uint64_t policy = data[0];
  const size_t cut_count = std::min<size_t>(data[1] % 16, size - 2);
  const std::string_view document(reinterpret_cast<const char*>(data) + 2 + cut_count,
                                  size - 2 - cut_count);
  std::vector<size_t> cuts;
  for (size_t i = 0; i < cut_count; ++i) cuts.push_back(data[2 + i] * document.size() / 256);
  std::sort(cuts.begin(), cuts.end());
  const JsonTrace whole = TraceJson(document, {}, policy, internal::JsonKernelsNamed("sse2"));
  for (const char* name : {"sse2", "avx2", "avx512"}) {
    const auto* kernels = internal::JsonKernelsNamed(name);
    if (!kernels) continue;
    const JsonTrace cut = TraceJson(document, cuts, policy, kernels);
    LLMD_CHECK(cut.error == whole.error, "the error depends on the cut");
    // After an error the events before it may differ by parts of the value at fault.
    LLMD_CHECK(whole.error != JsonError::kNone || cut == whole, "the events depend on the cut");
  }
  llmd::base::Arena arena;
  (void)JsonUnescape(document, arena);
  (void)JsonWholeNumber(document);
  return 0;
}
