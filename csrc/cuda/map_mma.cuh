// A block of the maps on tensor cores: its place in the grid, and copies of features to its shared
// memory. See map_mma.h.
#pragma once

#include <cuda_runtime.h>

#include "launch.h"
#include "map_mma.h"
#include "octets.cuh"

namespace circulant {

// A dim without dilation, for the optimiser: it saves divisions.
__device__ __forceinline__ Axis undilated(Axis a) {
  a.dilation = 1;
  return a;
}

// Whether there is a key at position j of the halo.
__device__ __forceinline__ bool has_key(const Axis& a, int j) {
  return a.circular || unsigned(j) < unsigned(a.keys);
}

// A row of the halo, and where it is in shared memory.
struct MapStep {
  int plane = 0, row = 0;  // of the halo, from the first one that the window reaches
  int stage = 0, index = 0;
  int d;  // the plane of the grid, or any if it does not exist

  __device__ __forceinline__ MapStep(const MapMmaPlan& p, int origin_d) {
    d = plane_of(p, origin_d);
  }
  __device__ __forceinline__ void advance(const MapMmaPlan& p, int origin_d) {
    ++index;
    stage = stage + 1 < p.stages ? stage + 1 : 0;
    if (++row < p.steps) return;
    row = 0;
    ++plane;
    d = plane_of(p, origin_d);
  }

 private:
  __device__ __forceinline__ int plane_of(const MapMmaPlan& p, int origin_d) const {
    return wrapped(origin_d + plane - p.pattern.before.d, p.pattern.keys.d, p.planes_present);
  }
};

template <class T, int D>
struct MapBlock : ThreadPlace {
  static constexpr int kOctetValues = D * kOctet;

  const MapMmaPlan& p;
  Extents origin;  // the first pixel of the tile

  __device__ __forceinline__ explicit MapBlock(const MapMmaPlan& p, int tile) : p(p) {
    const int row = tile / p.tiles_across;
    origin = {row / p.tiles_down, row % p.tiles_down * p.tile_h, tile % p.tiles_across * p.tile_w};
  }

  // Of the warp: its first row and column in the tile.
  __device__ __forceinline__ int row() const { return (warp() >> p.log_across) * kMapRows; }
  __device__ __forceinline__ int column() const {
    return (warp() & ((1 << p.log_across) - 1)) * kMapPixels;
  }

  // The features of a stage.
  __device__ __forceinline__ T* halo(int stage) const {
    return reinterpret_cast<T*>(dynamic_shared_memory + stage * p.stage);
  }
  // The positions, in their dims, of the plane, the row and the first column of a step.
  __device__ __forceinline__ int step_plane(const MapStep& step) const {
    return origin.d + step.plane - p.pattern.before.d;
  }
  __device__ __forceinline__ int step_row(const MapStep& step) const {
    return origin.h + step.row - p.pattern.before.h;
  }
  __device__ __forceinline__ int first_column() const { return origin.w - p.margin * kOctet; }

  // What this thread copies of each 2^log_positions octets of a row.
  __device__ __forceinline__ Share share() const {
    Share own(p.log_positions, blockDim.x);
    own.step = opaque(own.step);  // or loops compute it again in each round
    return own;
  }
  // Calls f(octet, share) for this thread's octets of a row.
  template <class F>
  __device__ __forceinline__ void each_octet(int octets, const F& f) const {
    const Share own = share();
#pragma unroll 1
    for (int o = own.octet; o < octets; o += 1 << p.log_positions) f(o, own);
  }

  // Starts to copy octets, from `column` on, of a row of n pixels of x, the first of which is
  // `start`. `x` is that of this thread's first channel.
  __device__ __forceinline__ void copy_row(const T* x, int channels, int64_t pixels, int start,
                                           int column, int n, const Limits& granules, int octets,
                                           T* to) const {
    each_octet(octets, [&](int o, const Share& share) {
      const T* const from = x + start;
      T* const at = to + o * kOctetValues + share.channel * kOctet;
      const int first = column + o * kOctet;
      const auto pixel_of = [&](int i) { return wrapped(first + i, n, granules); };
      by_granule(p.granule, [&](auto granule) {
        copy_octet<decltype(granule)::value>(from, channels, pixels, share, at, pixel_of);
      });
    });
  }

  // Starts to copy the row of the halo of a step.
  __device__ __forceinline__ void copy_halo(const T* x, int channels, const MapStep& step) const {
    const Pattern& pattern = p.pattern;
    const int h = wrapped(step_row(step), pattern.keys.h, p.rows_present);
    copy_row(x, channels, pattern.key_pixels(), (step.d * pattern.keys.h + h) * pattern.keys.w,
             first_column(), pattern.keys.w, p.halo_granules, p.positions, halo(step.stage));
  }
  // Whether the row of a step exists.
  __device__ __forceinline__ bool exists(const MapStep& step) const {
    return has_key(p.pattern.d(), step_plane(step)) && has_key(p.pattern.h(), step_row(step));
  }

  // Bits o and 16 + o: whether columns 2t and 2t + 1 of octet first + o of a warp's row of the halo
  // lie in the window of pixel `m` of the warp, and with `present` exist.
  __device__ __forceinline__ uint32_t columns(int m, int first, bool present) const {
    const Axis w = p.pattern.w();
    const int at = first_column() + column();
    int low = m + p.margin * kOctet - w.before, end = low + w.window;
    if (present && !w.circular) low = max(low, -at), end = min(end, w.keys - at);
    const int from = first * kOctet + 2 * t();
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      word |= (octets_before(end - from - i) & ~octets_before(low - from - i)) << (16 * i);
    }
    return word;
  }

 private:
  // A bit per octet of which the first column lies before `column`.
  static __device__ __forceinline__ uint32_t octets_before(int column) {
    return (uint32_t(1) << min(divide_up(max(column, 0), kOctet), kWordOctets)) - 1;
  }
};

}  // namespace circulant
