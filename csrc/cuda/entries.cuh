// Entries of A, from CSR order in global memory to [tap][pixel] in shared memory.
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda_runtime.h>

#include "../common/integers.h"
#include "copies.cuh"
#include "packed.cuh"
#include "staging.cuh"
#include "tile.cuh"

namespace circulant {

// The slot of offset `o` where offset `first` has the lowest column.
__device__ __forceinline__ int rotated(int o, int first, int window) {
  const unsigned slot = static_cast<unsigned>(o) - first;
  // One of the two is negative, which is large, or the second is the larger one.
  return static_cast<int>(min(slot, slot + window));
}

// Entry `slot` of the row of a pixel. `from` is that of pixel 0.
template <class T>
__device__ __forceinline__ T* entry_at(T* from, int pixel, int offsets, int slot) {
  const uint32_t p = pixel, K = offsets;
  // Products of 32 bits by 32 bits: kMaxOffsets entries of 4 bytes have 2^31 bytes.
  if (sizeof(T) > 4) return from + (uint64_t(p) * K + uint32_t(slot));
  using Byte = std::conditional_t<std::is_const<T>::value, const char, char>;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(from + uint32_t(slot)) +
                              uint64_t(p) * (K * uint32_t(sizeof(T))));
}

// Returns log2 of how many neighbouring lanes, 8, 16 or 32, read neighbouring taps of one pixel:
// the most with the fewest of them idle.
inline int log_tap_lanes(int taps) {
  int best = 3;
  for (int log = 4; log <= 5; ++log) {
    if (round_up(taps, 1 << log) <= round_up(taps, 1 << best)) best = log;
  }
  return best;
}

// Rows of a tile without entries.
constexpr int64_t kBeyondGrid = -1, kAbsent = -2;

// Fills `entry_rows`, for each row of the tile: where in a group of A the entries of window row
// (a, b) begin, for the pixel of column 0. When transposed these are entries A_ji of the rows of
// the neighbours j. kAbsent if there is no neighbour. Complete after the next barrier.
template <bool transposed>
__device__ __forceinline__ void tabulate_entry_rows(const Place& place, const Tile& tile, int a,
                                                    int b, int64_t* entry_rows) {
  const Axis of_d = transposed ? place.d.axis.transposed() : place.d.axis;
  const Axis of_h = transposed ? place.h.axis.transposed() : place.h.axis;
  const int window_w = place.w.axis.window,
            size_w = transposed ? place.w.axis.keys : place.w.axis.size;
  const int64_t K = int64_t(of_d.window) * of_h.window * window_w;
#pragma unroll 1
  for (int r = threadIdx.x; r < tile.rows(); r += blockDim.x) {
    const int row_d = tile.row_d(r), row_h = tile.row_h(r);
    int d = place.d.pixel(row_d), h = place.h.pixel(row_h), o_d = a, o_h = b;
    const bool beyond = d < 0 || h < 0;
    if (transposed) {
      d = place.d.neighbour(place.d.halo(a) + row_d);
      h = place.h.neighbour(place.h.halo(b) + row_h);
      o_d = of_d.window - 1 - a;
      o_h = of_h.window - 1 - b;
    }
    const int slot_row = of_d.slot_of_offset(d, o_d) * of_h.window + of_h.slot_of_offset(h, o_h);
    const int64_t at = int64_t(d * of_h.size + h) * size_w * K + slot_row * window_w;
    entry_rows[r] = beyond ? kBeyondGrid : (d < 0 || h < 0 ? kAbsent : at);
  }
}

// Neighbouring taps of one window row.
struct TapRange {
  int begin, count;
};

// For each pixel i of the tile, and each tap with its neighbour j:
//
//   entries[tap - taps.begin][i] = A_ij, or A_ji when transposed; zero if j is absent
//
// with `pitch` values per tap; unspecified for pixels beyond the grid. `columns` are those of the
// rows of A: of the tile, or of its halo from the first tap on when transposed. Neighbouring lanes
// read neighbouring entries of a row of A: for A_ji, where a row of A has one entry per tap and
// pixel of the tile, they walk over j instead of i. Called by all threads of a block; `values` are
// those of one group. Complete after finish_copies() and a barrier.
template <bool transposed, class T, class A>
__device__ __forceinline__ void stage_entries(const T* __restrict__ values, A* entries, int pitch,
                                              const Pattern& pattern, const Tile& tile,
                                              const TapRange& taps, int log_lanes,
                                              const int64_t* entry_rows, const Column* columns) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int lanes = 1 << log_lanes, tap_lane = lane & (lanes - 1), pixel_lane = lane >> log_lanes;
  const int window_w = pattern.window.w, K = static_cast<int>(pattern.offsets());
  // A warp takes up to 32 columns of a row of the tile at a time.
  const int log_columns = tile.log_w < 5 ? tile.log_w : 5, log_parts = tile.log_w - log_columns;
  const int width = 1 << log_columns;

#pragma unroll 1
  for (int item = warp; item < tile.rows() << log_parts; item += warps) {
    const int row = item >> log_parts, first = (item & ((1 << log_parts) - 1)) << log_columns;
    const int64_t entry_row = entry_rows[row];
    if (entry_row == kBeyondGrid) continue;
    const T* const from = kept(values + (entry_row == kAbsent ? 0 : entry_row));
#pragma unroll 1
    for (int t = tap_lane; t < taps.count; t += lanes) {
      const int offset = transposed ? window_w - 1 - taps.begin - t : taps.begin + t;
      const Column* const of_tap = columns + first + (transposed ? t : 0);
      A* const to = entries + t * pitch + (row << tile.log_w) + first;
      // Lanes that walk over j start again at the first pixel when they have passed the last one.
      const auto column_at = [&](int step) {
        return transposed ? (step - tap_lane) & (width - 1) : step;
      };
      const auto entry_of = [&](const Column& of_row) {
        return entry_at(from, max(of_row.pixel, 0), K, rotated(offset, of_row.first, window_w));
      };
      const auto is_absent = [&](const Column& of_row) {
        return entry_row == kAbsent || of_row.pixel < 0;
      };
      const bool can_be_absent = transposed && pattern.is_bounded();
      const int stride = 32 >> log_lanes;
      int step = pixel_lane;
      if constexpr (kCopiesWhileComputing<T, A>) {
        if (can_be_absent) {
#pragma unroll 1
          for (; step < width; step += stride) {
            const Column of_row = of_tap[column_at(step)];
            A* const entry = to + column_at(step);
            if (is_absent(of_row)) {
              *entry = 0;
            } else {
              start_copy(entry, entry_of(of_row));
            }
          }
          continue;
        }
        const auto load = [&](int step) { return of_tap[column_at(step)]; };
        const auto copy = [&](int step, const Column& of_row) {
          start_copy(to + column_at(step), entry_of(of_row));
        };
        copy_whole_batches<Column>(step, width, stride, load, copy);
        // Narrow tiles only: widths are powers of two.
        if (step < width) copy_rest<Column>(step, width, stride, load, copy);
      } else {
        const auto load = [&](int step) { return *entry_of(of_tap[column_at(step)]); };
        const auto store = [&](int step, T entry) { to[column_at(step)] = static_cast<A>(entry); };
        copy_whole_batches<T>(step, width, stride, load, store);
        if (step < width) copy_rest<T>(step, width, stride, load, store);
        if (can_be_absent) {
#pragma unroll 1
          for (step = pixel_lane; step < width; step += stride) {
            if (is_absent(of_tap[column_at(step)])) to[column_at(step)] = 0;
          }
        }
      }
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
