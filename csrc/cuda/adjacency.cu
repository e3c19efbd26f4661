// values_ij = exp(S_ij) / sum_k exp(S_ik) with S = scale * similarity(x, y), never stored.
//
// attention_plan.h has the figure of grid, block, warp and lane; here a block writes its weights to
// A instead of summing with them. It goes over the steps twice: forwards for the largest score and
// the sum of the exponentials of each pixel, backwards to write them over that sum. The scores of
// the last step are in registers still; those of the others are computed again, so that A is
// written once and not read.
//
// A warp keeps the largest score and the sum of its own strips, in registers; they are joined once,
// between the two ways.
//
// No atomics and a fixed order of additions: results are bitwise reproducible. float16 and bfloat16
// are converted when staged, summed in float32, and rounded once. Every window; grids up to
// kMaxPixels.
//
// Floors for float32 on an H200 (67 TFLOP/s, 4.3 TB/s): up to 4 G C N K operations,
// 4 (2 G C N + G N K) bytes.
//   README problem (2, 64, 128, 96, window 15)   1.24 GFLOP   19 us    35 MB     8 us
//   8, 64, 256, 256, window 15                   26.4 GFLOP   394 us   740 MB   172 us
//   8, 64, 256, 256, window 35                   161 GFLOP    2.40 ms  2.8 GB   0.66 ms
#include <cmath>

#include "attention_mainloop.cuh"
#include "entries.cuh"
#include "kernels.h"

namespace circulant {
namespace {

// The pitch of rows of the weights of a step, one row per lane.
template <class A>
__host__ __device__ constexpr int out_pitch(int strips) {
  return strips * kStripTaps + kPack<A>;
}

// Computes the scores of a step over log 2; -infinity beyond the window.
template <class T, class A>
__device__ __forceinline__ void compute_scores(const AttentionBlock<A>& block,
                                               const Operands<T>& features, int g, int step,
                                               A log2_scale,
                                               A (&score)[kThreadPixels][kStripTaps]) {
  __syncthreads();  // the table of the step before has been read
  block.tabulate_step(step);
  compute_products(block, features, g, score);
  const int taps = block.warp_taps();
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) {
#pragma unroll
    for (int tap = 0; tap < kStripTaps; ++tap) {
      score[i][tap] = tap < taps ? score[i][tap] * log2_scale : A(-INFINITY);
    }
  }
  mask_absent(block, A(-INFINITY), score);
}

// Adds the scores of a step to the largest score so far and the sum of exponentials relative to it.
template <class A>
__device__ __forceinline__ void add_scores(const A (&score)[kThreadPixels][kStripTaps],
                                           A (&largest)[kThreadPixels], A (&total)[kThreadPixels]) {
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) {
    const A before = largest[i];
#pragma unroll
    for (int tap = 0; tap < kStripTaps; ++tap) largest[i] = max(largest[i], score[i][tap]);
    total[i] *= std::exp2(before - largest[i]);
#pragma unroll
    for (int tap = 0; tap < kStripTaps; ++tap) total[i] += std::exp2(score[i][tap] - largest[i]);
  }
}

// Joins what the warps have found, in their order: the largest score of all, and the total.
template <class A>
__device__ __forceinline__ void join_warps(const AttentionBlock<A>& block,
                                           A (&largest)[kThreadPixels], A (&total)[kThreadPixels]) {
  store_packed(block.warp_largest(block.warp()), largest);
  store_packed(block.warp_total(block.warp()), total);
  __syncthreads();  // the statistics of each warp are complete
  raise_to_warps(block, largest);
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) total[i] = 0;
#pragma unroll 1
  for (int warp = 0; warp < kAttentionWarps; ++warp) {
    A its_largest[kThreadPixels], its_total[kThreadPixels];
    load_packed(block.warp_largest(warp), its_largest);
    load_packed(block.warp_total(warp), its_total);
#pragma unroll
    for (int i = 0; i < kThreadPixels; ++i) {
      total[i] += its_total[i] * std::exp2(its_largest[i] - largest[i]);
    }
  }
}

// Where the entries of the tile go. The memory of attention's weights is not used otherwise: first
// those of a step on their way to A, [32][out_pitch], and then this.
struct EntryTable {
  Column pixel[kTilePixels];      // in the order of AttentionTable::pixel
  int slot[kAttentionWarps][32];  // per strip and lane: where its window row begins in rows of A
};

template <class A>
__device__ __forceinline__ EntryTable& entry_table(const AttentionBlock<A>& block) {
  return *reinterpret_cast<EntryTable*>(block.weights() +
                                        32 * out_pitch<A>(block.p.strips.per_step));
}

// Complete after the next barrier.
template <class A>
__device__ __forceinline__ void tabulate_pixels(const AttentionBlock<A>& block) {
  const Tile& tile = block.p.tile;
  const AttentionPlan& p = block.p;
  const Place place(p.pattern, Spot::of_block(p.pattern, p.tile, blockIdx.x));
  for (int i = threadIdx.x; i < kTilePixels; i += kAttentionThreads) {
    const int lane = i >> kLogThreadPixels, start = place.row_start(tile, tile.lane_row(lane));
    const int w = place.w.pixel(tile.lane_w(lane, kLogThreadPixels) + (i & (kThreadPixels - 1)));
    entry_table(block).pixel[i] = {start < 0 || w < 0 ? -1 : start + w,
                                   place.w.axis.first_offset(w)};
  }
}

// The slots of a step, for the strip of this warp. Complete after the next barrier.
template <class A>
__device__ __forceinline__ void tabulate_slots(const AttentionBlock<A>& block, int step) {
  const Tile& tile = block.p.tile;
  const Extents& window = block.p.pattern.window;
  const Place place = block.place();
  const Strip strip(block.p.strips, step * block.p.strips.per_step + block.warp());
  const int row = tile.lane_row(block.lane());
  const int d = place.d.pixel(tile.row_d(row)), h = place.h.pixel(tile.row_h(row));
  entry_table(block).slot[block.warp()][block.lane()] =
      (rotated(strip.a, place.d.axis.first_offset(d), window.d) * window.h +
       rotated(strip.b, place.h.axis.first_offset(h), window.h)) *
      window.w;
}

// Writes the weights of a step to one group of A, one pixel of each thread at a time: neighbouring
// threads write neighbouring entries of a row, rotated at a border as CSR order demands.
template <class T, class A>
__device__ __forceinline__ void write_weights(const AttentionBlock<A>& block, T* of_group, int step,
                                              const A (&weight)[kThreadPixels][kStripTaps]) {
  constexpr int columns = kAttentionWarps * kStripTaps, lanes = kAttentionThreads / columns;
  const AttentionPlan& p = block.p;
  const Extents& window = p.pattern.window;
  const int K = static_cast<int>(p.pattern.offsets());
  A* const out = block.weights();
  const int pitch = out_pitch<A>(p.strips.per_step);
  // A thread writes one entry of the rows of every fourth lane's pixel.
  const int column = threadIdx.x % columns, of_step = column / kStripTaps,
            first_lane = threadIdx.x / columns;
  const Strip strip(p.strips, step * p.strips.per_step + of_step);
  const int tap = strip.tap + column % kStripTaps;
  const bool writes =
      of_step < p.strips.per_step && column % kStripTaps < block.table().strip_taps[of_step];
  tabulate_slots(block, step);
  of_group = kept(of_group);
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) {
    __syncthreads();  // `out` has been read
    if (block.warp() < p.strips.per_step) {
      store_packed(out + block.lane() * pitch + block.warp() * kStripTaps, weight[i]);
    }
    __syncthreads();  // `out` and the slots are complete
    if (!writes) continue;
    const Column* const of_pixel = entry_table(block).pixel + first_lane * kThreadPixels + i;
    const int* const of_slot = entry_table(block).slot[of_step] + first_lane;
    const A* const from = out + opaque(first_lane * pitch + column);
#pragma unroll 4
    for (int l = 0; l < 32; l += lanes) {
      const Column pixel = of_pixel[l * kThreadPixels];
      const int slot = of_slot[l] + rotated(tap, pixel.first, window.w);
      const A result = from[l * pitch];
      T* const to = entry_at(of_group, pixel.pixel, K, slot);
      if (pixel.pixel >= 0) *to = T(result);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kAttentionThreads, kResidentBlocks<accumulate_t<T>>)
    adjacency_kernel(const Operands<T> features, T* __restrict__ values,
                     const accumulate_t<T> log2_scale, const AttentionPlan p) {
  using A = accumulate_t<T>;
  const AttentionBlock<A> block{p};
  block.tabulate_tile();
  tabulate_pixels(block);
  const int last = p.strips.steps() - 1;

  for (int g = blockIdx.z; g < p.groups; g += gridDim.z) {
    A score[kThreadPixels][kStripTaps], largest[kThreadPixels], total[kThreadPixels];
#pragma unroll
    for (int i = 0; i < kThreadPixels; ++i) {
      largest[i] = kLowest<A>;
      total[i] = 0;
    }
    // Both ways in one loop, so that the code is there once.
#pragma unroll 1
    for (int n = 0; n <= 2 * last + 1; ++n) {
      const bool forwards = n <= last;
      const int step = forwards ? n : 2 * last + 1 - n;
      if (n != last + 1) compute_scores(block, features, g, step, log2_scale, score);
      if (forwards) {
        add_scores(score, largest, total);
        continue;
      }
      if (n == last + 1) {
        join_warps(block, largest, total);
#pragma unroll
        for (int i = 0; i < kThreadPixels; ++i) total[i] = A(1) / total[i];
      }
#pragma unroll
      for (int i = 0; i < kThreadPixels; ++i) {
#pragma unroll
        for (int tap = 0; tap < kStripTaps; ++tap) {
          score[i][tap] = std::exp2(score[i][tap] - largest[i]) * total[i];
        }
      }
      // Also in rows that are NaN.
      mask_absent(block, A(0), score);
      write_weights(block, values + int64_t(g) * p.pixels * p.pattern.offsets(), step, score);
    }
  }
}

}  // namespace

template <class T>
void adjacency(const T* x, const T* y, T* values, const AttentionProblem& problem,
               cudaStream_t stream) {
  using A = accumulate_t<T>;
  const AttentionShape& shape = problem.shape;
  const AttentionPlan p = plan_attention("adjacency", problem.pattern, problem.groups,
                                         shape.channels, shape.value_channels, sizeof(A));
  launch({"adjacency", count_tiles(p.pattern, p.tile), p.groups, kAttentionThreads,
          size_t(p.shared), stream},
         adjacency_kernel<T>, Operands<T>{x, y, shape.channels, shape.distance}, values,
         A(shape.log2_scale), p);
}

#define CIRCULANT_INSTANTIATE(T) \
  template void adjacency(const T*, const T*, T*, const AttentionProblem&, cudaStream_t);
CIRCULANT_INSTANTIATE(c10::Half)
CIRCULANT_INSTANTIATE(c10::BFloat16)
CIRCULANT_INSTANTIATE(float)
CIRCULANT_INSTANTIATE(double)

}  // namespace circulant
