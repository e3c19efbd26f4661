// The grid cut into tiles: boxes of pixels, one per block of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include <cuda_runtime.h>

#include "../common/integers.h"
#include "problem.h"

namespace circulant {

// A box of pixels, numbered row-major. Its sizes are powers of two.
struct Tile {
  int log_d, log_h, log_w;

  __host__ __device__ int d() const { return 1 << log_d; }
  __host__ __device__ int h() const { return 1 << log_h; }
  __host__ __device__ int w() const { return 1 << log_w; }
  __host__ __device__ int rows() const { return 1 << (log_d + log_h); }
  __host__ __device__ int pixels() const { return 1 << (log_d + log_h + log_w); }

  // The plane of a row, and the row in that plane.
  __device__ int row_d(int row) const { return row >> log_h; }
  __device__ int row_h(int row) const { return row & (h() - 1); }

  // The 32 lanes of a warp over the tile, with 2^log_pixels neighbouring pixels each: neighbouring
  // lanes have neighbouring rows.
  __device__ int lane_row(int lane) const { return lane & (rows() - 1); }
  __device__ int lane_w(int lane, int log_pixels) const {
    return lane >> (log_d + log_h) << log_pixels;
  }

  // How many tiles cover a grid.
  __host__ __device__ int64_t count(const Extents& size) const {
    return int64_t(divide_up(size.d, d())) * divide_up(size.h, h()) * divide_up(size.w, w());
  }

  // The first pixel of a tile.
  __device__ Extents origin(int tile, const Extents& size) const {
    const int across = divide_up(size.w, w()), down = divide_up(size.h, h());
    const int row = tile / across;
    return {row / down << log_d, row % down << log_h, tile % across << log_w};
  }
};

// The tile of 2^log_pixels pixels, in at most 2^log_rows rows of at least 2^log_w, with the least
// cost(tile) * tile.count(size). A negative cost excludes a tile.
template <class Cost>
std::optional<Tile> choose_tile(int log_pixels, int log_w, int log_rows, const Extents& size,
                                const Cost& cost) {
  std::optional<Tile> best;
  double least = 0;
  const int most = std::min(log_rows, log_pixels - log_w);
  for (int log_d = 0; log_d <= most; ++log_d) {
    for (int log_h = 0; log_d + log_h <= most; ++log_h) {
      const Tile tile{log_d, log_h, log_pixels - log_d - log_h};
      const double of_tile = cost(tile);
      if (of_tile < 0) continue;
      const double total = of_tile * static_cast<double>(tile.count(size));
      if (best && total >= least) continue;
      least = total;
      best = tile;
    }
  }
  return best;
}

// Where a tile is: its first position in a class of pixels, and the number of the class. Positions
// number the pixels of a class.
struct Spot {
  Extents origin, number;

  __device__ static Spot of_block(const Pattern& p, const Tile& tile, int index) {
    const int classes = p.class_count();
    if (classes == 1) return {tile.origin(index, p.lengths()), {0, 0, 0}};
    // Neighbouring blocks have other classes of the same tile: they read the same sectors of
    // memory.
    const int number = index % classes, row = number / p.classes[2].count;
    return {tile.origin(index / classes, p.lengths()),
            {row / p.classes[1].count, row % p.classes[1].count, number % p.classes[2].count}};
  }
};

// Positions of a halo from `first`, not wrapped, `begin` to `end` of which exist.
struct Stretch {
  int first, begin, end;
};

// How far the pixels of a class are from its first one, in a dim.
struct Stride {
  int dilation = 1, size = 0;
  unsigned turn = 0;  // see Classes

  // That of position `t`: t dilation, modulo the size on a circle.
  __device__ __forceinline__ int at(int t) const {
    // How often the circle is full: that, or one less.
    const unsigned turns = static_cast<unsigned>(uint64_t(unsigned(t)) * turn >> 32);
    const int i = static_cast<int>(unsigned(t) * unsigned(dilation) - turns * size);
    return turn != 0 && i >= size ? i - size : i;
  }
};

// One dim of a tile.
struct Line {
  Axis axis;
  const Classes& classes;
  int origin, number;

  // The pixels, and the keys, of the class.
  __device__ int length() const { return classes.length - (number >= classes.longest); }
  __device__ int keys() const { return classes.key_length - (number >= classes.key_longest); }
  // The pixel of position `i` of the tile, -1 beyond the grid.
  __device__ int pixel(int i) const { return origin + i < length() ? at(origin + i) : -1; }
  // The neighbour at position `t` of a halo, wrapped, -1 if it is absent. Pixels of a circle have
  // neighbours up to the last one and `after`. Later positions are never read: they are clamped, so
  // that one subtraction wraps.
  __device__ int neighbour(int t) const {
    const int n = keys();
    if (!axis.circular) return t < 0 || t >= n ? -1 : at(t);
    t = min(t, n - 1 + axis.after());
    return at(t < 0 ? t + n : (t >= n ? t - n : t));
  }
  // The halo of the tile at `count` offsets from `o` on.
  __device__ int halo(int o) const { return origin + o - axis.before; }
  __device__ Stretch stretch(int o, int count) const {
    const int first = halo(o);
    if (axis.circular) return {first, 0, count};
    return {first, max(-first, 0), min(keys() - first, count)};
  }

 private:
  // The pixel at position `t` of the class.
  __device__ int at(int t) const {
    return number + Stride{axis.dilation, axis.size, classes.turn}.at(t);
  }
};

// A tile of the pixels of one class, in each dim.
struct Place {
  Line d, h, w;

  __device__ Place(const Pattern& p, const Spot& s)
      : d{p.d(), p.classes[0], s.origin.d, s.number.d},
        h{p.h(), p.classes[1], s.origin.h, s.number.h},
        w{p.w(), p.classes[2], s.origin.w, s.number.w} {}

  // The first pixel of a row of the tile, -1 beyond the grid.
  __device__ int row_start(const Tile& tile, int row) const {
    const int i = d.pixel(tile.row_d(row)), j = h.pixel(tile.row_h(row));
    return i < 0 || j < 0 ? -1 : (i * h.axis.size + j) * w.axis.size;
  }
};

// How many tiles cover all classes of a pattern.
inline int64_t count_tiles(const Pattern& p, const Tile& tile) {
  return tile.count(p.lengths()) * p.class_count();
}

}  // namespace circulant
