// Loops over the rows of a circulant matrix and the entries of a row.
#pragma once

#include <cstdint>

#include <torch/csrc/stable/ops.h>

#include "../common/geometry.h"

namespace circulant {

// Calls f(group, i) for every row i of every group, in parallel.
template <class F>
void for_each_row(int64_t groups, const Geometry& g, const F& f) {
  const int64_t N = g.pixels();
  torch::stable::parallel_for(0, groups * N, 64, [&](int64_t lo, int64_t hi) {
    for (int64_t row = lo; row < hi; ++row) f(row / N, row % N);
  });
}

// Calls f(s, j, t) for every slot s of row i, j its column, t the slot of the entry (j, i) in row j.
template <class F>
void for_each_entry(const Geometry& g, int64_t i, const F& f) {
  int64_t at[kSpatialDims];
  for (int d = kSpatialDims - 1; d >= 0; --d) {
    at[d] = i % g.size[d];
    i /= g.size[d];
  }
  const int64_t K = g.offsets();
  for (int64_t s = 0; s < K; ++s) {
    int64_t slot[kSpatialDims], rest = s;
    for (int d = kSpatialDims - 1; d >= 0; --d) {
      slot[d] = rest % g.window[d];
      rest /= g.window[d];
    }
    int64_t j = 0, t = 0;
    for (int d = 0; d < kSpatialDims; ++d) {
      const int64_t n = g.size[d], w = g.window[d];
      const int64_t o = offset_of_slot(at[d], slot[d], n, w);
      const int64_t jd = neighbour(at[d], o, n, w);
      j = j * n + jd;
      t = t * w + slot_of_offset(jd, w - 1 - o, n, w);
    }
    f(s, j, t);
  }
}

// Calls f(s, j) for every slot s of row i, j its column.
template <class F>
void for_each_slot(const Geometry& g, int64_t i, const F& f) {
  for_each_entry(g, i, [&](int64_t s, int64_t j, int64_t) { f(s, j); });
}

}  // namespace circulant
