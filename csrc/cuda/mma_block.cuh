// A block of fused attention on tensor cores: its place in the grid, and its shared memory.
//
// In shared memory an octet of both lines of a band is [line][D channels][8 pixels]:
//
//   tile     [warp][line][channel][8]    before the mainloop, and for the results
//   halo     [stage][x, z][octet][line][channel][8]
//   numbers  [stage][number][octet][line][8]            float32, beside the features
//
// So the rows of the 8 x 8 matrices that a warp loads are 128 bytes without a gap: they meet each
// bank of shared memory once.
#pragma once

#include <cuda_runtime.h>

#include "attention_mma.h"
#include "launch.h"
#include "mma_step.cuh"
#include "packed.cuh"
#include "warp.cuh"

namespace circulant {

// The coordinate of a position of the halo in a dim of n pixels. Positions beyond the halo of the
// grid are in no window; they are clamped, so that one addition wraps.
__device__ __forceinline__ int wrapped(int i, int n, const MmaLimits& limits) {
  i = min(max(i, limits.low), limits.high);
  return i < 0 ? i + n : (i >= n ? i - n : i);
}

template <class T, int D>
struct MmaBlock {
  static constexpr int kLine = D * kOctet, kPair = 2 * kLine;  // values of an octet

  const MmaPlan& p;
  Extents origin;  // the first pixel of the tile

  __device__ __forceinline__ explicit MmaBlock(const MmaPlan& p) : p(p) {
    const int row = blockIdx.x / p.tiles_across;
    origin = {row / p.tiles_down, row % p.tiles_down * p.tile_h,
              int(blockIdx.x) % p.tiles_across * p.tile_w};
  }

  // Of the thread: see warp.cuh.
  static __device__ __forceinline__ int lane() { return opaque(threadIdx.x) % 32; }
  static __device__ __forceinline__ int r() { return lane() / 4; }
  static __device__ __forceinline__ int t() { return lane() % 4; }
  // Of the warp, in the tile.
  static __device__ __forceinline__ int warp() { return opaque(threadIdx.x) / 32; }
  __device__ __forceinline__ int band() const { return warp() >> p.log_across; }
  __device__ __forceinline__ int octet() const { return warp() & (p.across - 1); }

  // Where a line begins: the first pixel of its grid row, and its first column, not wrapped.
  struct Line {
    int start, column;
  };
  __device__ __forceinline__ Line line_at(int d, int h, int w, int line) const {
    d = d < 0 ? d + p.size.d : (d >= p.size.d ? d - p.size.d : d);
    h = wrapped(h + line * p.line_h, p.size.h, p.rows);
    return {(d * p.size.h + h) * p.size.w, w + line * p.line_w};
  }
  __device__ __forceinline__ int column_at(int w) const { return wrapped(w, p.size.w, p.columns); }
  __device__ __forceinline__ Line tile_line(int line) const {
    return line_at(origin.d, origin.h, origin.w, line);
  }
  __device__ __forceinline__ Line halo_line(const MmaStep& step, int line) const {
    return line_at(origin.d + step.plane - p.reach.d, origin.h + 2 * step.band - p.reach.h,
                   origin.w + (step.chunk * p.span - p.margin) * p.octet_step, line);
  }

  // This thread's pixel in a line of its warp, row r of the octet; -1 beyond the grid.
  __device__ __forceinline__ int pixel(int line) const {
    const int h = origin.h + (2 * band() + line) * p.line_h;
    const int w = origin.w + octet() * p.octet_step + line * p.line_w + r();
    return h < p.size.h && w < p.size.w ? (origin.d * p.size.h + h) * p.size.w + w : -1;
  }
  // The same, or any pixel of the grid.
  __device__ __forceinline__ int some_pixel(int line) const { return max(pixel(line), 0); }

  // Whether this warp meets a band.
  __device__ __forceinline__ bool meets(const MmaStep& step) const {
    return unsigned(step.band - band()) <= unsigned(p.reach.h);
  }
  // Octets of a step that each warp meets in a line.
  __device__ __forceinline__ int octets(const MmaStep& step) const {
    return min(p.span, p.octets - step.chunk * p.span);
  }
  __device__ __forceinline__ MmaWindow window(const MmaStep& step) const {
    // In grids that are not flat, the lines of a band are `rows` and `rows` + 1 below the upper
    // pixel, `rows` - 1 and `rows` below the lower one.
    const int rows = 2 * (step.band - band()) - p.reach.h;
    const unsigned width = 2 * p.reach.w + 1;
    return {(step.chunk * p.span - p.margin) * p.octet_step + 2 * t() - r() + p.reach.w,
            p.octet_step,
            p.line_w,
            width,
            rows + p.line_h > p.reach.h ? 0 : width,
            rows - p.line_h < -p.reach.h ? 0 : width};
  }

  static __device__ __forceinline__ T* shared() {
    return reinterpret_cast<T*>(dynamic_shared_memory);
  }
  // A line of this warp's tile.
  static __device__ __forceinline__ T* tile(int line) {
    return shared() + warp() * kPair + line * kLine;
  }
  // The halo of x (0) or z (1) in a stage, from the first octet of the block or of this warp on.
  __device__ __forceinline__ T* halo(int stage, int which) const {
    return shared() + (stage * 2 + which) * p.half;
  }
  __device__ __forceinline__ const T* warp_halo(int stage, int which) const {
    return halo(stage, which) + octet() * kPair;
  }
  // The same for its numbers.
  __device__ __forceinline__ float* numbers(int stage, int which, int count) const {
    return reinterpret_cast<float*>(dynamic_shared_memory + p.numbers) +
           (stage * count + which) * p.step_numbers;
  }
  __device__ __forceinline__ const float* warp_numbers(int stage, int which, int count) const {
    return numbers(stage, which, count) + octet() * 2 * kOctet + 2 * t();
  }

  // Starts to copy a line of `octets` of each channel.
  __device__ __forceinline__ void copy_line(const T* x, int channels, const Line& line, int octets,
                                            int log_octets, T* to) const {
    // Eight threads write 128 bytes without a gap.
    const int thread = opaque(threadIdx.x), octet = thread / 8 & ((1 << log_octets) - 1);
    const int first = (thread / 8 >> log_octets) * 8 + thread % 8;
    if (octet >= octets) return;
    const int column = line.column + octet * p.octet_step;
    x += first * p.pixels + line.start;
    to += octet * kPair + first * kOctet;
    const int count = channels - first, step = kMmaThreads >> log_octets;
    if (p.granule == 8) copy_octets<8>(x, count, step, column, to);
    if (p.granule == 4) copy_octets<4>(x, count, step, column, to);
    if (p.granule == 2) copy_octets<2>(x, count, step, column, to);
    if (p.granule == 1) copy_octets<1>(x, count, step, column, to);
  }

  // Starts to copy the halo of x and z.
  __device__ __forceinline__ void copy_halo(const T* x, int x_channels, const T* z, int z_channels,
                                            const MmaStep& step) const {
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {
      copy_line(i < 2 ? x : z, i < 2 ? x_channels : z_channels, halo_line(step, i & 1), p.positions,
                p.log_positions, halo(step.stage, i >> 1) + (i & 1) * kLine);
    }
  }

  // Starts to copy a number of each pixel of the halo.
  __device__ __forceinline__ void copy_numbers(const float* x, const MmaStep& step,
                                               float* to) const {
#pragma unroll 1
    for (int i = opaque(threadIdx.x); i < p.step_numbers; i += kMmaThreads) {
      const Line line = halo_line(step, i / kOctet & 1);
      const int column = line.column + i / (2 * kOctet) * p.octet_step + i % kOctet;
      const MmaLimits limits{-p.reach.w, p.size.w - 1 + p.reach.w};
      copy_async<4>(to + i, x + line.start + wrapped(column, p.size.w, limits));
    }
  }

  // Sets the channels that x and z lack to zero, in each stage.
  __device__ __forceinline__ void fill_channels(int x_channels, int z_channels) const {
#pragma unroll 1
    for (int i = 0; i < 2 * p.stages; ++i) {
      fill_lines(halo(i >> 1, i & 1), 2 * p.positions, i & 1 ? z_channels : x_channels);
    }
  }

  // The tile of x as left factors: the four 8 x 8 matrices of 16 channels.
  __device__ __forceinline__ void load_tile(const T* x, int channels,
                                            uint32_t (&left)[D / 16][4]) const {
#pragma unroll 1
    for (int line = 0; line < p.tile_lines; ++line) {
      copy_line(x, channels, tile_line(line), p.across, p.log_across, tile_memory(line));
    }
    commit_copies();
    fill_lines(shared(), 2 * kMmaWarps, channels);
    wait_copies<0>();
    __syncthreads();  // the tile is complete
    const int l = lane();
    const T* const from = tile(l / 8 % 2) + (l / 16 * 8 + l % 8) * kOctet;
#pragma unroll
    for (int c = 0; c < D / 16; ++c) load_matrices<true>(left[c], from + c * 16 * kOctet);
    __syncthreads();  // the tile has been read
  }

  // Writes a result by way of shared memory, so that pixels leave in octets.
  __device__ __forceinline__ void store_tile(T* y, int channels,
                                             const float (&sum)[D / 8][4]) const {
    __syncthreads();  // the halo, or the result before, has been read
#pragma unroll
    for (int line = 0; line < 2; ++line) {
      T* const to = tile(line) + 2 * t() * kOctet + r();
#pragma unroll
      for (int c = 0; c < D / 8; ++c) {
        to[c * 8 * kOctet] = T(sum[c][line * 2]);
        to[(c * 8 + 1) * kOctet] = T(sum[c][line * 2 + 1]);
      }
    }
    __syncthreads();  // the result is complete
    const int thread = threadIdx.x, of_octet = thread & (p.across - 1);
#pragma unroll 1
    for (int line = 0; line < p.tile_lines; ++line) {
      const int h = origin.h + line * p.line_h;
      const int w = origin.w + of_octet * p.octet_step + line * p.line_w;
      if (h >= p.size.h || w >= p.size.w) continue;
      const int pixel = (origin.d * p.size.h + h) * p.size.w + w;
#pragma unroll 1
      for (int c = thread >> p.log_across; c < channels; c += kMmaThreads >> p.log_across) {
        const T* const from = tile_memory(line) + of_octet * kPair + c * kOctet;
        T* const to = y + c * p.pixels + pixel;
        if (p.granule == kOctet) {
          *reinterpret_cast<Pack<T, kOctet>*>(to) = *reinterpret_cast<const Pack<T, kOctet>*>(from);
        } else {
          for (int i = 0; i < kOctet && w + i < p.size.w; ++i) to[i] = from[i];
        }
      }
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

 private:
  // The tile of the first warp of a band, in a line of the tile.
  __device__ __forceinline__ T* tile_memory(int line) const {
    return shared() + (line / 2 << p.log_across) * kPair + line % 2 * kLine;
  }

  // Sets the channels from `channels` on of some lines to zero.
  static __device__ __forceinline__ void fill_lines(T* to, int lines, int channels) {
    const int missing = (D - channels) * kOctet;
    if (missing == 0) return;
#pragma unroll 1
    for (int line = warp(); line < lines; line += kMmaWarps) {
#pragma unroll 1
      for (int i = lane(); i < missing; i += 32) to[line * kLine + channels * kOctet + i] = T(0);
    }
  }

  template <int granule>
  __device__ __forceinline__ void copy_octets(const T* x, int count, int step, int column,
                                              T* to) const {
    int at[kOctet / granule];
#pragma unroll
    for (int i = 0; i < kOctet / granule; ++i) at[i] = column_at(column + i * granule);
    const int64_t x_step = step * p.pixels;
#pragma unroll 1
    for (int c = 0; c < count; c += step, x += x_step, to += step * kOctet) {
      if constexpr (granule == 1) {  // smaller than asynchronous copies are
        T pixels[kOctet];
#pragma unroll
        for (int i = 0; i < kOctet; ++i) pixels[i] = x[at[i]];
        store_packed(to, pixels);
      } else {
#pragma unroll
        for (int i = 0; i < kOctet / granule; ++i)
          copy_async<granule * sizeof(T)>(to + i * granule, x + at[i]);
      }
    }
  }
};

}  // namespace circulant
