// Cutting a fused problem into chunks, by its shape alone, and running these on torch's threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <torch/csrc/stable/ops.h>

#include "fused/problem.h"

namespace circulant::fused {

// Part `i` of `parts` nearly equal ones.
inline Span part_of(int64_t size, int64_t i, int64_t parts) {
  return {size * i / parts, size * (i + 1) / parts};
}

// Threads take chunks one after the other, so that none waits for a slower one before the end.
template <class Problem>
void run_chunks(ChunkEngine<Problem> engine, const Problem& problem,
                const std::vector<Chunk>& chunks) {
  constexpr int64_t alignment = 64;
  int64_t bytes = 0;
  for (const Chunk& chunk : chunks) bytes = std::max(bytes, engine(problem, chunk, nullptr));
  bytes = (bytes + alignment - 1) / alignment * alignment;
  const int64_t count = static_cast<int64_t>(chunks.size());
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), count);
  // Allocated here, because an exception must not leave a parallel region.
  const std::unique_ptr<char[]> memory(new char[threads * bytes + alignment]);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.get());
  char* scratch = memory.get() + (alignment - address % alignment);
  int64_t next = 0;
  torch::stable::parallel_for(0, threads, 1, [&](int64_t thread, int64_t) {
    for (int64_t i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < count;) {
      engine(problem, chunks[i], scratch + thread * bytes);
    }
  });
}

}  // namespace circulant::fused
