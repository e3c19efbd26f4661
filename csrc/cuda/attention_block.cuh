// What the kernels of fused attention and of its gradients have in common.
//
// A block owns a tile of 128 pixels of one group and walks over the window, a set of units (runs of
// 8 taps) at a time. For a set it computes one number per pixel and tap, from features of the tile
// and features of the halo, the pixels that the tile meets in these units; then it adds the halo's
// features, weighted by these numbers, to sums per pixel and channel. Both kinds of features are
// brought to shared memory once per set, wrapping on the way; the numbers never leave the block.
//
// A thread owns a run of 4 neighbouring pixels, the same in each of the 8 warps. While the numbers
// are computed, a warp owns one unit: 4 x 8 numbers per thread, in registers. While they are used,
// it owns every eighth channel: 4 x channels / 8 sums per thread.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "launch.h"
#include "packed.cuh"
#include "strips.cuh"
#include "tile.cuh"

namespace circulant {

constexpr int kAttentionWarps = 8, kAttentionThreads = 32 * kAttentionWarps;
constexpr int kAttentionRun = 4, kLogAttentionRun = 2;
constexpr int kLogAttentionPixels = 5 + kLogAttentionRun;
constexpr int kAttentionPixels = 1 << kLogAttentionPixels;

// A warp brings `kDepth` channels to shared memory at a time, for its sums `kPasses` times.
template <class A>
constexpr int kSumDepth = sizeof(A) == 8 ? 2 : 4;
constexpr int kSumPasses = 2;
template <class A>
constexpr int kSumChannels = kSumPasses * kSumDepth<A>;
// Channels of a block's sums, and those of them in shared memory at a time.
template <class A>
constexpr int kBlockChannels = kSumChannels<A> * kAttentionWarps;
template <class A>
constexpr int kPassChannels = kSumDepth<A> * kAttentionWarps;

// With float32 two blocks fit the registers of a multiprocessor.
template <class A>
constexpr int kAttentionBlocks = sizeof(A) == 8 ? 1 : 2;

// Chosen once per launch; see choose_attention.
struct AttentionPlan {
  Pattern pattern;
  Units units;
  Tile tile;
  int groups;
  int64_t pixels;
  int channel_blocks;  // blocks that share a tile, with sums of other channels
  int halo_pitch;
  int chunk;                    // channels in shared memory while numbers are computed
  int partial, table, staging;  // where these begin in shared memory, in bytes
  int shared;                   // bytes of shared memory
};

// Chooses tile, units of a set and channels of a chunk for numbers that are sums over at most
// `channels` and results of `result_channels`. `bytes` is the size of the type that is summed in.
AttentionPlan choose_attention(const Pattern& pattern, int64_t groups, int channels,
                               int result_channels, int bytes);

// What does not change from pixel to pixel of a set, in shared memory: in registers there is no
// room for it beside the numbers and the sums.
struct AttentionTable {
  int pixel[kAttentionPixels];  // that each thread owns, a run each; -1 beyond the grid
  // Of a set:
  int halo_h, halo_rows, halo_w;
  int first_w;                     // the column, not wrapped, at which the halo begins
  int unit_halo[kAttentionWarps];  // where a unit begins in the halo
  int unit_taps[kAttentionWarps];  // its taps in the window; 0 for none
  // The pixel at which each row of the halo begins comes after the rest.
};

// Features of the tile and of the halo whose product over the channels is computed.
template <class T>
struct AttentionProduct {
  const T *tile, *halo;
  int channels;
  bool distance;
};

// The first channel of a block's sums.
template <class A>
__device__ __forceinline__ int first_channel(const AttentionPlan& p) {
  return fresh(blockIdx.x) % p.channel_blocks * kBlockChannels<A>;
}

// A block's shared memory and a thread's place in it.
template <class A>
struct AttentionBlock {
  const AttentionPlan& p;

  // [together * kUnitTaps][kAttentionPixels]
  __device__ __forceinline__ A* numbers() const {
    return reinterpret_cast<A*>(dynamic_shared_memory);
  }
  // [channel][kAttentionPixels] of the tile and [channel][halo_rows][halo_pitch], or only these
  __device__ __forceinline__ A* staged() const {
    return reinterpret_cast<A*>(dynamic_shared_memory + p.staging);
  }
  // A number per pixel of each warp, which the others read; and two that a thread keeps, since it
  // has no registers for them.
  __device__ __forceinline__ A* partial(int warp) const {
    return reinterpret_cast<A*>(dynamic_shared_memory + p.partial) + warp * kAttentionPixels +
           mine();
  }
  __device__ __forceinline__ A* own(int which) const {
    return partial((1 + which) * kAttentionWarps + warp());
  }
  __device__ __forceinline__ AttentionTable& table() const {
    return *reinterpret_cast<AttentionTable*>(dynamic_shared_memory + p.table);
  }
  __device__ __forceinline__ int* halo_start() const {
    return reinterpret_cast<int*>(dynamic_shared_memory + p.table + sizeof(AttentionTable));
  }

  static __device__ __forceinline__ void clear(A* own, A value) {
    A values[kAttentionRun];
#pragma unroll
    for (int i = 0; i < kAttentionRun; ++i) values[i] = value;
    store_run(own, values);
  }

  static __device__ __forceinline__ int lane() { return fresh(threadIdx.x) % 32; }
  static __device__ __forceinline__ int warp() { return fresh(threadIdx.x) / 32; }
  // Where a thread's pixels are among those of a tile.
  static __device__ __forceinline__ int mine() { return lane() * kAttentionRun; }
  // The taps in the window that this thread's warp has numbers for.
  __device__ __forceinline__ int my_taps() const {
    return warp() < p.units.together ? table().unit_taps[warp()] : 0;
  }
  // Where the halo of a thread's first pixel and the first tap of its box begins. Neighbouring
  // threads take neighbouring rows of the tile.
  __device__ __forceinline__ int my_halo() const {
    const int row = lane() & (p.tile.rows() - 1);
    return ((row >> p.tile.log_h) * table().halo_h + (row & (p.tile.h() - 1))) * p.halo_pitch +
           (lane() >> (p.tile.log_d + p.tile.log_h) << kLogAttentionRun);
  }
  // Where shared memory has a thread's numbers for a tap of its warp's unit.
  __device__ __forceinline__ A* kept(int tap) const {
    return numbers() + (warp() * kUnitTaps + tap) * kAttentionPixels + mine();
  }

  // Fills what the table has of the tile. Nobody may read it before the next barrier.
  __device__ __forceinline__ void tabulate_tile() const {
    const Extents& size = p.pattern.size;
    const Extents origin = p.tile.origin(blockIdx.x / p.channel_blocks, size);
    for (int i = threadIdx.x; i < kAttentionPixels; i += kAttentionThreads) {
      const int thread = i >> kLogAttentionRun, row = thread & (p.tile.rows() - 1);
      const int d = origin.d + (row >> p.tile.log_h), h = origin.h + (row & (p.tile.h() - 1));
      const int w = origin.w + (thread >> (p.tile.log_d + p.tile.log_h) << kLogAttentionRun) +
                    (i & (kAttentionRun - 1));
      table().pixel[i] =
          d < size.d && h < size.h && w < size.w ? (d * size.h + h) * size.w + w : -1;
    }
  }

  // Fills what the table has of a set. Nobody may read it before the next barrier.
  __device__ __forceinline__ void tabulate(int set) const {
    const Extents &size = p.pattern.size, &window = p.pattern.window;
    const Extents origin = p.tile.origin(fresh(blockIdx.x) / p.channel_blocks, size);
    Units units = p.units;
    units.in_row = fresh(units.in_row);
    units.in_plane = fresh(units.in_plane);
    const Box box(units, set);
    const int halo_h = box.halo_h(p.tile), halo_rows = box.halo_rows(p.tile);
    for (int r = threadIdx.x; r < halo_rows; r += kAttentionThreads) {
      const int d = origin.d + box.a - window.d / 2 + r / halo_h;
      const int h = origin.h + box.b - window.h / 2 + r % halo_h;
      halo_start()[r] =
          (halo_coordinate(d, size.d, window.d) * size.h + halo_coordinate(h, size.h, window.h)) *
          size.w;
    }
    if (static_cast<int>(threadIdx.x) < p.units.together) {
      const Unit unit(units, set * units.together + threadIdx.x);
      table().unit_halo[threadIdx.x] =
          ((unit.a - box.a) * halo_h + unit.b - box.b) * p.halo_pitch + unit.tap - box.tap;
      table().unit_taps[threadIdx.x] = unit.valid(window) ? min(kUnitTaps, window.w - unit.tap) : 0;
    }
    if (threadIdx.x == 0) {
      table().halo_h = halo_h;
      table().halo_rows = halo_rows;
      table().halo_w = p.tile.w() + min(box.taps, window.w - box.tap) - 1;
      table().first_w = origin.w + box.tap - window.w / 2;
    }
  }

  // Brings the tile of one channel to shared memory, zero beyond the grid; a warp does this
  // together.
  template <class T>
  __device__ __forceinline__ void stage_tile(const T* from, A* to) const {
    copy_at_once<T>(
        0, kAttentionPixels / 32, 1,
        [&](int i) {
          const int pixel = table().pixel[i * 32 + lane()];
          return pixel >= 0 ? from[pixel] : T(0);
        },
        [&](int i, T number) { to[i * 32 + lane()] = A(number); });
  }

  // Brings the halo of one channel to shared memory; a warp does this together.
  template <class T>
  __device__ __forceinline__ void stage_halo(const T* from, A* to) const {
    const int halo_rows = table().halo_rows, halo_w = table().halo_w;
#pragma unroll 1
    for (int j = lane(); j < halo_w; j += 32) {
      const T* const column =
          from + halo_coordinate(table().first_w + j, p.pattern.size.w, p.pattern.window.w);
      copy_at_once<T>(
          0, halo_rows, 1, [&](int r) { return column[halo_start()[r]]; },
          [&](int r, T number) { to[r * p.halo_pitch + j] = A(number); });
    }
  }

  // number[i][t] = sum_c x[c, i] y[c, i + t], or sum_c (x[c, i] - y[c, i + t])^2, over the pixels
  // of this thread and the taps of its warp's unit. Beyond the window the numbers are anything.
  template <class T>
  __device__ __forceinline__ void multiply(const AttentionProduct<T>& f, int g,
                                           A (&number)[kAttentionRun][kUnitTaps]) const {
#pragma unroll
    for (int i = 0; i < kAttentionRun; ++i) {
#pragma unroll
      for (int tap = 0; tap < kUnitTaps; ++tap) number[i][tap] = 0;
    }
    A* const halos = staged() + p.chunk * kAttentionPixels;
#pragma unroll 1
    for (int first = 0; first < f.channels; first += p.chunk) {
      const int some = min(p.chunk, f.channels - first);
      __syncthreads();  // what was staged before has been read; the tables are complete
      const int halo = table().halo_rows * p.halo_pitch;
#pragma unroll 1
      for (int c = warp(); c < some; c += kAttentionWarps) {
        const int64_t at = (int64_t(fresh(g)) * f.channels + first + c) * p.pixels;
        stage_tile(f.tile + at, staged() + c * kAttentionPixels);
        stage_halo(f.halo + at, halos + c * halo);
      }
      __syncthreads();  // the chunk is complete
      if (my_taps() == 0) continue;
      const A* const from_tile = staged() + mine();
      const A* const from_halo = halos + my_halo() + table().unit_halo[warp()];
      if (f.distance) {
        multiply_chunk<true>(from_tile, from_halo, halo, some, number);
      } else {
        multiply_chunk<false>(from_tile, from_halo, halo, some, number);
      }
    }
  }

  template <bool distance>
  static __device__ __forceinline__ void multiply_chunk(const A* x, const A* y, int halo,
                                                        int channels,
                                                        A (&number)[kAttentionRun][kUnitTaps]) {
#pragma unroll 1
    for (int c = 0; c < channels; ++c) {
      A a[kAttentionRun], b[kAttentionRun + kUnitTaps];
      load_run(x, a);
      load_run(y, b);
      x += kAttentionPixels;
      y += halo;
#pragma unroll
      for (int i = 0; i < kAttentionRun; ++i) {
#pragma unroll
        for (int tap = 0; tap < kUnitTaps; ++tap) {
          if (distance) {
            const A difference = a[i] - b[i + tap];
            number[i][tap] += difference * difference;
          } else {
            number[i][tap] += a[i] * b[i + tap];
          }
        }
      }
    }
  }

  // Writes a thread's numbers for its warp's unit to shared memory.
  __device__ __forceinline__ void keep(const A (&number)[kAttentionRun][kUnitTaps]) const {
#pragma unroll
    for (int tap = 0; tap < kUnitTaps; ++tap) {
      A one[kAttentionRun];
#pragma unroll
      for (int i = 0; i < kAttentionRun; ++i) one[i] = number[i][tap];
      store_run(kept(tap), one);
    }
  }

  // sum[c][i] += sum_t number[i][t] z[c, i + t] over all taps of the set, for the channels of z,
  // which has `channels` in each group, that this warp owns: of those of the block its number, and
  // every eighth after it.
  template <class T>
  __device__ __forceinline__ void add_weighted(const T* z, int g, int channels,
                                               A (&sum)[kSumChannels<A>][kAttentionRun]) const {
#pragma unroll
    for (int pass = 0; pass < kSumPasses; ++pass) {
      const int first = first_channel<A>(p) + pass * kPassChannels<A>;
      if (first >= channels) break;
      const int some = min(kPassChannels<A>, channels - first);
      __syncthreads();  // what was staged before has been read
      const int halo = table().halo_rows * p.halo_pitch;
#pragma unroll 1
      for (int c = warp(); c < some; c += kAttentionWarps)
        stage_halo(z + (int64_t(fresh(g)) * channels + first + c) * p.pixels, staged() + c * halo);
      __syncthreads();  // the halo and the numbers are complete
      const A* const from = staged() + warp() * halo + my_halo();
      const int my_channels = divide_up(some - warp(), kAttentionWarps);
#pragma unroll 1
      for (int half = 0; half < 2 * p.units.together; ++half) {
        // Half a unit at a time: for more there are no registers.
        constexpr int taps = kUnitTaps / 2;
        const int tap = half % 2 * taps, count = table().unit_taps[half / 2] - tap;
        if (count <= 0) continue;
        const A* const from_numbers = numbers() + half * taps * kAttentionPixels + mine();
        const A* from_halo = from + table().unit_halo[half / 2] + tap;
        A number[taps][kAttentionRun];
#pragma unroll
        for (int t = 0; t < taps; ++t) {
          if (t < count) load_run(from_numbers + t * kAttentionPixels, number[t]);
        }
#pragma unroll
        for (int c = 0; c < kSumDepth<A>; ++c) {
          if (c >= my_channels) break;
          A pixel[kAttentionRun + taps];
          load_run(from_halo, pixel);
          from_halo += kAttentionWarps * halo;
          A(&to)[kAttentionRun] = sum[pass * kSumDepth<A> + c];
          // Taps beyond the window are skipped, not multiplied by zero: 0 * inf is not 0.
          if (count >= taps) {
#pragma unroll
            for (int t = 0; t < taps; ++t) {
#pragma unroll
              for (int i = 0; i < kAttentionRun; ++i) to[i] += number[t][i] * pixel[i + t];
            }
          } else {
#pragma unroll
            for (int t = 0; t < taps - 1; ++t) {
              if (t >= count) break;
#pragma unroll
              for (int i = 0; i < kAttentionRun; ++i) to[i] += number[t][i] * pixel[i + t];
            }
          }
        }
      }
    }
  }

  // The sum over the warps, in their order, of the first number that a thread keeps. All have kept
  // it before the last barrier of add_weighted.
  __device__ __forceinline__ void add_over_warps(A (&number)[kAttentionRun]) const {
#pragma unroll
    for (int i = 0; i < kAttentionRun; ++i) number[i] = 0;
#pragma unroll 1
    for (int other = 0; other < kAttentionWarps; ++other) {
      A theirs[kAttentionRun];
      load_run(partial(kAttentionWarps + other), theirs);
#pragma unroll
      for (int i = 0; i < kAttentionRun; ++i) number[i] += theirs[i];
    }
  }

  // Writes the results for a thread's pixels, those of them that are in the grid; `to` is where
  // the one of the first pixel of the grid goes.
  template <class T>
  __device__ __forceinline__ void store(T* to, const A (&result)[kAttentionRun]) const {
    const int* const pixel = table().pixel + mine();
    if (p.pattern.size.w % kAttentionRun == 0) {
      if (pixel[0] >= 0) store_run(to + pixel[0], result);
    } else {
#pragma unroll
      for (int i = 0; i < kAttentionRun; ++i) {
        if (pixel[i] >= 0) to[pixel[i]] = T(result[i]);
      }
    }
  }
};

}  // namespace circulant
