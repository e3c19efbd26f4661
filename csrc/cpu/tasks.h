// Running an engine on torch's threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include <torch/csrc/stable/ops.h>

#include "engine.h"

namespace circulant {

// Threads take tasks one after the other, so that none waits for a slower one before the end.
template <class Problem>
void run_tasks(const Engine<Problem>& engine, const Problem& problem) {
  constexpr std::size_t alignment = 64;
  const Work work = engine.work(problem);
  const int64_t available = torch::stable::get_num_threads();
  const int64_t threads = available < work.tasks ? available : work.tasks;
  // Allocated here, because an exception must not leave a parallel region.
  const std::size_t each = (work.scratch_bytes + alignment - 1) / alignment * alignment;
  const std::unique_ptr<char[]> memory(new char[threads * each + alignment]());
  const std::size_t misaligned = reinterpret_cast<std::uintptr_t>(memory.get()) % alignment;
  char* scratch = memory.get() + (alignment - misaligned);
  int64_t next = 0;
  // Inside another parallel region there is one call for all; whoever comes takes what is left.
  torch::stable::parallel_for(0, threads, 1, [&](int64_t thread, int64_t) {
    engine.run(problem, scratch + thread * each, &next);
  });
}

}  // namespace circulant
