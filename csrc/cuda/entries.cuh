// Entries of A, from CSR order in global memory to [tap][pixel] in shared memory.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/geometry.h"
#include "../common/integers.h"
#include "staging.cuh"
#include "tile.cuh"

namespace circulant {

// Taps of one window row.
struct TapRange {
  int a, b;   // the window row
  int begin;  // the first tap
  int count;
};

// Returns log2 of how many neighbouring lanes, 8, 16 or 32, read neighbouring taps of one pixel:
// the most with the fewest of them idle.
inline int log_tap_lanes(int taps) {
  int best = 3;
  for (int log = 4; log <= 5; ++log) {
    if (round_up(taps, 1 << log) <= round_up(taps, 1 << best)) best = log;
  }
  return best;
}

// For each pixel i of the tile that lies in the grid, and each tap with its neighbour j:
//
//   entries[tap - taps.begin][i] = A_ij, or A_ji when transposed
//
// with `pitch` values per tap. Neighbouring lanes read neighbouring entries of a row of A: for
// A_ji, where a row of A has one entry per tap and pixel of the tile, they walk over j instead of
// i. Called by all threads of a block; `values` are those of one group. Pixels beyond the grid are
// not written.
template <bool transposed, class T, class A>
__device__ __forceinline__ void stage_entries(const T* __restrict__ values, A* entries, int pitch,
                                              const Pattern& s, const Tile& tile,
                                              const Extents& origin, const TapRange& taps,
                                              int log_lanes) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int lanes = 1 << log_lanes, tap_lane = lane & (lanes - 1), pixel_lane = lane >> log_lanes;
  const int64_t K = s.offsets();
  // A warp takes up to 32 columns of a row of the tile at a time.
  const int log_columns = tile.log_w < 5 ? tile.log_w : 5, log_parts = tile.log_w - log_columns;
  const int columns = 1 << log_columns, steps = columns + (transposed ? lanes - 1 : 0);

  for (int item = warp; item < tile.rows() << log_parts; item += warps) {
    const int row = item >> log_parts, first = (item & ((1 << log_parts) - 1)) << log_columns;
    int d = origin.d + tile.row_d(row), h = origin.h + tile.row_h(row), a = taps.a, b = taps.b;
    if (d >= s.size.d || h >= s.size.h) continue;
    if (transposed) {
      d = neighbour(d, a, s.size.d, s.window.d);
      h = neighbour(h, b, s.size.h, s.window.h);
      a = s.window.d - 1 - a;
      b = s.window.h - 1 - b;
    }
    const int slot_row = slot_of_offset(d, a, s.size.d, s.window.d) * s.window.h +
                         slot_of_offset(h, b, s.size.h, s.window.h);
    const T* const from = values + (d * s.size.h + h) * s.size.w * K + slot_row * s.window.w;
    A* const to = entries + (row << tile.log_w) + first;
    // The column of this lane at a step, -1 for none.
    const auto column_at = [&](int step) {
      const int column = transposed ? step - tap_lane : step;
      return column >= 0 && column < columns && origin.w + first + column < s.size.w ? column : -1;
    };
    for (int t = tap_lane; t < taps.count; t += lanes) {
      copy_in_batches<T>(
          pixel_lane, steps, 32 >> log_lanes,
          [&](int step) {
            const int column = column_at(step);
            if (column < 0) return T(0);
            int w = origin.w + first + column, tap = taps.begin + t;
            if (transposed) {
              w = neighbour(w, tap, s.size.w, s.window.w);
              tap = s.window.w - 1 - tap;
            }
            return from[w * K + slot_of_offset(w, tap, s.size.w, s.window.w)];
          },
          [&](int step, T entry) {
            const int column = column_at(step);
            if (column >= 0) to[t * pitch + column] = static_cast<A>(entry);
          });
    }
  }
}

}  // namespace circulant
