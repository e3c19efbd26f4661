// Fused attention: y_i = sum_j exp(S_ij - lse_i) v_j and lse_i = log sum_j exp(S_ij), with
// S = scale * similarity(q, k) never stored.
//
// attention_block.cuh says how a block walks over the window. Here the numbers are the scores of a
// set and then their exponentials, relative to the largest score so far; when that grows, sums and
// totals shrink by the same factor (Milakov and Gimelshein, Online normalizer calculation for
// softmax, 2018). Results have one block per 64 channels (32 for float64), each of which computes
// the scores.
//
// No atomics, and sums in a fixed order: the same bits each time. float16 and bfloat16 are
// converted on the way to shared memory and summed in float32. Every window and channel count;
// grids up to kMaxPixels.
//
// Floors for float32 on an H200 (67 TFLOP/s, 4.3 TB/s): 4 G C N K operations, 4 (4 G C N + G N)
// bytes.
//   README problem (2, 64, 128, 96, window 15)   1.42 GFLOP   21 us    25 MB    6 us
//   8, 64, 256, 256, window 15                   30.2 GFLOP   451 us   539 MB   125 us
//   8, 64, 256, 256, window 35                   164 GFLOP    2.45 ms  539 MB   125 us
// Expected: 0.3 of the first. Per channel and unit a thread issues 32 FMA for the scores and reads
// 16 numbers in 4 loads of 16 bytes, which take shared memory 16 cycles per warp where the FMA take
// 8; for the sums it is 12 loads per 64 FMA, 48 cycles to 16. Bringing the halo, 1.3 to 2.5 times
// the tile, twice per set costs a fifth more, and taps are computed in eights: 15 of 16, 35 of 40.
#include <cmath>

#include "attention_block.cuh"
#include "attention_math.cuh"
#include "kernels.h"

namespace circulant {
namespace {

template <class T>
__global__ void __launch_bounds__(kAttentionThreads, kAttentionBlocks<accumulate_t<T>>)
    attention_kernel(const AttentionProduct<T> scores, const T* __restrict__ v, T* __restrict__ y,
                     accumulate_t<T>* __restrict__ lse, const AttentionShape shape,
                     const AttentionPlan p) {
  using A = accumulate_t<T>;
  constexpr int run = kAttentionRun;
  const AttentionBlock<A> t{p};
  t.tabulate_tile();

  for (int g = blockIdx.z; g < p.groups; g += gridDim.z) {
    A sum[kSumChannels<A>][run] = {};
#pragma unroll 1
    for (int set = 0; set < p.units.sets(); ++set) {
      __syncthreads();  // the table, and what others keep, has been read
      t.tabulate(set);
      // The sum of the exponentials that this warp has computed; and the largest score so far, the
      // same in each warp, in units of log 2. At first not -infinity, which would turn scores of
      // -infinity into NaN instead of weight zero.
      if (set == 0) {
        t.clear(t.own(0), A(0));
        t.clear(t.own(1), kLowest<A>);
      }
      A number[run][kUnitTaps];
      t.multiply(scores, g, number);
      const int count = t.my_taps();
      const A factor = A(shape.factor);
      A before[run], largest[run];
      load_run(t.own(1), before);
#pragma unroll
      for (int i = 0; i < run; ++i) {
        largest[i] = before[i];
#pragma unroll
        for (int tap = 0; tap < kUnitTaps; ++tap) {
          number[i][tap] = tap < count ? number[i][tap] * factor : A(-INFINITY);
          largest[i] = max(largest[i], number[i][tap]);
        }
      }
      store_run(t.partial(t.warp()), largest);
      __syncthreads();  // the largest score of each warp is there
#pragma unroll 1
      for (int warp = 0; warp < kAttentionWarps; ++warp) {
        A other[run];
        load_run(t.partial(warp), other);
#pragma unroll
        for (int i = 0; i < run; ++i) largest[i] = max(largest[i], other[i]);
      }
      A total[run];
      load_run(t.own(0), total);
#pragma unroll
      for (int i = 0; i < run; ++i) {
        const A shrink = power_of_two(before[i] - largest[i]);
        total[i] *= shrink;
#pragma unroll
        for (int c = 0; c < kSumChannels<A>; ++c) sum[c][i] *= shrink;
#pragma unroll
        for (int tap = 0; tap < kUnitTaps; ++tap) {
          number[i][tap] = power_of_two(number[i][tap] - largest[i]);
          total[i] += number[i][tap];
        }
      }
      store_run(t.own(0), total);
      store_run(t.own(1), largest);
      if (count > 0) t.keep(number);
      t.add_weighted(v, g, shape.value_channels, sum);
    }

    A total[run];
    t.add_over_warps(total);
    A inverse[run];
#pragma unroll
    for (int i = 0; i < run; ++i) inverse[i] = A(1) / total[i];
    const int first = first_channel<A>(p) + t.warp();
#pragma unroll
    for (int c = 0; c < kSumChannels<A>; ++c) {
      const int channel = first + c * kAttentionWarps;
      if (channel >= shape.value_channels) break;
#pragma unroll
      for (int i = 0; i < run; ++i) sum[c][i] *= inverse[i];
      t.store(y + (int64_t(g) * shape.value_channels + channel) * p.pixels, sum[c]);
    }
    if (first > 0) continue;
    A result[run];
    load_run(t.own(1), result);
#pragma unroll
    for (int i = 0; i < run; ++i) result[i] = (result[i] + log_two(total[i])) * A(kLn2);
    t.store(lse + g * p.pixels, result);
  }
}

}  // namespace

template <class T>
void attention(const T* q, const T* k, const T* v, T* y, accumulate_t<T>* lse,
               const AttentionProblem& problem, cudaStream_t stream) {
  const AttentionShape& shape = problem.shape;
  const AttentionPlan p = choose_attention(problem.pattern, problem.groups, shape.channels,
                                           shape.value_channels, sizeof(accumulate_t<T>));
  launch(attention_kernel<T>, p.tile.count(p.pattern.size) * p.channel_blocks, p.groups,
         kAttentionThreads, p.shared, stream,
         AttentionProduct<T>{q, k, shape.channels, shape.distance}, v, y, lse, shape, p);
}

#define CIRCULANT_INSTANTIATE(T)                                              \
  template void attention(const T*, const T*, const T*, T*, accumulate_t<T>*, \
                          const AttentionProblem&, cudaStream_t);
CIRCULANT_INSTANTIATE(c10::Half)
CIRCULANT_INSTANTIATE(c10::BFloat16)
CIRCULANT_INSTANTIATE(float)
CIRCULANT_INSTANTIATE(double)

}  // namespace circulant
