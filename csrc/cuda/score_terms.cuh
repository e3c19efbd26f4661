// The terms of scores in a block of fused attention, and the sums that their gradients consist of.
//
// Kernels with terms are compiled apart from those without, for which nothing is done here. They
// stage the terms of a step with the first channels of its features, and add them where absent keys
// are masked.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/constants.h"
#include "attention_block.cuh"
#include "score_terms.h"
#include "warp.cuh"

namespace circulant {

// Where the terms of a step are in shared memory: those of the offsets, then those of the keys, in
// the halo or, where the halo are queries, in the tile.
template <class A, bool has_terms>
struct BlockTerms {
  const AttentionBlock<A>& block;
  const ScoreTerms<A>& given;
  bool queries_halo;

  // Copies the terms of a step. Called by all lanes of a warp.
  __device__ __forceinline__ void stage(int step, int g) const {
    if (!has_terms) return;
    if (given.bias != nullptr) start_bias(step, given.bias_of(g));
    if (given.key_bias == nullptr) return finish_copies<A, A>();
    const A* const from = given.key_bias_of(g);
    queries_halo ? block.stage_tile(from, keys()) : block.stage_halo(from, keys());
  }

  // Adds the terms to scores, both in units of log 2. Scores beyond the window become unspecified.
  __device__ __forceinline__ void add_to(A (&score)[kThreadPixels][kStripTaps]) const {
    if (!has_terms || block.warp_taps() == 0) return;
    if (given.bias != nullptr) {
      A of_tap[kStripTaps];
      load_packed(bias() + block.warp() * kStripTaps, of_tap);
      each([&](int i, int tap) { score[i][tap] += of_tap[tap] * A(kLog2E); });
    }
    if (given.key_bias == nullptr) return;
    if (queries_halo) {
      A of_pixel[kThreadPixels];
      load_packed(keys() + block.tile_pixel(), of_pixel);
      each([&](int i, int tap) { score[i][tap] += of_pixel[i] * A(kLog2E); });
    } else {
      A of_neighbour[kThreadPixels + kStripTaps];
      load_packed(keys() + block.thread_halo() + block.table().strip_halo[block.warp()],
                  of_neighbour);
      each([&](int i, int tap) { score[i][tap] += of_neighbour[i + tap] * A(kLog2E); });
    }
  }

  // The sums over the tile of a group, if this block makes them; see write_offset_sums.
  __device__ __forceinline__ A* offset_sums(const ScoreTermSums<A>& sums, int g) const {
    if (!has_terms || sums.offsets == nullptr || block.first_channel() > 0) return nullptr;
    return sums.offsets_of(given, block.p.groups, g, blockIdx.x / block.p.channel_blocks);
  }

 private:
  __device__ __forceinline__ A* bias() const {
    return reinterpret_cast<A*>(dynamic_shared_memory + block.p.terms);
  }
  __device__ __forceinline__ A* keys() const { return bias() + kStepBiases; }

  // Starts to copy the biases of a step; zero beyond the window.
  __device__ __forceinline__ void start_bias(int step, const A* from) const {
    const Strips strips = block.strips();
    const Extents& window = block.p.pattern.window;
#pragma unroll 1
    for (int t = block.lane(); t < strips.per_step * kStripTaps; t += 32) {
      const Strip strip(strips, step * strips.per_step + t / kStripTaps);
      const int tap = strip.tap + t % kStripTaps;
      const int o = (strip.a * window.h + strip.b) * window.w + tap;
      if (strip.exists(window) && tap < window.w) {
        start_copy(bias() + t, from + (queries_halo ? given.offsets - 1 - o : o));
      } else {
        bias()[t] = 0;
      }
    }
  }

  // f(i, tap) for the pixels of a thread and the taps of a strip.
  template <class F>
  static __device__ __forceinline__ void each(const F& f) {
#pragma unroll
    for (int i = 0; i < kThreadPixels; ++i) {
#pragma unroll
      for (int tap = 0; tap < kStripTaps; ++tap) f(i, tap);
    }
  }
};

// Zeros for the offsets of steps that are skipped, because no key of theirs exists. Before the next
// barrier.
template <class A>
__device__ __forceinline__ void clear_offset_sums(const AttentionBlock<A>& block, A* to) {
  if (!block.p.pattern.is_bounded()) return;
  const int offsets = static_cast<int>(block.p.pattern.offsets());
  for (int o = threadIdx.x; o < offsets; o += kAttentionThreads) to[o] = 0;
}

// to[o] = the sum of x over the pixels of the tile, for the offsets o of this warp's strip of a
// step. Changes x. Called by all lanes of a warp.
template <class A>
__device__ __forceinline__ void write_offset_sums(const AttentionBlock<A>& block, int step,
                                                  A (&x)[kThreadPixels][kStripTaps], A* to) {
  // Beyond the grid x is unspecified.
  const int* const pixel = block.table().pixel + block.tile_pixel();
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) {
    const bool exists = pixel[i] >= 0;
#pragma unroll
    for (int tap = 0; tap < kStripTaps; ++tap) {
      const A value = exists ? x[i][tap] : A(0);
      x[0][tap] = i == 0 ? value : x[0][tap] + value;
    }
  }
  // Lanes exchange halves of the taps that they have left, then add what they have.
  int mine = 0;
#pragma unroll
  for (int left = kStripTaps / 2, mask = 16; mask > 0; left /= 2, mask /= 2) {
    const bool upper = (block.lane() & mask) != 0;
    if (left > 0) {
#pragma unroll
      for (int tap = 0; tap < left; ++tap) {
        const A sent = upper ? x[0][tap] : x[0][tap + left];
        const A kept = upper ? x[0][tap + left] : x[0][tap];
        x[0][tap] = kept + from_lane_xor(sent, mask);
      }
      if (upper) mine += left;
    } else {
      x[0][0] += from_lane_xor(x[0][0], mask);
    }
  }
  constexpr int lanes = 32 / kStripTaps;
  if (block.lane() % lanes != 0 || mine >= block.warp_taps()) return;
  const Strips strips = block.strips();
  const Extents& window = block.p.pattern.window;
  const Strip strip(strips, step * strips.per_step + block.warp());
  to[(strip.a * window.h + strip.b) * window.w + strip.tap + mine] = x[0][0];
}

}  // namespace circulant
