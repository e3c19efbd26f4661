// A block of fused attention on tensor cores: its shared memory, and copies to it.
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

#include "launch.h"
#include "mma_place.cuh"
#include "packed.cuh"
#include "warp.cuh"

namespace circulant {

template <class T, int D>
struct MmaBlock : MmaPlace {
  static constexpr int kLine = D * kOctet, kPair = 2 * kLine;  // values of an octet

  using MmaPlace::MmaPlace;

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

  // Starts to copy a line of `octets` of each channel. Columns that exist end at `end`, which is in
  // shared memory.
  __device__ __forceinline__ void copy_line(const T* x, int channels, const MmaGrid& grid,
                                            const int& end, const Line& line, int octets,
                                            int log_octets, T* to) const {
    // Eight threads write 128 bytes without a gap.
    const int thread = opaque(threadIdx.x), octet = thread / 8 & ((1 << log_octets) - 1);
    const int first = (thread / 8 >> log_octets) * 8 + thread % 8;
    if (octet >= octets) return;
    const int column = line.column + octet * p.octet_step;
    x += first * grid.pixels + line.start;
    to += octet * kPair + first * kOctet;
    const int count = channels - first, step = kMmaThreads >> log_octets;
    if (p.granule == 8) copy_octets<8>(x, count, step, grid, column, to);
    if (p.granule == 4) copy_octets<4>(x, count, step, grid, column, to);
    if (p.granule == 2) copy_octets<2>(x, count, step, grid, column, to);
    if (p.granule == 1) copy_pixels(x, count, step, grid, column, end, to);
  }

  // Starts to copy the halo of x and z.
  __device__ __forceinline__ void copy_halo(const T* x, int x_channels, const T* z, int z_channels,
                                            const MmaStep& step) const {
#pragma unroll 1
    for (int i = 0; i < 2; ++i) {
      const Line line = halo_line<(D > 64)>(step, i);
#pragma unroll 1
      for (int which = 0; which < 2; ++which) {
        copy_line(which ? z : x, which ? z_channels : x_channels, p.halo, of_class().column_end,
                  line, p.positions, p.log_positions, halo(step.stage, which) + i * kLine);
      }
    }
  }

  // Starts to copy a number of each pixel of the halo.
  __device__ __forceinline__ void copy_numbers(const float* x, const MmaStep& step,
                                               float* to) const {
#pragma unroll 1
    for (int i = opaque(threadIdx.x); i < p.step_numbers; i += kMmaThreads) {
      const Line line = halo_line<(D > 64)>(step, i / kOctet & 1);
      const int w = line.column + i / (2 * kOctet) * p.octet_step + i % kOctet;
      copy_async<4>(to + i, x + line.start + column(wrapped(w, p.halo.length.w, columns())));
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
      copy_line(x, channels, p.tile, of_class().length.w, tile_line(line), p.across, p.log_across,
                tile_memory(line));
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
    const Extents& length = of_class().length;
    if (origin.d >= length.d) return;
#pragma unroll 1
    for (int line = 0; line < p.tile_lines; ++line) {
      const int h = origin.h + line * p.line_h;
      const int w = origin.w + of_octet * p.octet_step + line * p.line_w;
      if (h >= length.h || w >= length.w) continue;
      const int start = row_start(p.tile, of_class().tile, origin.d, h);
#pragma unroll 1
      for (int c = thread >> p.log_across; c < channels; c += kMmaThreads >> p.log_across) {
        const T* const from = tile_memory(line) + of_octet * kPair + c * kOctet;
        T* const to = y + c * p.tile.pixels + start;
        if (p.granule == kOctet) {
          *reinterpret_cast<Pack<T, kOctet>*>(to + w) =
              *reinterpret_cast<const Pack<T, kOctet>*>(from);
        } else if (!p.is_dilated) {
          for (int i = 0; i < kOctet && w + i < length.w; ++i) to[w + i] = from[i];
        } else {
#pragma unroll 1
          for (int i = 0; i < kOctet && w + i < length.w; ++i) to[p.stride_w.at(w + i)] = from[i];
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
  static __device__ __forceinline__ void copy_octets(const T* x, int count, int step,
                                                     const MmaGrid& grid, int column, T* to) {
    int at[kOctet / granule];
#pragma unroll
    for (int i = 0; i < kOctet / granule; ++i)
      at[i] = wrapped(column + i * granule, grid.length.w, grid.granules);
    const int64_t x_step = step * grid.pixels;
#pragma unroll 1
    for (int c = 0; c < count; c += step, x += x_step, to += step * kOctet) {
#pragma unroll
      for (int i = 0; i < kOctet / granule; ++i)
        copy_async<granule * sizeof(T)>(to + i * granule, x + at[i]);
    }
  }

  // The same pixel by pixel, which is less than asynchronous copies move.
  __device__ __forceinline__ void copy_pixels(const T* x, int count, int step, const MmaGrid& grid,
                                              int first, const int& end, T* to) const {
    const int n = grid.length.w;
    const auto pixel = [&](int i) { return column(wrapped(i, n, {grid.granules.low, end - 1})); };
    int at[kOctet] = {pixel(first)};
    const int last = at[0] + (kOctet - 1) * p.stride_w.dilation;
    if (first >= 0 && first + kOctet <= min(n, end) &&
        (p.stride_w.turn == 0 || last < p.stride_w.size)) {
#pragma unroll
      for (int i = 1; i < kOctet; ++i) at[i] = at[0] + i * p.stride_w.dilation;
    } else {  // at an end of the grid, or where the dilated circle begins again
#pragma unroll
      for (int i = 1; i < kOctet; ++i) at[i] = pixel(first + i);
    }
    const int64_t x_step = step * grid.pixels;
#pragma unroll 1
    for (int c = 0; c < count; c += step, x += x_step, to += step * kOctet) {
      T pixels[kOctet];
#pragma unroll
      for (int i = 0; i < kOctet; ++i) pixels[i] = x[at[i]];
      store_packed(to, pixels);
    }
  }
};

}  // namespace circulant
