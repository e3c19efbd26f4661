// Runs the work items of an op on torch's threads.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <memory>
#include <vector>

#include <torch/csrc/stable/ops.h>

#include "../common/integers.h"
#include "dispatch.h"

namespace circulant {

// Scratch memory for some threads, aligned to cache lines.
class Scratch {
 public:
  Scratch(int64_t threads, int64_t bytes)
      : bytes_(round_up(bytes, kAlignment)), memory_(new char[threads * bytes_ + kAlignment]) {}

  void* of_thread(int64_t thread) const {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.get());
    return memory_.get() + (kAlignment - address % kAlignment) + thread * bytes_;
  }

 private:
  static constexpr int64_t kAlignment = 64;
  int64_t bytes_;
  std::unique_ptr<char[]> memory_;
};

// Whether kernels need the same scratch memory for two items.
inline bool same_sizes(const WorkItem& a, const WorkItem& b) {
  return a.planes.size() == b.planes.size() && a.rows.size() == b.rows.size() &&
         a.columns.size() == b.columns.size();
}
inline bool same_sizes(const PairItem& a, const PairItem& b) {
  return same_sizes(a.queries, b.queries) && a.offsets.size() == b.offsets.size();
}

// Runs the kernel on all items of each phase, phase after phase. Each thread takes the next item of
// a phase when it has finished one.
template <class Params, class Item = typename Params::Item>
void run_phases(const Kernel<Params>& kernel, const Params& params,
                const std::vector<std::vector<Item>>& phases) {
  int64_t bytes = 0, most = 0;
  const Item* last = nullptr;
  for (const std::vector<Item>& items : phases) {
    most = std::max<int64_t>(most, items.size());
    for (const Item& item : items) {
      if (last == nullptr || !same_sizes(item, *last)) {
        bytes = std::max(bytes, kernel.scratch_bytes(params, item));
      }
      // In the tests with sanitizers, which switch assertions on.
      assert(kernel.scratch_bytes(params, item) <= bytes);
      last = &item;
    }
  }
  const int64_t all_threads = torch::stable::get_num_threads();
  // Allocated here: an exception must not leave a parallel region.
  const Scratch scratch(std::min(all_threads, most), bytes);
  for (const std::vector<Item>& items : phases) {
    const int64_t count = static_cast<int64_t>(items.size());
    int64_t next = 0;
    torch::stable::parallel_for(0, std::min(all_threads, count), 1, [&](int64_t thread, int64_t) {
      for (int64_t i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < count;) {
        kernel.run(params, items[i], scratch.of_thread(thread));
      }
    });
  }
}

template <class Params>
void run_items(const Kernel<Params>& kernel, const Params& params,
               const std::vector<WorkItem>& items) {
  run_phases(kernel, params, {items});
}

}  // namespace circulant
