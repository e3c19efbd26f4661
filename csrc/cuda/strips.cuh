// The window cut into units: runs of neighbouring taps of one window row.
//
// tap          offset along the last dim, 0 <= tap < window.w
// window row   the offsets (a, b, *) with a and b fixed
#pragma once

#include <algorithm>

#include <cuda_runtime.h>

#include "tile.cuh"

namespace circulant {

constexpr int kUnitTaps = 8;

// Units numbered along a row, then over rows, then over planes, and taken `together` at a time.
struct Units {
  Extents window;
  int together;
  int in_row, in_plane;

  Units(const Extents& window, int together) : window(window), together(together) {
    // Long rows and large planes are filled up to whole sets: a set that crosses into the next row
    // needs the halo of whole rows, one that crosses planes that of whole planes.
    in_row = rounded(divide_up(window.w, kUnitTaps));
    in_plane = rounded(in_row * window.h);
  }

  __host__ __device__ int count() const { return in_plane * window.d; }
  // How many sets there are.
  __host__ __device__ int sets() const { return divide_up(count(), together); }

 private:
  int rounded(int units) const {
    return units < 4 * together ? units : divide_up(units, together) * together;
  }
};

struct Unit {
  int a, b, tap;  // the window row and the first tap

  __host__ __device__ Unit(const Units& units, int index)
      : a(index / units.in_plane),
        b(index % units.in_plane / units.in_row),
        tap(index % units.in_plane % units.in_row * kUnitTaps) {}
  // Whether the unit has any tap.
  __device__ bool valid(const Extents& window) const {
    return a < window.d && b < window.h && tap < window.w;
  }
};

// The smallest box of the window around a set of units.
struct Box {
  int a, b, tap;  // its first unit
  int planes, rows, taps;

  __host__ __device__ Box(const Units& units, int set) {
    const int first_index = set * units.together, end = first_index + units.together,
              last_index = (end < units.count() ? end : units.count()) - 1;
    const Unit first(units, first_index), last(units, last_index);
    const bool one_plane = first.a == last.a, one_row = one_plane && first.b == last.b;
    const int last_b = last.b < units.window.h ? last.b : units.window.h - 1;
    a = first.a;
    b = one_plane ? first.b : 0;
    tap = one_row ? first.tap : 0;
    planes = last.a - a + 1;
    rows = (one_plane ? last_b : units.window.h - 1) - b + 1;
    taps = one_row ? last.tap + kUnitTaps - tap : units.in_row * kUnitTaps;
  }
  __host__ __device__ int halo_h(const Tile& tile) const { return tile.h() + rows - 1; }
  __host__ __device__ int halo_rows(const Tile& tile) const {
    return (tile.d() + planes - 1) * halo_h(tile);
  }
};

// The most planes, rows and taps that the box of any set has.
inline Extents largest_box(const Units& units) {
  Extents most{0, 0, 0};
  for (int set = 0; set < units.sets(); ++set) {
    const Box box(units, set);
    most.d = std::max(most.d, box.planes);
    most.h = std::max(most.h, box.rows);
    most.w = std::max(most.w, box.taps);
  }
  return most;
}

}  // namespace circulant
