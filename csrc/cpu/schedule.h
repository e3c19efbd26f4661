// Cutting a problem into chunks and running these on torch's threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include <torch/csrc/stable/ops.h>

#include "dispatch.h"

namespace circulant {

using Chunks = std::vector<Chunk>;

// Threads take chunks one after the other, so that none waits for a slower one before the end.
template <class Problem>
void run_chunks(Engine<Problem> engine, const Problem& problem, const Chunks& chunks) {
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

inline int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Part `i` of `parts` nearly equal ones that begin at multiples of `multiple`.
inline Span part_of(int64_t size, int64_t i, int64_t parts, int64_t multiple = 1) {
  const int64_t units = divided_up(size, multiple);
  return {units * i / parts * multiple, std::min(size, units * (i + 1) / parts * multiple)};
}

// The chunks of a problem whose rows are computed one by one, such as the similarity: every chunk
// writes results of its own. The engines treat rows by fours, so that chunks of whole fours give
// the same bits however many there are.
inline Chunks independent_chunks(const Geometry& g, int64_t groups) {
  constexpr int64_t rows_together = 4;
  const int64_t planes = g.size[0], rows = g.size[1], columns = g.size[2];
  // Long rows are cut so that what a chunk packs stays in a cache.
  const int64_t across = divided_up(columns, std::max<int64_t>(512, 2 * g.window[2]));
  // Some for every thread, but large against the rows around them, which every chunk packs.
  const int64_t wanted = divided_up(4 * static_cast<int64_t>(torch::stable::get_num_threads()),
                                    groups * planes * across);
  const int64_t smallest = std::max<int64_t>(16, 2 * g.window[1]);
  const int64_t down = std::max<int64_t>(1, std::min(wanted, rows / smallest));
  Chunks chunks;
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t d = 0; d < planes; ++d) {
      for (int64_t i = 0; i < down; ++i) {
        for (int64_t j = 0; j < across; ++j) {
          chunks.push_back({group,
                            {d, d + 1},
                            part_of(rows, i, down, rows_together),
                            part_of(columns, j, across)});
        }
      }
    }
  }
  return chunks;
}

// The chunks of a problem with sums over queries for every key, such as the gradients of fused
// attention. They add to the sums of their neighbours, half a window beyond their own queries, so
// they run in phases: of an even number of parts, each at least a window long, every second one
// touches nothing that another of the same phase does. The order of additions is that of the
// phases, which depends on the shape alone: same bits for any number of threads.
struct PhasedChunks {
  std::vector<Chunks> phases;
  // Parts of a row add to it, so that it must hold zeros before; whole rows can be written.
  bool adds;
};

// An even number of parts, by fours if there are so many, none smaller than `smallest`; or one
// part.
inline int64_t even_parts(int64_t size, int64_t smallest, int64_t wanted) {
  const int64_t parts = std::min(size / smallest, wanted);
  return parts < 2 ? 1 : parts < 4 ? 2 : parts / 4 * 4;
}

inline PhasedChunks phased_chunks(const Geometry& g, int64_t groups) {
  const int64_t rows = g.size[1], columns = g.size[2];
  const bool is_signal = g.size[0] * rows == 1;
  const auto tasks = [&](int64_t n) { return divided_up(n, std::max<int64_t>(groups, 1)); };
  // Small parts only as far as a few threads need them; the larger ones pack less.
  const int64_t down = std::max(even_parts(rows, std::max<int64_t>(8, g.window[1]), tasks(4)),
                                even_parts(rows, std::max<int64_t>(32, g.window[1]), tasks(16)));
  const int64_t across =
      even_parts(columns, std::max<int64_t>(is_signal ? 256 : 1024, g.window[2]), tasks(16));
  PhasedChunks result{{}, across > 1};
  for (int64_t first_i = 0; first_i < (down > 1 ? 2 : 1); ++first_i) {
    for (int64_t first_j = 0; first_j < (across > 1 ? 2 : 1); ++first_j) {
      Chunks& chunks = result.phases.emplace_back();
      for (int64_t group = 0; group < groups; ++group) {
        for (int64_t i = first_i; i < down; i += 2) {
          for (int64_t j = first_j; j < across; j += 2) {
            chunks.push_back(
                {group, {0, g.size[0]}, part_of(rows, i, down), part_of(columns, j, across)});
          }
        }
      }
    }
  }
  return result;
}

template <class Problem>
void run_phases(Engine<Problem> engine, const Problem& problem, const PhasedChunks& chunks) {
  for (const Chunks& phase : chunks.phases) run_chunks(engine, problem, phase);
}

}  // namespace circulant
