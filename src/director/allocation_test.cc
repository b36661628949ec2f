// In the steady state a request costs no allocation: counted by standing before malloc.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <tuple>

#include "director/director_testing.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LLMD_OWN_MALLOC 0
#endif
#endif
#if !defined(LLMD_OWN_MALLOC) && defined(__GLIBC__)
#define LLMD_OWN_MALLOC 1
#endif

#if LLMD_OWN_MALLOC
namespace {
thread_local uint64_t allocations = 0;
}
extern "C" void* __libc_malloc(size_t);
extern "C" void* malloc(size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}

namespace llmd::director {
namespace {

void Chat(testing::Bed& bed, uint64_t seed, bool stream, size_t prompt_bytes, bool retry) {
  static const std::string prompt(128 << 10, 'p');
  const std::string_view pieces[] = {R"({"model":"llama","stream":true,"messages":[{"role":)",
                                     R"("user","content":")",
                                     std::string_view(prompt).substr(0, prompt_bytes), R"("}]})"};
  Session session(bed.director(), seed, bed.now);
  session.OnHead({.method = "POST", .path = "/v1/chat/completions", .request_id = "r",
                  .content_length = 1000}, bed.now);
  for (std::string_view piece : pieces) session.OnBody(piece, bed.now);
  ASSERT_EQ(session.OnBodyEnd(bed.now).kind, Decision::Kind::kForward);
  if (retry) session.OnUpstreamFailed(UpstreamFailure::kReset, 0, true, bed.now);
  session.OnResponseHead({.status = 200, .event_stream = stream}, bed.now);
  if (stream) {
    for (int i = 0; i < 50; ++i) {
      session.OnResponseBody("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n", bed.now);
    }
    session.OnResponseBody("data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":50}}\n\n",
                           bed.now);
  } else {
    session.OnResponseBody(R"({"choices":[],"usage":{"prompt_tokens":1}})", bed.now);
  }
  session.OnDone(100, bed.now);
}

TEST(Allocation, TheHookCounts) {
  const uint64_t before = allocations;
  std::free(std::malloc(10));
  delete new std::string(100, 'x');
  EXPECT_GE(allocations, before + 3);
}

TEST(Allocation, NonePerRequestInTheSteadyState) {
  testing::Bed bed(4, {.clock = [] { return base::TimePoint{}; }});
  for (const auto& [stream, bytes, retry] :
       {std::tuple(false, 1000, false), std::tuple(true, 1000, false),
        std::tuple(true, 128 << 10, false), std::tuple(false, 1000, true)}) {
    const auto run = [&](uint64_t seed) {
      bed.now += std::chrono::seconds(60);
      Chat(bed, seed, stream, static_cast<size_t>(bytes), retry);
    };
    for (uint64_t i = 0; i < 200; ++i) run(i);  // every endpoint was chosen, every series is there
    const uint64_t before = allocations;
    for (uint64_t i = 0; i < 100; ++i) run(i);
    EXPECT_EQ(allocations, before) << stream << " " << bytes << " " << retry;
  }
}

}  // namespace
}  // namespace llmd::director
#endif
