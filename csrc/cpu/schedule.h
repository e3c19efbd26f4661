// Work items: how the work of an op is cut, and how torch's threads run it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include <torch/csrc/stable/ops.h>

#include "../common/integers.h"
#include "dispatch.h"

namespace circulant {

using WorkItems = std::vector<WorkItem>;

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

// The scratch memory of the item that needs most.
template <class Params>
int64_t scratch_bytes(const Kernel<Params>& kernel, const Params& params, const WorkItems& items) {
  int64_t bytes = 0;
  const WorkItem* last = nullptr;
  for (const WorkItem& item : items) {
    // Adjacent items mostly have the same sizes.
    if (last == nullptr || item.rows.size() != last->rows.size() ||
        item.columns.size() != last->columns.size() || item.planes.size() != last->planes.size()) {
      bytes = std::max(bytes, kernel.scratch_bytes(params, item));
    }
    last = &item;
  }
  return bytes;
}

// Runs the kernel on all items. Each thread takes the next item when it has finished one.
template <class Params>
void run_items(const Kernel<Params>& kernel, const Params& params, const WorkItems& items) {
  const int64_t count = static_cast<int64_t>(items.size());
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), count);
  // Allocated here: an exception must not leave a parallel region.
  const Scratch scratch(threads, scratch_bytes(kernel, params, items));
  int64_t next = 0;
  torch::stable::parallel_for(0, threads, 1, [&](int64_t thread, int64_t) {
    for (int64_t i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < count;) {
      kernel.run(params, items[i], scratch.of_thread(thread));
    }
  });
}

// Part `i` of `parts` nearly equal ones that begin at multiples of `multiple`.
inline Span part_of(int64_t size, int64_t i, int64_t parts, int64_t multiple = 1) {
  const int64_t count = divide_up(size, multiple);
  return {count * i / parts * multiple, std::min(size, count * (i + 1) / parts * multiple)};
}

// Items of an op that computes each pixel on its own, such as similarity: every item writes results
// of its own. Kernels treat rows by fours, so items of whole fours give the same bits for any cut.
inline WorkItems independent_items(const Geometry& g, int64_t groups) {
  constexpr int64_t rows_together = 4;
  const int64_t planes = g.size[0], rows = g.size[1], columns = g.size[2];
  // Long rows are cut so that the packed rows of an item stay in a cache.
  const int64_t across = divide_up(columns, std::max<int64_t>(512, 2 * g.window[2]));
  // Several items for every thread, but with many rows compared with the rows around them, which
  // every item packs.
  const int64_t wanted = divide_up(4 * static_cast<int64_t>(torch::stable::get_num_threads()),
                                   groups * planes * across);
  const int64_t smallest = std::max<int64_t>(16, 2 * g.window[1]);
  const int64_t down = std::max<int64_t>(1, std::min(wanted, rows / smallest));
  WorkItems items;
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t d = 0; d < planes; ++d) {
      for (int64_t i = 0; i < down; ++i) {
        for (int64_t j = 0; j < across; ++j) {
          items.push_back({group,
                           {d, d + 1},
                           part_of(rows, i, down, rows_together),
                           part_of(columns, j, across)});
        }
      }
    }
  }
  return items;
}

// Items of an op with sums over the queries of each key, such as attention_backward. They add to
// the sums of their neighbours, up to half a window beyond their own queries. So they run in
// phases: the grid is cut into an even number of parts, each at least a window long, and no two
// items of a phase are adjacent. The order of additions is that of the phases, which depends on the
// shape alone: results have the same bits for any number of threads.
struct PhasedItems {
  std::vector<WorkItems> phases;
  // Whether items add to parts of a row, so that the sums have to start from zeros.
  bool parts_of_rows;
};

// An even number of parts, a multiple of 4 if there are that many, none smaller than `smallest`; or
// one part.
inline int64_t even_parts(int64_t size, int64_t smallest, int64_t wanted) {
  const int64_t parts = std::min(size / smallest, wanted);
  return parts < 2 ? 1 : parts < 4 ? 2 : parts / 4 * 4;
}

inline PhasedItems phased_items(const Geometry& g, int64_t groups) {
  const int64_t rows = g.size[1], columns = g.size[2];
  const bool is_signal = g.size[0] * rows == 1;
  const auto tasks = [&](int64_t n) { return divide_up(n, std::max<int64_t>(groups, 1)); };
  // Small parts only for a few threads: larger ones pack fewer rows.
  const int64_t down = std::max(even_parts(rows, std::max<int64_t>(8, g.window[1]), tasks(4)),
                                even_parts(rows, std::max<int64_t>(32, g.window[1]), tasks(16)));
  const int64_t across =
      even_parts(columns, std::max<int64_t>(is_signal ? 256 : 1024, g.window[2]), tasks(16));
  PhasedItems result{{}, across > 1};
  for (int64_t first_i = 0; first_i < (down > 1 ? 2 : 1); ++first_i) {
    for (int64_t first_j = 0; first_j < (across > 1 ? 2 : 1); ++first_j) {
      WorkItems& items = result.phases.emplace_back();
      for (int64_t group = 0; group < groups; ++group) {
        for (int64_t i = first_i; i < down; i += 2) {
          for (int64_t j = first_j; j < across; j += 2) {
            items.push_back(
                {group, {0, g.size[0]}, part_of(rows, i, down), part_of(columns, j, across)});
          }
        }
      }
    }
  }
  return result;
}

template <class Params>
void run_phases(const Kernel<Params>& kernel, const Params& params, const PhasedItems& items) {
  for (const WorkItems& phase : items.phases) run_items(kernel, params, phase);
}

}  // namespace circulant
