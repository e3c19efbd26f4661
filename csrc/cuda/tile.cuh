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

// The coordinate, wrapped, of position `i` of a halo in a dim of n pixels; i >= -(w/2). Pixels of
// the grid have neighbours up to n - 1 + w/2. Later positions are never read: they are clamped, so
// that one subtraction wraps.
__device__ __forceinline__ int halo_coordinate(int i, int n, int w) {
  const int last = n - 1 + w / 2;
  i = i < last ? i : last;
  return i < 0 ? i + n : (i >= n ? i - n : i);
}

}  // namespace circulant
