// The grid cut into tiles: boxes of pixels, one for each block of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include <cuda_runtime.h>

#include "../common/geometry.h"

namespace circulant {

// More pixels than this and the 32-bit coordinates that the kernels compute in could overflow: a
// tile and its halo may reach past the grid by less than the size of the grid.
constexpr int64_t kMaxPixels = int64_t(1) << 30;

struct Extents {
  int d, h, w;
};

// A Geometry of at most kMaxPixels pixels.
struct Pattern {
  Extents size;
  Extents window;

  explicit Pattern(const Geometry& g)
      : size{int(g.size[0]), int(g.size[1]), int(g.size[2])},
        window{int(g.window[0]), int(g.window[1]), int(g.window[2])} {}

  __host__ __device__ int pixels() const { return size.d * size.h * size.w; }
  __host__ __device__ int64_t offsets() const { return int64_t(window.d) * window.h * window.w; }
};

// What an op works on.
struct Problem {
  int64_t groups;
  int64_t channels;
  Pattern pattern;
};

__host__ __device__ inline int divide_up(int a, int b) { return (a + b - 1) / b; }

// A box of pixels whose sizes are powers of two, numbered row-major.
struct Tile {
  int log_d, log_h, log_w;

  __host__ __device__ int d() const { return 1 << log_d; }
  __host__ __device__ int h() const { return 1 << log_h; }
  __host__ __device__ int w() const { return 1 << log_w; }
  __host__ __device__ int rows() const { return 1 << (log_d + log_h); }
  __host__ __device__ int pixels() const { return 1 << (log_d + log_h + log_w); }

  // How many such tiles cover a grid.
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

// The tile of 2^log_pixels pixels, in at most 2^log_rows rows of at least 2^log_w, for which
// cost(tile) * tile.count(size) is least. A negative cost excludes a tile; whether one is left is
// returned.
template <class Cost>
bool choose_tile(int log_pixels, int log_w, int log_rows, const Extents& size, const Cost& cost,
                 Tile* best) {
  double least = -1;
  const int most = std::min(log_rows, log_pixels - log_w);
  for (int log_d = 0; log_d <= most; ++log_d) {
    for (int log_h = 0; log_d + log_h <= most; ++log_h) {
      const Tile tile{log_d, log_h, log_pixels - log_d - log_h};
      const double one = cost(tile);
      if (one < 0) continue;
      const double all = one * static_cast<double>(tile.count(size));
      if (least < 0 || all < least) {
        least = all;
        *best = tile;
      }
    }
  }
  return least >= 0;
}

// The coordinate of the pixel at `i`, where i is between -w/2 and whatever a tile that starts in a
// dim of n pixels needs for its halo. Only positions up to n - 1 + w/2 are neighbours of pixels of
// the grid; those after it are read by nobody, and stand for the last of these so that one
// subtraction wraps them.
__device__ __forceinline__ int halo_coordinate(int i, int n, int w) {
  const int last = n - 1 + w / 2;
  i = i < last ? i : last;
  return i < 0 ? i + n : (i >= n ? i - n : i);
}

}  // namespace circulant
