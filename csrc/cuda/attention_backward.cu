// The gradients of fused attention, the weights recomputed from the log-sum-exp.
//
// With P = exp(S - lse), dP_ij = dy_i . v_j and delta_i = dy_i . y_i:
//   dS = P (dP - delta), the gradient to the scores; times `scale`, that to the similarity,
//   dq_i = sum_j dS_ij k_j, dk_j = sum_i dS_ij q_i, dv_j = sum_i P_ij dy_i,
// and for the distance, dq_i -= q_i sum_j dS_ij and dk_j -= k_j sum_i dS_ij.
//
// attention_block.cuh says how a block walks over the window. The window is symmetric: the pixels i
// that have j in their window are those in the window of j. So one kernel makes all three: dq from
// a tile of queries with a halo of keys, dk and dv from a tile of keys with a halo of queries,
// where lse and delta come from the halo. Nobody adds to what another has written: no atomics, and
// sums in a fixed order, the same bits each time. float16 and bfloat16 are summed in float32.
//
// dq and dk take three products each and dv two, 8 where the least is 5. Floors for float32 on an
// H200 (67 TFLOP/s, 4.3 TB/s) for these 5: 10 G C N K operations, 4 (8 G C N + 2 G N) bytes.
//   README problem (2, 64, 128, 96, window 15)   3.54 GFLOP   53 us    50 MB     12 us
//   8, 64, 256, 256, window 15                   75.5 GFLOP   1.13 ms  1.08 GB   251 us
//   8, 64, 256, 256, window 35                   411 GFLOP    6.13 ms  1.08 GB   251 us
// Expected: 0.2 of the first, which is 5/8 of what attention.cu reaches.
#include <algorithm>

#include "attention_block.cuh"
#include "attention_math.cuh"
#include "kernels.h"

namespace circulant {
namespace {

// Which gradient, made of what. The block's tile is of the pixels that it is a gradient of.
template <class T>
struct Gradient {
  AttentionProduct<T> values;  // dP, unless the weights are P
  AttentionProduct<T> scored;  // S
  const T* weighted;           // whose halo is summed
  T* result;
  int result_channels;
  bool transposed;  // whether queries are in the halo
  bool scores;      // whether the weights are dS
};

template <class T>
__global__ void __launch_bounds__(kAttentionThreads, kAttentionBlocks<accumulate_t<T>>)
    attention_backward_kernel(const Gradient<T> f, const accumulate_t<T>* __restrict__ lse,
                              const accumulate_t<T>* __restrict__ delta, const AttentionShape shape,
                              const AttentionPlan p) {
  using A = accumulate_t<T>;
  constexpr int run = kAttentionRun, taps = kUnitTaps;
  const AttentionBlock<A> t{p};
  t.tabulate_tile();

  for (int g = blockIdx.z; g < p.groups; g += gridDim.z) {
    A sum[kSumChannels<A>][run] = {};
#pragma unroll 1
    for (int set = 0; set < p.units.sets(); ++set) {
      __syncthreads();  // the table, and what others keep, has been read
      t.tabulate(set);
      if (set == 0) t.clear(t.own(0), A(0));
      A number[run][taps];
      // dP, and then S.
#pragma unroll 1
      for (int product = f.scores ? 0 : 1; product < 2; ++product) {
        const bool first = product == 0;
        t.multiply(AttentionProduct<T>{first ? f.values.tile : f.scored.tile,
                                       first ? f.values.halo : f.scored.halo,
                                       first ? f.values.channels : f.scored.channels,
                                       !first && f.scored.distance},
                   g, number);
        if (first && t.my_taps() > 0) t.keep(number);
      }
      __syncthreads();  // what was staged before has been read
      const int delta_at = f.transposed ? t.table().halo_rows * p.halo_pitch : kAttentionPixels;
      if (f.transposed) {
        if (t.warp() == 0) t.stage_halo(lse + g * p.pixels, t.staged());
        if (t.warp() == 1) t.stage_halo(delta + g * p.pixels, t.staged() + delta_at);
      } else {
        if (t.warp() == 0) t.stage_tile(lse + g * p.pixels, t.staged());
        if (t.warp() == 1) t.stage_tile(delta + g * p.pixels, t.staged() + delta_at);
      }
      __syncthreads();  // lse and delta are complete
      const int count = t.my_taps();
      if (count > 0) {
        // One number per query: of the pixels of this thread, or of those that it meets.
        const A* const rows =
            t.staged() + (f.transposed ? t.my_halo() + t.table().unit_halo[t.warp()] : t.mine());
        const A factor = A(shape.factor);
        const int step = f.transposed;
        A total[run];  // of the weights that this warp has computed
        load_run(t.own(0), total);
#pragma unroll
        for (int tap = 0; tap < taps; ++tap) {
          A weight[run];
#pragma unroll
          for (int i = 0; i < run; ++i) {
            weight[i] = power_of_two(number[i][tap] * factor - rows[i + tap * step] * A(kLog2E));
          }
          if (f.scores) {
            A other[run];
            load_run(t.kept(tap), other);
#pragma unroll
            for (int i = 0; i < run; ++i) {
              weight[i] *= other[i] - rows[delta_at + i + tap * step];
              total[i] += tap < count ? weight[i] : A(0);
            }
          }
          store_run(t.kept(tap), weight);
        }
        store_run(t.own(0), total);
      }
      t.add_weighted(f.weighted, g, f.result_channels, sum);
    }

    const bool subtracts = f.scores && shape.distance;
    A total[run];
    if (subtracts) t.add_over_warps(total);
    const A scale = f.scores ? A(shape.scale) : A(1);
    const int first = first_channel<A>(p) + t.warp();
#pragma unroll
    for (int c = 0; c < kSumChannels<A>; ++c) {
      const int channel = first + c * kAttentionWarps;
      if (channel >= f.result_channels) break;
      const int64_t at = (int64_t(g) * f.result_channels + channel) * p.pixels;
#pragma unroll
      for (int i = 0; i < run; ++i) {
        const int pixel = t.table().pixel[t.mine() + i];
        if (subtracts && pixel >= 0) sum[c][i] -= total[i] * A(f.scored.tile[at + pixel]);
        sum[c][i] *= scale;
      }
      t.store(f.result + at, sum[c]);
    }
  }
}

// delta_i = sum_c dy[c, i] y[c, i].
template <class T>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_delta_kernel(const T* __restrict__ dy, const T* __restrict__ y,
                           accumulate_t<T>* __restrict__ delta, int channels, int64_t N,
                           int64_t groups) {
  using A = accumulate_t<T>;
  const int64_t i = int64_t(blockIdx.x) * kAttentionThreads + threadIdx.x;
  if (i >= N) return;
  for (int64_t g = blockIdx.z; g < groups; g += gridDim.z) {
    A sum = 0;
    int64_t at = g * channels * N + i;
#pragma unroll 4
    for (int c = 0; c < channels; ++c) {
      sum += A(dy[at]) * A(y[at]);
      at += N;
    }
    delta[g * N + i] = sum;
  }
}

}  // namespace

template <class T>
void attention_backward(const T* dy, const T* q, const T* k, const T* v, const T* y,
                        const accumulate_t<T>* lse, accumulate_t<T>* delta, T* dq, T* dk, T* dv,
                        const AttentionProblem& problem, cudaStream_t stream) {
  const AttentionShape& shape = problem.shape;
  const int64_t N = problem.pattern.pixels();
  launch(attention_delta_kernel<T>, (N + kAttentionThreads - 1) / kAttentionThreads, problem.groups,
         kAttentionThreads, 0, stream, dy, y, delta, shape.value_channels, N, problem.groups);
  const int C = shape.channels, C_v = shape.value_channels;
  const bool distance = shape.distance;
  const Gradient<T> gradients[] = {
      {{dy, v, C_v, false}, {q, k, C, distance}, k, dq, C, false, true},
      {{v, dy, C_v, false}, {k, q, C, distance}, q, dk, C, true, true},
      {{}, {k, q, C, distance}, dy, dv, C_v, true, false},
  };
  for (const Gradient<T>& gradient : gradients) {
    const int channels = gradient.scores ? std::max(C, C_v) : C;
    const AttentionPlan p = choose_attention(problem.pattern, problem.groups, channels,
                                             gradient.result_channels, sizeof(accumulate_t<T>));
    launch(attention_backward_kernel<T>, p.tile.count(p.pattern.size) * p.channel_blocks, p.groups,
           kAttentionThreads, p.shared, stream, gradient, lse, delta, shape, p);
  }
}

#define CIRCULANT_INSTANTIATE(T)                                                         \
  template void attention_backward(const T*, const T*, const T*, const T*, const T*,     \
                                   const accumulate_t<T>*, accumulate_t<T>*, T*, T*, T*, \
                                   const AttentionProblem&, cudaStream_t);
CIRCULANT_INSTANTIATE(c10::Half)
CIRCULANT_INSTANTIATE(c10::BFloat16)
CIRCULANT_INSTANTIATE(float)
CIRCULANT_INSTANTIATE(double)

}  // namespace circulant
