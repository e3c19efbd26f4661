// The cut of ops that compute each pixel on its own: all but attention_backward.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/integers.h"
#include "classes.h"
#include "params.h"

namespace circulant {

// Items of an op that computes each pixel on its own, such as similarity. The bits of a pixel are
// the same for any cut, which may depend on the number of threads. Kernels treat rows by fours, so
// items have whole fours.
//
// Chosen is the cut with the least time of the busiest thread. The estimate of the time of an item,
// in products of a pixel and an offset: those that it computes, and kPacking for each pixel that it
// packs.
inline std::vector<WorkItem> independent_items(const Geometry& g, int64_t groups, int64_t threads) {
  constexpr int64_t kRowsTogether = 4, kPacking = 32;
  // With more columns, packed rows leave the cache; fewer do not fill a vector.
  constexpr int64_t kMostColumns = 512, kFewestColumns = 16;
  const Dim &plane_dim = g.dims[0], &row_dim = g.dims[1], &column_dim = g.dims[2];
  const int64_t planes = plane_dim.size, columns = column_dim.size;
  const int64_t classes = row_dim.classes(), rows = row_dim.of_class(0).size;
  const auto time = [&](int64_t down, int64_t across) {
    const int64_t height = divide_up(divide_up(rows, kRowsTogether), down) * kRowsTogether;
    const int64_t width = divide_up(columns, across);
    const int64_t item = std::min(height, rows) * width * g.offsets() +
                         kPacking * plane_dim.window * (height + row_dim.window - 1) *
                             (width + std::min<int64_t>(column_dim.reach(), kMostColumns / 2 - 1));
    return divide_up(groups * planes * classes * down * across, threads) * item;
  };
  int64_t best_down = 1, best_across = divide_up(columns, kMostColumns);
  for (int64_t across = best_across; across == best_across || columns / across >= kFewestColumns;
       across *= 2) {
    // Up to 4 items per thread; of equal times the finest cut, to even out other load.
    const int64_t each = groups * planes * classes * across;
    const int64_t most = std::min(divide_up(rows, kRowsTogether), divide_up(4 * threads, each));
    for (int64_t down = 1; down <= most; ++down) {
      if (time(down, across) <= time(best_down, best_across)) {
        best_down = down;
        best_across = across;
      }
    }
    if (each >= 4 * threads) break;
  }
  std::vector<WorkItem> items;
  for (int64_t group = 0; group < groups; ++group) {
    for_each_class(g, [&](int64_t plane_class, int64_t row_class, const Geometry& own) {
      for (int64_t d = 0; d < own.dims[0].size; ++d) {
        for (int64_t i = 0; i < best_down; ++i) {
          const Span rows = part_of(own.dims[1].size, i, best_down, kRowsTogether);
          if (rows.size() <= 0) continue;
          for (int64_t j = 0; j < best_across; ++j) {
            items.push_back({group,
                             {d, d + 1},
                             rows,
                             part_of(columns, j, best_across),
                             plane_class,
                             row_class});
          }
        }
      }
    });
  }
  return items;
}

}  // namespace circulant
