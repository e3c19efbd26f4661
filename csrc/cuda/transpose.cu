// result_ji = A_ij: the values of the transposed matrix, in its own CSR order. Nothing is rounded.
//
// A block owns a tile of 64 pixels j of one group and one window row. Neighbouring threads read
// neighbouring entries of a row of A into shared memory, [tap][pixel], and write neighbouring
// entries of a row of the result from there. Blocks that share rows of A and of the result follow
// each other, so that the sectors in which one run ends and the next begins are met in the cache.
// No atomics: every entry is written once.
//
// Only bytes move: 2 N K of them times the size of a number, per group. That is all there is to its
// speed:
//   README problem (2, 64, 128, 96, window 15)    44 MB    10 us at 4.3 TB/s
//   8, 64, 256, 256, window 15                   944 MB   0.22 ms
//   8, 64, 256, 256, window 35                   5.1 GB    1.2 ms
// Expected: 60 to 80 % of that. Both sides of the copy are runs of a window row at arbitrary
// alignment, 60 bytes for float32 and window 15, so that part of the sectors is fetched twice.
#include <algorithm>

#include "entries.cuh"
#include "kernels.h"
#include "launch.h"
#include "tile.cuh"

namespace circulant {
namespace {

constexpr int kThreads = 128, kLogPixels = 6, kTaps = 32;
constexpr int kPitch = (1 << kLogPixels) + 1;

struct TransposePlan {
  Pattern pattern;
  Tile tile;
  int64_t groups;
  int log_lanes;
};

template <class T>
__global__ void __launch_bounds__(kThreads, 8)
    transpose_kernel(const T* __restrict__ values, T* __restrict__ result, const TransposePlan p) {
  const Pattern& s = p.pattern;
  const int window_rows = s.window.d * s.window.h, window_row = blockIdx.x % window_rows;
  const int a = window_row / s.window.h, b = window_row % s.window.h;
  const Extents origin = p.tile.origin(blockIdx.x / window_rows, s.size);
  const int lane = threadIdx.x & ((1 << p.log_lanes) - 1), first = threadIdx.x >> p.log_lanes;
  const int64_t K = s.offsets(), entries = s.pixels() * K;
  T* const weights = reinterpret_cast<T*>(dynamic_shared_memory);  // [kTaps][kPitch]

  for (int64_t g = blockIdx.z; g < p.groups; g += gridDim.z) {
    for (int begin = 0; begin < s.window.w; begin += kTaps) {
      const int count = min(kTaps, s.window.w - begin);
      __syncthreads();  // the weights before these have been written out
      stage_weights<true>(values + g * entries, weights, kPitch, s, p.tile, origin,
                          {a, b, begin, count}, p.log_lanes);
      __syncthreads();  // the weights are complete
      for (int pixel = first; pixel < p.tile.pixels(); pixel += kThreads >> p.log_lanes) {
        const int row = pixel >> p.tile.log_w;
        const int d = origin.d + (row >> p.tile.log_h), h = origin.h + (row & (p.tile.h() - 1));
        const int w = origin.w + (pixel & (p.tile.w() - 1));
        if (d >= s.size.d || h >= s.size.h || w >= s.size.w) continue;
        const int slot_row = slot_of_offset(d, a, s.size.d, s.window.d) * s.window.h +
                             slot_of_offset(h, b, s.size.h, s.window.h);
        T* const to =
            result + g * entries + ((d * s.size.h + h) * s.size.w + w) * K + slot_row * s.window.w;
        for (int t = lane; t < count; t += 1 << p.log_lanes) {
          to[slot_of_offset(w, begin + t, s.size.w, s.window.w)] = weights[t * kPitch + pixel];
        }
      }
    }
  }
}

}  // namespace

template <class T>
void transpose(const T* values, T* result, const Problem& problem, cudaStream_t stream) {
  const Pattern& s = problem.pattern;
  const int log_lanes = log_tap_lanes(std::min(s.window.w, kTaps));
  const int extra = (1 << log_lanes) - 1;
  TransposePlan p{s, {}, problem.groups, log_lanes};
  // Reading costs a step per pixel of a run and tap lane; narrow tiles take more of them.
  choose_tile(
      kLogPixels, 0, kLogPixels, s.size,
      [&](const Tile& t) { return t.pixels() + t.rows() * extra; }, &p.tile);
  const int64_t blocks = p.tile.count(s.size) * s.window.d * s.window.h;
  launch(transpose_kernel<T>, blocks, problem.groups, kThreads, kTaps * kPitch * sizeof(T), stream,
         values, result, p);
}

template void transpose(const uint16_t*, uint16_t*, const Problem&, cudaStream_t);
template void transpose(const uint32_t*, uint32_t*, const Problem&, cudaStream_t);
template void transpose(const uint64_t*, uint64_t*, const Problem&, cudaStream_t);

}  // namespace circulant
