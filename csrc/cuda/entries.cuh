// The entries of A that a tile of pixels needs for some taps of one window row, brought to shared
// memory.
//
// tap          offset along the last dim, 0 <= tap < window.w
// window row   the offsets (a, b, *) with a and b fixed
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/geometry.h"
#include "packed.cuh"
#include "tile.cuh"

namespace circulant {

struct Taps {
  int a, b;   // the window row
  int begin;  // the first tap
  int count;
};

// How many neighbouring threads, a power of two, read neighbouring taps of one pixel: the count
// that leaves the fewest idle, the larger of two such. Returns its logarithm.
inline int log_tap_lanes(int taps) {
  int best = 3;
  for (int log = 4; log <= 5; ++log) {
    if (divide_up(taps, 1 << log) << log <= divide_up(taps, 1 << best) << best) best = log;
  }
  return best;
}

// Of each pixel i of the tile that lies in the grid, and of each tap with its neighbour j:
//
//   weights[tap - taps.begin][i] = A_ij, or A_ji when transposed
//
// with rows of `pitch` numbers. Entries of one row of A are read by neighbouring threads: for A_ji,
// where a row of A meets one pixel of the tile per tap, threads walk over j instead of i. Every
// thread of the block takes part; `values` are those of one group. Nothing is written for pixels
// beyond the grid.
template <bool transposed, class T, class A>
__device__ __forceinline__ void stage_weights(const T* __restrict__ values, A* weights, int pitch,
                                              const Pattern& s, const Tile& tile,
                                              const Extents& origin, const Taps& taps,
                                              int log_lanes) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int lanes = 1 << log_lanes, tap_lane = lane & (lanes - 1), pixel_lane = lane >> log_lanes;
  const int64_t K = s.offsets();
  // A warp takes runs of at most 32 pixels of a row of the tile.
  const int log_run = tile.log_w < 5 ? tile.log_w : 5, log_runs = tile.log_w - log_run;
  const int run = 1 << log_run, steps = run + (transposed ? lanes - 1 : 0);

  for (int item = warp; item < tile.rows() << log_runs; item += warps) {
    const int row = item >> log_runs, first = (item & ((1 << log_runs) - 1)) << log_run;
    int d = origin.d + (row >> tile.log_h), h = origin.h + (row & (tile.h() - 1)), a = taps.a,
        b = taps.b;
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
    A* const to = weights + (row << tile.log_w) + first;
    // The pixel of the run at a step of this thread, -1 for none.
    const auto pixel_at = [&](int step) {
      const int pixel = transposed ? step - tap_lane : step;
      return pixel >= 0 && pixel < run && origin.w + first + pixel < s.size.w ? pixel : -1;
    };
    for (int t = tap_lane; t < taps.count; t += lanes) {
      copy_at_once<T>(
          pixel_lane, steps, 32 >> log_lanes,
          [&](int step) {
            const int pixel = pixel_at(step);
            if (pixel < 0) return T(0);
            int w = origin.w + first + pixel, tap = taps.begin + t;
            if (transposed) {
              w = neighbour(w, tap, s.size.w, s.window.w);
              tap = s.window.w - 1 - tap;
            }
            return from[w * K + slot_of_offset(w, tap, s.size.w, s.window.w)];
          },
          [&](int step, T entry) {
            const int pixel = pixel_at(step);
            if (pixel >= 0) to[t * pitch + pixel] = static_cast<A>(entry);
          });
    }
  }
}

}  // namespace circulant
