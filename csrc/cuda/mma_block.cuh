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

#include <type_traits>

#include <cuda_runtime.h>

#include "launch.h"
#include "mma_place.cuh"
#include "octets.cuh"
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

  // Starts to copy the halo of x and z.
  __device__ __forceinline__ void copy_halo(const T* x, int x_channels, const T* z, int z_channels,
                                            const MmaStep& step) const {
    by_kept_granule([&](auto granule) {
      const LineShare once(p.log_positions, p.halo.pixels);
#pragma unroll 1
      for (int i = 0; i < 2; ++i) {
        const int start = halo_start(step, i);
#pragma unroll 1
        for (int which = 0; which < 2; ++which) {
          const LineShare share = kKeeps ? once : LineShare(p.log_positions, p.halo.pixels);
          if (share.octet >= p.positions) continue;
          copy_line<decltype(granule)::value>(
              (which ? z : x) + start, which ? z_channels : x_channels, p.halo.pixels,
              halo_columns(step, i), share, halo(step.stage, which) + i * kLine);
        }
      }
    });
  }

  // Starts to copy a number of each pixel of the halo.
  __device__ __forceinline__ void copy_numbers(const float* x, const MmaStep& step,
                                               float* to) const {
#pragma unroll 1
    for (int i = opaque(threadIdx.x); i < p.step_numbers; i += kMmaThreads) {
      const int line = i / kOctet & 1, column = i / (2 * kOctet) * p.octet_step + i % kOctet;
      copy_async<4>(to + i, x + halo_start(step, line) + halo_columns(step, line)[column]);
    }
  }

  // Sets the channels that x and z lack to zero, in each stage.
  __device__ __forceinline__ void fill_channels(int x_channels, int z_channels) const {
#pragma unroll 1
    for (int i = 0; i < 2 * p.stages; ++i) {
      clear_channels<D>(halo(i >> 1, i & 1), 2 * p.positions, i & 1 ? z_channels : x_channels,
                        kMmaWarps);
    }
  }

  // The tile of x as left factors: the four 8 x 8 matrices of 16 channels.
  __device__ __forceinline__ void load_tile(const T* x, int channels,
                                            uint32_t (&left)[D / 16][4]) const {
    by_kept_granule([&](auto granule) {
      const LineShare share(p.log_across, p.tile.pixels);
#pragma unroll 1
      for (int line = 0; line < p.tile_lines; ++line) {
        copy_line<decltype(granule)::value>(x + tile_start(line), channels, p.tile.pixels,
                                            tile_columns(line), share, tile_memory(line));
      }
    });
    commit_copies();
    clear_channels<D>(shared(), 2 * kMmaWarps, channels, kMmaWarps);
    wait_copies<0>();
    __syncthreads();  // the tile is complete
    const T* const from = rows_of_octets(tile(0), kLine);
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
      const int* const columns = tile_columns(line) + of_octet * p.octet_step;
#pragma unroll 1
      for (int c = thread >> p.log_across; c < channels; c += kMmaThreads >> p.log_across) {
        const T* const from = tile_memory(line) + of_octet * kPair + c * kOctet;
        T* const to = y + c * p.tile.pixels + tile_start(line);
        if (p.granule == kOctet) {
          copy_pack<kOctet>(from, to + columns[0]);
        } else {
#pragma unroll 1
          for (int i = 0; i < kOctet && w + i < length.w; ++i) to[columns[i]] = from[i];
        }
      }
    }
  }

 private:
  // Where a line of the tile begins: with the tile of the first warp of its band.
  __device__ __forceinline__ T* tile_memory(int line) const {
    return shared() + (line / 2 << p.log_across) * kPair + line % 2 * kLine;
  }

  // Whether threads have registers to keep what is the same for all lines.
  static constexpr bool kKeeps = D < 128;

  // Calls f with the granule, or with 0, which stands for any.
  template <class F>
  __device__ __forceinline__ void by_kept_granule(const F& f) const {
    if constexpr (kKeeps) {
      by_granule(p.granule, f);
    } else {
      f(std::integral_constant<int, 0>());
    }
  }

  // A thread's share of each line, and how many values are before its first channel.
  struct LineShare : Share {
    int64_t from;

    __device__ __forceinline__ LineShare(int log_octets, int64_t pixels)
        : Share(log_octets, kMmaThreads), from(channel * pixels) {}
  };

  // Starts to copy this thread's share of a line of x, of which `columns` has the pixels.
  template <int granule>
  __device__ __forceinline__ void copy_line(const T* x, int channels, int64_t pixels,
                                            const int* columns, const LineShare& share,
                                            T* to) const {
    x += share.from;
    columns += share.octet * p.octet_step;
    to += share.octet * kPair + share.channel * kOctet;
    const auto copy = [&](auto any) {
      copy_octet<decltype(any)::value>(x, channels, pixels, share, to,
                                       [&](int i) { return columns[i]; });
    };
    if constexpr (granule == 0) {
      by_granule(p.granule, copy);
    } else {
      copy(std::integral_constant<int, granule>());
    }
  }
};

}  // namespace circulant
