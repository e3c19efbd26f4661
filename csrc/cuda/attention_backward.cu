// The gradients of fused attention, with the weights recomputed from the log-sum-exp.
//
// With P = exp(S - lse), dP_ij = dy_i . v_j and delta_i = dy_i . y_i:
//   dS = P (dP - delta), the gradient of the scores; times `scale`, that of the similarity,
//   dq_i = sum_j dS_ij k_j, dk_j = sum_i dS_ij q_i, dv_j = sum_i P_ij dy_i,
// and for the distance, dq_i -= q_i sum_j dS_ij and dk_j -= k_j sum_i dS_ij.
//
// attention_plan.h has the figure of grid, block, warp and lane. The pixels i that have j in their
// window are those in the transposed window of j. So one kernel makes all three, in one launch:
// blocks of one gradient run where those of the one before leave multiprocessors idle. Those of dv,
// which do least, are the last. Of the grid's z, the gradient is the major part.
//
//         tile      halo      products     weights     sums of the halo's
//   dq    queries   keys      dP, then S   dS          k
//   dk    keys      queries   dP, then S   dS          q      lse and delta are in the halo
//   dv    keys      queries   S            P           dy     lse is in the halo
//
// With terms of the scores (score_terms.h), the blocks of dq write the sums of dS over their tiles,
// those of dk the sums over queries: the gradients of the terms are sums of these.
//
// No atomics and a fixed order of additions: results are bitwise reproducible. float16 and bfloat16
// are converted when staged and summed in float32. Every window and channel count; grids up to
// kMaxPixels.
//
// dq and dk take three products each and dv two, 8 where the least is 5. Floors for float32 on an
// H200 (67 TFLOP/s, 4.3 TB/s) for these 5: 10 G C N K operations, 4 (8 G C N + 2 G N) bytes.
//   README problem (2, 64, 128, 96, window 15)   3.54 GFLOP   53 us    50 MB     12 us
//   8, 64, 256, 256, window 15                   75.5 GFLOP   1.13 ms  1.08 GB   251 us
//   8, 64, 256, 256, window 35                   411 GFLOP    6.13 ms  1.08 GB   251 us
#include <algorithm>
#include <cmath>

#include "../common/constants.h"
#include "attention_epilogue.cuh"
#include "attention_mainloop.cuh"
#include "attention_mma.h"
#include "attention_sums.h"
#include "kernels.h"
#include "score_terms.cuh"

namespace circulant {
namespace {

// A row of the table above.
template <class T>
struct Gradient {
  AttentionPlan plan;
  Operands<T> grad_weights;  // dP; not used for dv
  Operands<T> scores;        // S
  const T* summed;           // its halo, weighted
  T* result;
  int channels;                              // of `summed` and `result`
  bool queries_halo;                         // whether the halo, not the tile, are queries
  bool of_scores;                            // whether the weights are dS, not P
  ScoreTermSums<accumulate_t<T>> sums = {};  // written beside `result`
  int blocks = 0;                            // per group
};

constexpr int kGradients = 3;
template <class T>
struct Gradients {
  Gradient<T> of[kGradients];
};

// How many numbers lse and delta have each, of the queries of a step.
template <class T, class A>
__device__ __forceinline__ int query_count(const AttentionBlock<A>& block, const Gradient<T>& f) {
  return f.queries_halo ? block.halo_size() : kTilePixels;
}

// Copies lse, or delta, of the queries of a step. Called by all lanes of a warp.
template <class T, class A>
__device__ __forceinline__ void stage_queries(const AttentionBlock<A>& block, const Gradient<T>& f,
                                              const A* from, A* to) {
  f.queries_halo ? block.stage_halo(from, to) : block.stage_tile(from, to);
}

// Turns the products of a step into weights, in shared memory, where dP is before.
template <class T, class A, bool has_terms>
__device__ __forceinline__ void compute_weights(const AttentionBlock<A>& block,
                                                const Gradient<T>& f,
                                                const BlockTerms<A, has_terms>& terms,
                                                A* offset_sums, int step, A log2_scale,
                                                A (&score)[kThreadPixels][kStripTaps]) {
  const int taps = block.warp_taps();
  if (taps == 0) return;
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) {
#pragma unroll
    for (int tap = 0; tap < kStripTaps; ++tap) score[i][tap] *= log2_scale;
  }
  terms.add_to(score);
  mask_absent(block, A(-INFINITY), score);
  // The queries are the pixels of this thread, the same for each tap, or its neighbours.
  const A* const lse =
      block.pixel_numbers() + (f.queries_halo
                                   ? block.thread_halo() + block.table().strip_halo[block.warp()]
                                   : block.tile_pixel());
  const int tap_step = f.queries_halo, delta_at = query_count(block, f);
  A total[kThreadPixels];
  load_packed(block.total(), total);
#pragma unroll
  for (int tap = 0; tap < kStripTaps; ++tap) {
    A weight[kThreadPixels];
#pragma unroll
    for (int i = 0; i < kThreadPixels; ++i) {
      weight[i] = std::exp2(score[i][tap] - lse[i + tap * tap_step] * A(kLog2E));
    }
    if (f.of_scores) {
      A grad_weight[kThreadPixels];
      load_packed(block.thread_weights(tap), grad_weight);
#pragma unroll
      for (int i = 0; i < kThreadPixels; ++i) {
        weight[i] *= grad_weight[i] - lse[delta_at + i + tap * tap_step];
        total[i] += tap < taps ? weight[i] : A(0);
      }
    }
    store_packed(block.thread_weights(tap), weight);
    if (has_terms) {
#pragma unroll
      for (int i = 0; i < kThreadPixels; ++i) score[i][tap] = weight[i];
    }
  }
  store_packed(block.total(), total);
  if (has_terms && offset_sums != nullptr) write_offset_sums(block, step, score, offset_sums);
}

// Completes the sums, and writes the gradient.
template <class T, class A>
__device__ __forceinline__ void write_gradient(const AttentionBlock<A>& block, const Gradient<T>& f,
                                               const AttentionShape& shape, int g, A* key_sums,
                                               A (&sum)[kWarpChannels<A>][kThreadPixels]) {
  const bool subtract_total = f.of_scores && shape.distance;
  A total[kThreadPixels];
  if (subtract_total || key_sums != nullptr) load_total(block, total);
  const A scale = f.of_scores ? A(shape.scale) : A(1);
  const int first = block.first_channel() + block.warp();
  if (first == 0 && key_sums != nullptr) {
    store_pixels(block, key_sums + g * int64_t(block.p.pixels), total);
  }
#pragma unroll
  for (int c = 0; c < kWarpChannels<A>; ++c) {
    const int channel = first + c * kAttentionWarps;
    if (channel >= f.channels) break;
    const int64_t at = (int64_t(g) * f.channels + channel) * block.p.pixels;
#pragma unroll
    for (int i = 0; i < kThreadPixels; ++i) {
      const int pixel = block.table().pixel[block.tile_pixel() + i];
      if (subtract_total && pixel >= 0) sum[c][i] -= total[i] * A(f.scores.tile[at + pixel]);
      sum[c][i] *= scale;
    }
    store_pixels(block, f.result + at, sum[c]);
  }
}

template <class T, bool has_terms>
__global__ void __launch_bounds__(kAttentionThreads, kResidentBlocks<accumulate_t<T>>)
    attention_backward_kernel(const __grid_constant__ Gradients<T> gradients,
                              const accumulate_t<T>* __restrict__ lse,
                              const accumulate_t<T>* __restrict__ delta, const AttentionShape shape,
                              const ScoreTerms<accumulate_t<T>> given) {
  using A = accumulate_t<T>;
  const int launched_groups = gridDim.z / kGradients;
  const Gradient<T>& f = gradients.of[blockIdx.z / launched_groups];
  if (static_cast<int>(blockIdx.x) >= f.blocks) return;
  const AttentionPlan& p = f.plan;
  const AttentionBlock<A> block{p};
  const BlockTerms<A, has_terms> terms{block, given, f.queries_halo};
  block.tabulate_tile();

  for (int g = blockIdx.z % launched_groups; g < p.groups; g += launched_groups) {
    A sum[kWarpChannels<A>][kThreadPixels] = {};
    A* const offset_sums = terms.offset_sums(f.sums, g);
    __syncthreads();  // the totals have been read
    fill(block.total(), A(0));
    if (offset_sums != nullptr) clear_offset_sums(block, offset_sums);
    __syncthreads();  // the totals are complete, if no step follows
#pragma unroll 1
    for (int step = 0; step < p.strips.steps(); ++step) {
      if (block.is_empty(step)) continue;
      __syncthreads();  // the table has been read
      block.tabulate_step(step);
      // dP, which waits in shared memory, then S: one loop, so that the code is there once.
      A product[kThreadPixels][kStripTaps];
#pragma unroll 1
      for (int which = f.of_scores ? 0 : 1; which < 2; ++which) {
        const bool first = which == 0;
        compute_products(block,
                         Operands<T>{first ? f.grad_weights.tile : f.scores.tile,
                                     first ? f.grad_weights.halo : f.scores.halo,
                                     first ? f.grad_weights.channels : f.scores.channels,
                                     !first && f.scores.distance},
                         g, product, [&] {
                           if (first) return;
                           const int64_t query = g * (f.queries_halo ? p.halo_pixels : p.pixels);
                           A* const to = block.pixel_numbers();
                           if (block.warp() == 0) stage_queries(block, f, lse + query, to);
                           if (block.warp() == 1) {
                             stage_queries(block, f, delta + query, to + query_count(block, f));
                           }
                           if (block.warp() == 2) terms.stage(step, g);
                         });
        if (first && block.warp_taps() > 0) store_weights(block, product);
      }
      __syncthreads();  // the chunks have been read
      start_pass(block, f.summed, g, f.channels, 0);
      compute_weights(block, f, terms, offset_sums, step, A(shape.log2_scale), product);
      add_weighted_halo(block, f.summed, g, f.channels, sum);
    }
    write_gradient(block, f, shape, g, has_terms ? f.sums.keys : nullptr, sum);
  }
}

// The plan of a row of the table above.
template <class T>
AttentionPlan plan_gradient(const char* op, const AttentionProblem& problem, bool queries_halo,
                            bool of_scores, bool has_terms) {
  const int C = problem.shape.channels, C_v = problem.shape.value_channels;
  return plan_attention(op, queries_halo ? problem.pattern.transposed() : problem.pattern,
                        problem.groups, of_scores ? std::max(C, C_v) : C, of_scores ? C : C_v,
                        sizeof(accumulate_t<T>), has_terms);
}

}  // namespace

template <class T>
void attention_backward(const T* dy, const T* q, const T* k, const T* v, const T* y,
                        const accumulate_t<T>* lse, const accumulate_t<T>* dlse,
                        accumulate_t<T>* scratch, T* dq, T* dk, T* dv,
                        const ScoreTerms<accumulate_t<T>>& terms,
                        const ScoreTermSums<accumulate_t<T>>& sums, const AttentionProblem& problem,
                        cudaStream_t stream) {
  const bool has_terms = terms.any();
  const char* op = has_terms ? "biased_attention_backward" : "attention_backward";
  const AttentionShape& shape = problem.shape;
  const int64_t queries = problem.groups * problem.pattern.pixels();
  accumulate_t<T>* const delta = scratch;  // delta_i = sum_c dy[c, i] y[c, i] - dlse_i
  scratch += queries;
  if (has_terms || dlse != nullptr) {
    sum_deltas(op, dy, y, {lse, dlse, scratch}, delta, shape.value_channels, problem, stream);
    lse = scratch;
    scratch += queries;
  } else {
    sum_products(op, dy, y, delta, shape.value_channels, problem, stream);
  }
  if constexpr (is_half<T>) {
    if (uses_mma(problem, terms.bias != nullptr)) {
      return attention_mma_backward(dy, q, k, v, lse, delta, scratch, dq, dk, dv, terms, sums,
                                    problem, stream);
    }
  }
  const int C = shape.channels, C_v = shape.value_channels;
  const auto plan = [&](bool queries_halo, bool of_scores) {
    return plan_gradient<T>(op, problem, queries_halo, of_scores, has_terms);
  };
  const Operands<T> of_queries{q, k, C, shape.distance}, of_keys{k, q, C, shape.distance};
  Gradients<T> gradients{
      {{plan(false, true), {dy, v, C_v, false}, of_queries, k, dq, C, false, true},
       {plan(true, true), {v, dy, C_v, false}, of_keys, q, dk, C, true, true},
       {plan(true, false), {}, of_keys, dy, dv, C_v, true, false}}};
  gradients.of[0].sums = {sums.offsets, sums.tiles, nullptr};
  gradients.of[1].sums = {nullptr, 0, sums.keys};
  int64_t blocks = 0;
  size_t shared = 0;
  for (Gradient<T>& f : gradients.of) {
    const int64_t own = count_tiles(f.plan.pattern, f.plan.tile) * f.plan.channel_blocks;
    f.blocks = static_cast<int>(std::min<int64_t>(own, INT32_MAX));  // launch() refuses more
    blocks = std::max(blocks, own);
    shared = std::max(shared, size_t(f.plan.shared));
  }
  const int64_t launched_groups = std::min(problem.groups, kMaxGridGroups / kGradients);
  launch({op, blocks, kGradients * launched_groups, kAttentionThreads, shared, stream},
         has_terms ? attention_backward_kernel<T, true> : attention_backward_kernel<T, false>,
         gradients, lse, delta, shape, terms);
}

template <class T>
int64_t attention_tiles(const AttentionProblem& problem) {
  if constexpr (is_half<T>) {
    if (uses_mma(problem, true)) return attention_mma_tiles(problem);
  }
  const AttentionPlan p = plan_gradient<T>("biased_attention_backward", problem, false, true, true);
  return count_tiles(p.pattern, p.tile);
}

#define CIRCULANT_INSTANTIATE(T)                                                                \
  template void attention_backward(                                                             \
      const T*, const T*, const T*, const T*, const T*, const accumulate_t<T>*,                 \
      const accumulate_t<T>*, accumulate_t<T>*, T*, T*, T*, const ScoreTerms<accumulate_t<T>>&, \
      const ScoreTermSums<accumulate_t<T>>&, const AttentionProblem&, cudaStream_t);            \
  template int64_t attention_tiles<T>(const AttentionProblem&);
CIRCULANT_INSTANTIATE(c10::Half)
CIRCULANT_INSTANTIATE(c10::BFloat16)
CIRCULANT_INSTANTIATE(float)
CIRCULANT_INSTANTIATE(double)

}  // namespace circulant
