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

// One dim of a tile in a class of pixels, which are numbered by their position in it.
struct Line {
  Axis axis;
  int classes;
  int number;  // of the class
  int origin;  // the first position of the tile

  __device__ Axis positions() const { return axis.of_class(number, classes); }
  // The pixel of position `i` of the tile, -1 beyond the grid.
  __device__ int pixel(int i) const {
    const int t = origin + i;
    return t < positions().size ? axis.pixel_of_class(number, t) : -1;
  }
  // The first position of the halo that begins at offset `o`, not wrapped.
  __device__ int halo(int o) const { return origin + o - axis.before; }
  // The pixel at position `t` of a halo, wrapped, -1 if it is absent. Pixels of a circle have
  // neighbours up to the last one and `after`. Later positions are never read: they are clamped, so
  // that one subtraction wraps.
  __device__ int neighbour(int t) const {
    const Axis of_class = positions();
    if (axis.circular) t = min(t, of_class.keys - 1 + axis.after());
    const int key = of_class.key(t);
    return key < 0 ? -1 : axis.pixel_of_class(number, key);
  }
  // Whether some of the `count` positions of a halo from `first` on are absent.
  __device__ bool lacks(int first, int count) const {
    return !axis.circular && (first < 0 || first + count > positions().keys);
  }
  // Whether all are.
  __device__ bool lacks_all(int first, int count) const {
    return !axis.circular && (first + count <= 0 || first >= positions().keys);
  }
};

// A tile of the pixels of one class, in each dim.
struct Place {
  Line d, h, w;

  // `index` numbers classes, then tiles: neighbouring blocks read the same sectors of memory.
  __device__ Place(const Pattern& p, const Tile& tile, int index)
      : Place(p, tile, p.class_count(), index) {}

  // The pixel of a row of the tile in column 0, -1 beyond the grid.
  __device__ int row_start(const Tile& tile, int row) const {
    const int i = d.pixel(tile.row_d(row)), j = h.pixel(tile.row_h(row));
    return i < 0 || j < 0 ? -1 : (i * h.axis.size + j) * w.axis.size;
  }

 private:
  __device__ Place(const Pattern& p, const Tile& tile, int classes, int index)
      : Place(p, tile.origin(classes == 1 ? index : index / classes, p.length),
              classes == 1 ? 0 : index % classes) {}
  __device__ Place(const Pattern& p, const Extents& origin, int number)
      : d{p.d(), p.classes.d, number / p.classes.w / p.classes.h, origin.d},
        h{p.h(), p.classes.h, number / p.classes.w % p.classes.h, origin.h},
        w{p.w(), p.classes.w, number % p.classes.w, origin.w} {}
};

// How many tiles cover all classes of a pattern.
inline int64_t count_places(const Pattern& p, const Tile& tile) {
  return tile.count(p.length) * p.class_count();
}

}  // namespace circulant
