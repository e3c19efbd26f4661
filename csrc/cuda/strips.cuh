// The window cut into strips: 8 neighbouring taps of one window row.
//
// tap          offset along the last dim, 0 <= tap < window.w
// window row   the offsets (a, b, *) with a and b fixed
// step         the strips that a block works on at a time, one per warp
#pragma once

#include <algorithm>

#include <cuda_runtime.h>

#include "../common/integers.h"
#include "tile.cuh"

namespace circulant {

constexpr int kStripTaps = 8;

// Strips numbered along a row, then over rows, then over planes.
struct Strips {
  Extents window;
  int per_step;
  int in_row, in_plane;

  Strips(const Extents& window, int per_step) : window(window), per_step(per_step) {
    // Long rows and large planes are padded to whole steps: a step that crosses into the next row
    // needs the halo of whole rows, one that crosses planes that of whole planes.
    in_row = padded(divide_up(window.w, kStripTaps));
    in_plane = padded(in_row * window.h);
  }

  __host__ __device__ int count() const { return in_plane * window.d; }
  __host__ __device__ int steps() const { return divide_up(count(), per_step); }

 private:
  int padded(int strips) const {
    return strips < 4 * per_step ? strips : round_up(strips, per_step);
  }
};

struct Strip {
  int a, b, tap;  // the window row and the first tap

  __host__ __device__ Strip(const Strips& strips, int index)
      : a(index / strips.in_plane),
        b(index % strips.in_plane / strips.in_row),
        tap(index % strips.in_plane % strips.in_row * kStripTaps) {}
  // Whether the strip has a tap: padding has none.
  __device__ bool exists(const Extents& window) const {
    return a < window.d && b < window.h && tap < window.w;
  }
};

// The bounding box, in the window, of the strips of a step.
struct StepBox {
  int a, b, tap;  // its first offset
  int planes, rows, taps;

  __host__ __device__ StepBox(const Strips& strips, int step) {
    const int first_index = step * strips.per_step, end = first_index + strips.per_step,
              last_index = (end < strips.count() ? end : strips.count()) - 1;
    const Strip first(strips, first_index), last(strips, last_index);
    const bool one_plane = first.a == last.a, one_row = one_plane && first.b == last.b;
    const int last_b = last.b < strips.window.h ? last.b : strips.window.h - 1;
    a = first.a;
    b = one_plane ? first.b : 0;
    tap = one_row ? first.tap : 0;
    planes = last.a - a + 1;
    rows = (one_plane ? last_b : strips.window.h - 1) - b + 1;
    taps = one_row ? last.tap + kStripTaps - tap : strips.in_row * kStripTaps;
  }

  // The halo: the pixels that a tile meets at the offsets of the box.
  __host__ __device__ int halo_d(const Tile& tile) const { return tile.d() + planes - 1; }
  __host__ __device__ int halo_h(const Tile& tile) const { return tile.h() + rows - 1; }
  __host__ __device__ int halo_rows(const Tile& tile) const { return halo_d(tile) * halo_h(tile); }
  __device__ int halo_w(const Tile& tile, int window) const {
    return tile.w() + min(taps, window - tap) - 1;
  }
};

// The most planes, rows and taps of the box of any step.
inline Extents largest_box(const Strips& strips) {
  Extents most{0, 0, 0};
  for (int step = 0; step < strips.steps(); ++step) {
    const StepBox box(strips, step);
    most.d = std::max(most.d, box.planes);
    most.h = std::max(most.h, box.rows);
    most.w = std::max(most.w, box.taps);
  }
  return most;
}

}  // namespace circulant
