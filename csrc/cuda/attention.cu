// Fused attention: y_i = sum_j exp(S_ij - lse_i) v_j and lse_i = log sum_j exp(S_ij), with
// S = scale * similarity(q, k) never stored.
//
// attention_plan.h has the figure of grid, block, warp and lane. The tile are queries, the halo
// keys and values. The weights of a step are exponentials of its scores relative to the largest
// score so far; when that grows, sums and totals shrink by the same factor (Milakov and Gimelshein,
// Online normalizer calculation for softmax, 2018). Blocks for other channels of v compute the same
// scores again. Terms of the scores are added in score_terms.cuh.
//
// No atomics and a fixed order of additions: results are bitwise reproducible. float16 and bfloat16
// are converted when staged and summed in float32. Every window and channel count; grids up to
// kMaxPixels.
//
// Floors for float32 on an H200 (67 TFLOP/s, 4.3 TB/s): 4 G C N K operations, 4 (4 G C N + G N)
// bytes.
//   README problem (2, 64, 128, 96, window 15)   1.42 GFLOP   21 us    25 MB    6 us
//   8, 64, 256, 256, window 15                   30.2 GFLOP   451 us   539 MB   125 us
//   8, 64, 256, 256, window 35                   164 GFLOP    2.45 ms  539 MB   125 us
// For the scores a thread issues 32 FMA and 4 loads of 16 bytes per channel and strip, which take
// shared memory 16 cycles per warp where the FMA take 8; for the sums 12 loads per 64 FMA, 48
// cycles to 16. The halo is 1.3 to 2.5 times the tile and staged twice per step. Taps are computed
// in eights: 15 of 16, 35 of 40.
#include <cmath>

#include "../common/constants.h"
#include "attention_epilogue.cuh"
#include "attention_mainloop.cuh"
#include "attention_mma.h"
#include "kernels.h"
#include "score_terms.cuh"

namespace circulant {
namespace {

// Turns the products of a step into weights, in shared memory, and rescales totals and sums to the
// largest score so far. Calls start_sums() once the staging of the products has been read.
template <class A, class Terms, class StartSums>
__device__ __forceinline__ void online_softmax(const AttentionBlock<A>& block, A log2_scale,
                                               const Terms& terms,
                                               A (&score)[kThreadPixels][kStripTaps],
                                               A (&sum)[kWarpChannels<A>][kThreadPixels],
                                               const StartSums& start_sums) {
  const int taps = block.warp_taps();
  A before[kThreadPixels], largest[kThreadPixels];
  load_packed(block.largest(), before);
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) {
#pragma unroll
    for (int tap = 0; tap < kStripTaps; ++tap) score[i][tap] *= log2_scale;
  }
  terms.add_to(score);
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) {
#pragma unroll
    for (int tap = 0; tap < kStripTaps; ++tap) {
      if (tap >= taps) score[i][tap] = A(-INFINITY);
    }
  }
  mask_absent(block, A(-INFINITY), score);
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) {
    largest[i] = before[i];
#pragma unroll
    for (int tap = 0; tap < kStripTaps; ++tap) largest[i] = max(largest[i], score[i][tap]);
  }
  store_packed(block.warp_largest(block.warp()), largest);
  __syncthreads();  // the largest score of each warp is complete; the chunks have been read
  start_sums();
  raise_to_warps(block, largest);
  A total[kThreadPixels];
  load_packed(block.total(), total);
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) {
    const A shrink = std::exp2(before[i] - largest[i]);
    total[i] *= shrink;
#pragma unroll
    for (int c = 0; c < kWarpChannels<A>; ++c) sum[c][i] *= shrink;
#pragma unroll
    for (int tap = 0; tap < kStripTaps; ++tap) {
      score[i][tap] = std::exp2(score[i][tap] - largest[i]);
      total[i] += score[i][tap];
    }
  }
  store_packed(block.total(), total);
  store_packed(block.largest(), largest);
  if (taps > 0) store_weights(block, score);
}

// Divides the sums by their totals, and writes y and lse. With terms, a query may have no key: its
// total is 0, and its lse -infinity.
template <bool has_terms, class T, class A>
__device__ __forceinline__ void write_results(const AttentionBlock<A>& block, T* y, A* lse, int g,
                                              int channels,
                                              A (&sum)[kWarpChannels<A>][kThreadPixels]) {
  const int64_t N = block.p.pixels;
  A total[kThreadPixels], inverse[kThreadPixels];
  load_total(block, total);
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) inverse[i] = A(1) / total[i];
  const int first = block.first_channel() + block.warp();
#pragma unroll
  for (int c = 0; c < kWarpChannels<A>; ++c) {
    const int channel = first + c * kAttentionWarps;
    if (channel >= channels) break;
#pragma unroll
    for (int i = 0; i < kThreadPixels; ++i) {
      // Zero even where the values of absent keys are infinite.
      sum[c][i] = has_terms && total[i] == 0 ? A(0) : sum[c][i] * inverse[i];
    }
    store_pixels(block, y + (int64_t(g) * channels + channel) * N, sum[c]);
  }
  if (first > 0) return;
  A result[kThreadPixels];
  load_packed(block.largest(), result);
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) result[i] = (result[i] + std::log2(total[i])) * A(kLn2);
  store_pixels(block, lse + g * N, result);
}

template <class T, bool has_terms>
__global__ void __launch_bounds__(kAttentionThreads, kResidentBlocks<accumulate_t<T>>)
    attention_kernel(const Operands<T> scores, const T* __restrict__ v, T* __restrict__ y,
                     accumulate_t<T>* __restrict__ lse, const AttentionShape shape,
                     const AttentionPlan p, const ScoreTerms<accumulate_t<T>> given) {
  using A = accumulate_t<T>;
  const AttentionBlock<A> block{p};
  block.tabulate_tile();

  for (int g = blockIdx.z; g < p.groups; g += gridDim.z) {
    A sum[kWarpChannels<A>][kThreadPixels] = {};
    __syncthreads();  // the statistics have been read
    fill(block.total(), A(0));
    fill(block.largest(), kLowest<A>);
#pragma unroll 1
    for (int step = 0; step < p.strips.steps(); ++step) {
      if (block.is_empty(step)) continue;
      __syncthreads();  // the table has been read
      block.tabulate_step(step);
      A score[kThreadPixels][kStripTaps];
      const BlockTerms<A, has_terms> terms{block, given, false};
      compute_products(block, scores, g, score, [&] {
        if (block.warp() == 0) terms.stage(step, g);
      });
      online_softmax(block, A(shape.log2_scale), terms, score, sum,
                     [&] { start_pass(block, v, g, shape.value_channels, 0); });
      add_weighted_halo(block, v, g, shape.value_channels, sum);
    }
    write_results<has_terms>(block, y, lse, g, shape.value_channels, sum);
  }
}

}  // namespace

template <class T>
void attention(const T* q, const T* k, const T* v, T* y, accumulate_t<T>* lse,
               [[maybe_unused]] accumulate_t<T>* scratch, const ScoreTerms<accumulate_t<T>>& terms,
               const AttentionProblem& problem, cudaStream_t stream) {
  if constexpr (is_half<T>) {
    if (uses_mma(problem, terms.bias != nullptr)) {
      return attention_mma(q, k, v, y, lse, scratch, terms, problem, stream);
    }
  }
  const char* op = terms.any() ? "biased_attention" : "attention";
  const AttentionShape& shape = problem.shape;
  const AttentionPlan p =
      plan_attention(op, problem.pattern, problem.groups, shape.channels, shape.value_channels,
                     sizeof(accumulate_t<T>), terms.any());
  const int64_t blocks = count_tiles(p.pattern, p.tile) * p.channel_blocks;
  launch({op, blocks, p.groups, kAttentionThreads, size_t(p.shared), stream},
         terms.any() ? attention_kernel<T, true> : attention_kernel<T, false>,
         Operands<T>{q, k, shape.channels, shape.distance}, v, y, lse, shape, p, terms);
}

#define CIRCULANT_INSTANTIATE(T)                                                                \
  template void attention(const T*, const T*, const T*, T*, accumulate_t<T>*, accumulate_t<T>*, \
                          const ScoreTerms<accumulate_t<T>>&, const AttentionProblem&,          \
                          cudaStream_t);
CIRCULANT_INSTANTIATE(c10::Half)
CIRCULANT_INSTANTIATE(c10::BFloat16)
CIRCULANT_INSTANTIATE(float)
CIRCULANT_INSTANTIATE(double)

}  // namespace circulant
