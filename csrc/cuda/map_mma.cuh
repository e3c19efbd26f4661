// A block of the maps on tensor cores: its place in the grid, and copies of features to its shared
// memory. See map_mma.h.
#pragma once

#include <cuda_runtime.h>

#include "launch.h"
#include "map_mma.h"
#include "packed.cuh"
#include "warp.cuh"

namespace circulant {

// A dim without dilation, for the optimiser: it saves divisions.
__device__ __forceinline__ Axis undilated(Axis a) {
  a.dilation = 1;
  return a;
}

// The key at position j of a halo; where there is none, or none that a window meets, another one.
__device__ __forceinline__ int some_key(const Axis& a, int j) {
  if (!a.circular) return min(max(j, 0), a.keys - 1);
  j = min(max(j, -a.before), a.keys - 1 + a.after());
  return j < 0 ? j + a.keys : (j >= a.keys ? j - a.keys : j);
}
__device__ __forceinline__ bool has_key(const Axis& a, int j) {
  return a.circular || unsigned(j) < unsigned(a.keys);
}

// A row of the halo, and where it is in shared memory.
struct MapStep {
  int plane = 0, row = 0;  // of the halo, from the first one that the window reaches
  int stage = 0, index = 0;
  int d;  // the plane of the grid, or any if it does not exist

  __device__ __forceinline__ MapStep(const MapMmaPlan& p, int origin_d) {
    d = some_key(p.pattern.d(), origin_d - p.pattern.before.d);
  }
  __device__ __forceinline__ void advance(const MapMmaPlan& p, int origin_d) {
    ++index;
    stage = stage + 1 < p.stages ? stage + 1 : 0;
    if (++row < p.steps) return;
    row = 0;
    ++plane;
    d = some_key(p.pattern.d(), origin_d + plane - p.pattern.before.d);
  }
};

template <class T, int D>
struct MapBlock {
  static constexpr int kOctetValues = D * kMapOctet;

  const MapMmaPlan& p;
  Extents origin;  // the first pixel of the tile

  __device__ __forceinline__ explicit MapBlock(const MapMmaPlan& p, int tile) : p(p) {
    const int row = tile / p.tiles_across;
    origin = {row / p.tiles_down, row % p.tiles_down * p.tile_h, tile % p.tiles_across * p.tile_w};
  }

  // Of the thread: see warp.cuh.
  static __device__ __forceinline__ int lane() { return opaque(threadIdx.x) % 32; }
  static __device__ __forceinline__ int r() { return lane() / 4; }
  static __device__ __forceinline__ int t() { return lane() % 4; }
  // Of the warp: its first row and column in the tile.
  static __device__ __forceinline__ int warp() { return opaque(threadIdx.x) / 32; }
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
  __device__ __forceinline__ int first_column() const { return origin.w - p.margin * kMapOctet; }

  // Calls f(octet, channel, step) for this thread's octets of a row: its channels are `channel`,
  // channel + step, ... Eight threads have 128 bytes of shared memory without a gap.
  template <class F>
  __device__ __forceinline__ void each_octet(int octets, const F& f) const {
    const int part = opaque(threadIdx.x) / 8, log = p.log_positions;
    const int channel = first_channel(), step = blockDim.x >> log;
#pragma unroll 1
    for (int o = part & ((1 << log) - 1); o < octets; o += 1 << log) f(o, channel, step);
  }

  // The first channel of this thread in each_octet.
  __device__ __forceinline__ int first_channel() const {
    return (opaque(threadIdx.x) / 8 >> p.log_positions) * 8 + opaque(threadIdx.x) % 8;
  }

  // Starts to copy octets of each channel of a row, which begins at pixel `start`, from `column`
  // on. `x` is that of this thread's first channel.
  __device__ __forceinline__ void copy_row(const T* x, int channels, int64_t pixels, int start,
                                           int column, int n, const GranuleRange& granules,
                                           int octets, T* to) const {
    each_octet(octets, [&](int o, int channel, int step) {
      const T* const from = x + start;
      T* const at = to + o * kOctetValues + channel * kMapOctet;
      const int first = column + o * kMapOctet, count = channels - channel;
      if (p.granule == 8) copy_octets<8>(from, pixels, count, step, first, n, granules, at);
      if (p.granule == 4) copy_octets<4>(from, pixels, count, step, first, n, granules, at);
      if (p.granule == 2) copy_octets<2>(from, pixels, count, step, first, n, granules, at);
      if (p.granule == 1) copy_octets<1>(from, pixels, count, step, first, n, granules, at);
    });
  }

  // Starts to copy the row of the halo of a step.
  __device__ __forceinline__ void copy_halo(const T* x, int channels, const MapStep& step) const {
    const Pattern& pattern = p.pattern;
    const int h = some_key(pattern.h(), step_row(step));
    copy_row(x, channels, pattern.key_pixels(), (step.d * pattern.keys.h + h) * pattern.keys.w,
             first_column(), pattern.keys.w, p.halo_granules, p.positions, halo(step.stage));
  }
  // Whether the row of a step exists.
  __device__ __forceinline__ bool exists(const MapStep& step) const {
    return has_key(p.pattern.d(), step_plane(step)) && has_key(p.pattern.h(), step_row(step));
  }

  // Sets the channels that octets lack to zero.
  __device__ __forceinline__ void fill_channels(T* to, int octets, int channels) const {
    const int missing = (D - channels) * kMapOctet;
    if (missing == 0) return;
#pragma unroll 1
    for (int o = warp(); o < octets; o += p.warps) {
#pragma unroll 1
      for (int i = lane(); i < missing; i += 32)
        to[o * kOctetValues + channels * kMapOctet + i] = T(0);
    }
  }

  // Waits for this thread's copies of the oldest step.
  __device__ __forceinline__ void wait_for_step() const {
    if (p.stages == 3) {
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
  }

  // Bits o and 16 + o: whether columns 2t and 2t + 1 of octet first + o of a warp's row of the halo
  // lie in the window of pixel `m` of the warp, and with `present` exist.
  __device__ __forceinline__ uint32_t columns(int m, int first, bool present) const {
    const Axis w = p.pattern.w();
    const int at = first_column() + column();
    int low = m + p.margin * kMapOctet - w.before, end = low + w.window;
    if (present && !w.circular) low = max(low, -at), end = min(end, w.keys - at);
    const int from = first * kMapOctet + 2 * t();
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
    return (uint32_t(1) << min(divide_up(max(column, 0), kMapOctet), kWordOctets)) - 1;
  }

  template <int granule>
  static __device__ __forceinline__ void copy_octets(const T* x, int64_t pixels, int count,
                                                     int step, int column, int n,
                                                     const GranuleRange& granules, T* to) {
    int at[kMapOctet / granule];
#pragma unroll
    for (int i = 0; i < kMapOctet / granule; ++i) {
      const int j = min(max(column + i * granule, granules.low), granules.high);
      at[i] = j < 0 ? j + n : (j >= n ? j - n : j);
    }
    const int64_t x_step = step * pixels;
#pragma unroll 1
    for (int c = 0; c < count; c += step, x += x_step, to += step * kMapOctet) {
      if constexpr (granule == 1) {  // smaller than asynchronous copies are
        T octet[kMapOctet];
#pragma unroll
        for (int i = 0; i < kMapOctet; ++i) octet[i] = x[at[i]];
        store_packed(to, octet);
      } else {
#pragma unroll
        for (int i = 0; i < kMapOctet / granule; ++i)
          copy_async<granule * sizeof(T)>(to + i * granule, x + at[i]);
      }
    }
  }
};

}  // namespace circulant
