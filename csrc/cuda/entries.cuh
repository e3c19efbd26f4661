// Entries of A, from CSR order in global memory to [tap][pixel] in shared memory.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/integers.h"
#include "staging.cuh"
#include "tile.cuh"

namespace circulant {

// The slot of offset `o` where offset `first` has the lowest column.
__device__ __forceinline__ int rotated(int o, int first, int window) {
  return o - first + (o < first ? window : 0);
}

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
//   entries[tap - taps.begin][i] = A_ij, or A_ji when transposed; zero if j is absent
//
// with `pitch` values per tap. `columns` are those of the rows of A: of the tile, or of its halo
// from the first tap on when transposed. Neighbouring lanes read neighbouring entries of a row of
// A: for A_ji, where a row of A has one entry per tap and pixel of the tile, they walk over j
// instead of i. Called by all threads of a block; `values` are those of one group. Rows beyond the
// grid are not written.
template <bool transposed, class T, class A>
__device__ __forceinline__ void stage_entries(const T* __restrict__ values, A* entries, int pitch,
                                              const Place& place, const Tile& tile,
                                              const TapRange& taps, int log_lanes,
                                              const Column* columns) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int lanes = 1 << log_lanes, tap_lane = lane & (lanes - 1), pixel_lane = lane >> log_lanes;
  const int window_w = place.w.axis.window;
  const int64_t K = int64_t(place.d.axis.window) * place.h.axis.window * window_w;
  // A warp takes up to 32 columns of a row of the tile at a time.
  const int log_columns = tile.log_w < 5 ? tile.log_w : 5, log_parts = tile.log_w - log_columns;
  const int width = 1 << log_columns, steps = width + (transposed ? lanes - 1 : 0);

  for (int item = warp; item < tile.rows() << log_parts; item += warps) {
    const int row = item >> log_parts, first = (item & ((1 << log_parts) - 1)) << log_columns;
    const int row_d = tile.row_d(row), row_h = tile.row_h(row);
    int d = place.d.pixel(row_d), h = place.h.pixel(row_h), slot_row, start;
    if (d < 0 || h < 0) continue;
    bool absent = false;
    if (transposed) {
      d = place.d.neighbour(place.d.halo(taps.a) + row_d);
      h = place.h.neighbour(place.h.halo(taps.b) + row_h);
      absent = d < 0 || h < 0;
      const Axis of_d = place.d.axis.transposed(), of_h = place.h.axis.transposed();
      slot_row = of_d.slot_of_offset(d, of_d.window - 1 - taps.a) * of_h.window +
                 of_h.slot_of_offset(h, of_h.window - 1 - taps.b);
      start = (d * of_h.size + h) * place.w.axis.keys;
    } else {
      slot_row = place.d.axis.slot_of_offset(d, taps.a) * place.h.axis.window +
                 place.h.axis.slot_of_offset(h, taps.b);
      start = (d * place.h.axis.size + h) * place.w.axis.size;
    }
    const T* const from = values + start * K + slot_row * window_w;
    A* const to = entries + (row << tile.log_w) + first;
    // The column of the tile of this lane at a step, -1 for none.
    const auto column_at = [&](int step) {
      const int column = transposed ? step - tap_lane : step;
      return column >= 0 && column < width ? column : -1;
    };
    for (int t = tap_lane; t < taps.count; t += lanes) {
      const int offset = transposed ? window_w - 1 - taps.begin - t : taps.begin + t;
      copy_in_batches<T>(
          pixel_lane, steps, 32 >> log_lanes,
          [&](int step) {
            const int column = column_at(step);
            if (column < 0 || absent) return T(0);
            const Column of_row = columns[first + column + (transposed ? t : 0)];
            if (of_row.pixel < 0) return T(0);
            return from[of_row.pixel * K + rotated(offset, of_row.first, window_w)];
          },
          [&](int step, T entry) {
            const int column = column_at(step);
            if (column >= 0) to[t * pitch + column] = static_cast<A>(entry);
          });
    }
  }
}

// Fills `columns` with `count` columns of rows of A, of the tile or, when transposed, of its halo
// from offset `tap` on. Complete after the next barrier.
template <bool transposed>
__device__ __forceinline__ void tabulate_columns(const Line& line, int tap, int count,
                                                 Column* columns) {
  for (int j = threadIdx.x; j < count; j += blockDim.x) {
    const int pixel = transposed ? line.neighbour(line.halo(tap) + j) : line.pixel(j);
    const Axis axis = transposed ? line.axis.transposed() : line.axis;
    columns[j] = {pixel, axis.first_offset(pixel)};
  }
}

}  // namespace circulant
