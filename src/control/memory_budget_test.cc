#include "control/memory_budget.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "base/random.h"

namespace llmd::control {
namespace {

TEST(MemoryBudget, GivesNoMoreThanItsLimit) {
  MemoryBudget budget(1000, 1);
  BudgetLease lease(budget);
  EXPECT_TRUE(lease.Take(600));
  EXPECT_FALSE(lease.Take(500));
  EXPECT_TRUE(lease.Take(400));
  EXPECT_FALSE(lease.Take(1));
  lease.Give(400);
  EXPECT_TRUE(lease.Take(1));
  lease.Give(1);
  lease.Give(600);
}

TEST(MemoryBudget, AnIdleWorkerDoesNotHoardIt) {
  MemoryBudget budget(1000, 2);
  BudgetLease busy(budget), idle(budget);
  EXPECT_TRUE(idle.Take(900));
  EXPECT_FALSE(busy.Take(200));
  idle.Give(900);
  EXPECT_TRUE(busy.Take(870));
  busy.Give(870);
}

TEST(MemoryBudget, RandomUseNeverExceedsTheLimitAndBalances) {
  MemoryBudget budget(10'000, 3);
  {
    std::vector<std::unique_ptr<BudgetLease>> leases;
    for (int i = 0; i < 3; ++i) leases.push_back(std::make_unique<BudgetLease>(budget));
    std::vector<std::pair<size_t, size_t>> held;
    base::Random random(1);
    for (int i = 0; i < 20'000; ++i) {
      if (!held.empty() && random.Below(2)) {
        std::swap(held[random.Below(held.size())], held.back());
        leases[held.back().first]->Give(held.back().second);
        held.pop_back();
      } else if (const size_t w = random.Below(3), n = random.Below(2000); leases[w]->Take(n)) {
        held.emplace_back(w, n);
      }
      size_t sum = 0;
      for (const auto& [w, n] : held) sum += n;
      ASSERT_LE(sum, budget.leased_bytes());
      ASSERT_LE(budget.leased_bytes(), budget.limit_bytes());
    }
    for (const auto& [w, n] : held) leases[w]->Give(n);
  }
  EXPECT_EQ(budget.leased_bytes(), 0u);
}

}  // namespace
}  // namespace llmd::control
