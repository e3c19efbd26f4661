// The two halves of a step of fused attention: products of features, and sums weighted by them.
//
// After the first half the registers of a block hold the products of all strips of the step. The
// kernel turns them into weights, in shared memory. In the second half each warp reads all weights
// for its own channels.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include <cuda_runtime.h>

#include "attention_block.cuh"
#include "products.cuh"

namespace circulant {

// The largest score before the first: finite, since -infinity would turn scores of -infinity into
// NaN instead of weight zero.
template <class A>
constexpr A kLowest = A(-FLT_MAX);
template <>
constexpr double kLowest<double> = -DBL_MAX;

// Raises `largest` to the largest scores that the warps have stored.
template <class A>
__device__ __forceinline__ void raise_to_warps(const AttentionBlock<A>& block,
                                               A (&largest)[kThreadPixels]) {
#pragma unroll 1
  for (int warp = 0; warp < kAttentionWarps; ++warp) {
    A of_warp[kThreadPixels];
    load_packed(block.warp_largest(warp), of_warp);
#pragma unroll
    for (int i = 0; i < kThreadPixels; ++i) largest[i] = max(largest[i], of_warp[i]);
  }
}

// Stages features only.
struct Nothing {
  __device__ __forceinline__ void operator()() const {}
};

// Features whose product over the channels is computed.
template <class T>
struct Operands {
  const T *tile, *halo;
  int channels;
  bool distance;
};

// product[i][t] = sum_c x[c, i] y[c, i + t], or sum_c (x[c, i] - y[c, i + t])^2 for the distance,
// over the pixels of this thread and the taps of its warp's strip. Products beyond the window are
// unspecified. The next chunk of channels is copied while the products of this one are computed.
// stage_more() is called once; what it copies to shared memory is complete at the end.
template <class T, class A, class StageMore = Nothing>
__device__ __forceinline__ void compute_products(const AttentionBlock<A>& block,
                                                 const Operands<T>& f, int g,
                                                 A (&product)[kThreadPixels][kStripTaps],
                                                 const StageMore& stage_more = {}) {
  const AttentionPlan& p = block.p;
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) {
#pragma unroll
    for (int tap = 0; tap < kStripTaps; ++tap) product[i][tap] = 0;
  }
  // The first chunk is copied in the same loop, so that the code is there once.
#pragma unroll 1
  for (int first = -p.chunk, at = 1; first < f.channels; first += p.chunk, at ^= 1) {
    const int count = min(p.chunk, f.channels - first), next = first + p.chunk,
              next_count = min(p.chunk, f.channels - next);
    if (first >= 0) {
      block.template finish_halos<T>(block.staged_chunk(at) + kTilePixels, count,
                                     block.channel_pitch());
    }
    __syncthreads();  // the chunk and the tables are complete; the staging before has been read
    const int pitch = opaque(block.channel_pitch());  // one number in the loop of the products
#pragma unroll 1
    for (int c = block.warp(); c < next_count; c += kAttentionWarps) {
      const int64_t channel = int64_t(opaque(g)) * f.channels + next + c;
      A* const to = block.staged_chunk(at ^ 1) + c * pitch;
      block.start_tile(f.tile + channel * p.pixels, to);
      block.start_halo(f.halo + channel * p.halo_pixels, to + kTilePixels);
    }
    if (first < 0) {
      stage_more();
      continue;
    }
    if (block.warp_taps() == 0) continue;
    const A* const x = block.staged_chunk(at) + block.tile_pixel();
    const A* const y = block.staged_chunk(at) + kTilePixels + block.thread_halo() +
                       block.table().strip_halo[block.warp()];
    if (f.distance) {
      add_products<true>(x, pitch, y, pitch, count, product);
    } else {
      add_products<false>(x, pitch, y, pitch, count, product);
    }
  }
}

// Sets `entry` to `value` where the pixel of the halo is absent.
template <class A>
__device__ __forceinline__ void mask_absent(const AttentionBlock<A>& block, A value,
                                            A (&entry)[kThreadPixels][kStripTaps]) {
  if (!block.table().bounds.lacks || block.warp_taps() == 0) return;
  const unsigned present = block.present();
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) {
#pragma unroll
    for (int tap = 0; tap < kStripTaps; ++tap) {
      if (!(present >> (i + tap) & 1)) entry[i][tap] = value;
    }
  }
}

// Writes a thread's weights for its warp's strip to shared memory.
template <class A>
__device__ __forceinline__ void store_weights(const AttentionBlock<A>& block,
                                              const A (&weight)[kThreadPixels][kStripTaps]) {
#pragma unroll
  for (int tap = 0; tap < kStripTaps; ++tap) {
    A of_tap[kThreadPixels];
#pragma unroll
    for (int i = 0; i < kThreadPixels; ++i) of_tap[i] = weight[i][tap];
    store_packed(block.thread_weights(tap), of_tap);
  }
}

// The first channel of a pass of the sums.
template <class A>
__device__ __forceinline__ int pass_channel(const AttentionBlock<A>& block, int pass) {
  return block.first_channel() + pass * kPassChannels<A>;
}

// Starts to copy the halo of a pass, after a barrier: the staging before has been read.
template <class T, class A>
__device__ __forceinline__ void start_pass(const AttentionBlock<A>& block, const T* z, int g,
                                           int channels, int pass) {
  const int first = pass_channel(block, pass), count = min(kPassChannels<A>, channels - first),
            halo = block.halo_size();
#pragma unroll 1
  for (int c = block.warp(); c < count; c += kAttentionWarps) {
    block.start_halo(z + (int64_t(opaque(g)) * channels + first + c) * block.p.halo_pixels,
                     block.staged() + c * halo);
  }
}

// sum[c][i] += sum_t weight[t, i] z[c, i + t] over all taps of the step. z has `channels` in each
// group; the channels c of warp w are the block's first one plus w, w + 8, w + 16, ... The first
// pass has been started.
template <class T, class A>
__device__ __forceinline__ void add_weighted_halo(const AttentionBlock<A>& block, const T* z, int g,
                                                  int channels,
                                                  A (&sum)[kWarpChannels<A>][kThreadPixels]) {
  const AttentionPlan& p = block.p;
#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass) {
    const int first = pass_channel(block, pass);
    if (first >= channels) break;
    const int count = min(kPassChannels<A>, channels - first);
    if (pass > 0) {
      __syncthreads();  // the halo of the pass before has been read
      start_pass(block, z, g, channels, pass);
    }
    const int halo = block.halo_size();
    block.template finish_halos<T>(block.staged(), count, halo);
    __syncthreads();  // the halo and the weights are complete
    const A* const from = block.staged() + block.warp() * halo + block.thread_halo();
    const int warp_channels = divide_up(count - block.warp(), kAttentionWarps);
#pragma unroll 1
    for (int half = 0; half < 2 * p.strips.per_step; ++half) {
      // Half a strip at a time, to limit register pressure.
      constexpr int taps = kStripTaps / 2;
      const int tap = half % 2 * taps, left = block.table().strip_taps[half / 2] - tap;
      if (left <= 0) continue;
      const A* const weights = block.weights() + half * taps * kTilePixels + block.tile_pixel();
      const A* from_halo = from + block.table().strip_halo[half / 2] + tap;
      A weight[taps][kThreadPixels];
#pragma unroll
      for (int t = 0; t < taps; ++t) load_packed(weights + t * kTilePixels, weight[t]);
#pragma unroll
      for (int c = 0; c < kWarpPassChannels<A>; ++c) {
        if (c >= warp_channels) break;
        A neighbours[kThreadPixels + taps];
        load_packed(from_halo, neighbours);
        from_halo += kAttentionWarps * halo;
        add_weighted(weight, neighbours, left, sum[pass * kWarpPassChannels<A> + c]);
      }
    }
  }
}

}  // namespace circulant
