// result_ji = A_ij: the values of the transposed matrix, in its own CSR order. Nothing is rounded.
//
// grid     z: group             x: tile of 64 pixels j, one window row
// block    4 warps; per 32 taps of the window row:
//
//          rows of A  --read along taps-->  shared [tap][pixel]  --write along taps-->  rows of A^T
//
// warp     4, 2 or 1 pixels at a time
// lane     one of 8, 16 or 32 neighbouring taps of a pixel
//
// Blocks with the same tile follow each other: the sectors that neighbouring window rows share are
// then found in the cache. No atomics: each entry is written once.
//
// The floor is the copy of 2 N K entries per group; for float32 at 4.3 TB/s (H200):
//   README problem (2, 64, 128, 96, window 15)    44 MB    10 us
//   8, 64, 256, 256, window 15                   944 MB   0.22 ms
//   8, 64, 256, 256, window 35                   5.1 GB    1.2 ms
// Index arithmetic limits the speed: about 48 instructions per load and 83 per 30 entries written.
// Window rows start at any address, so that some sectors are moved in part.
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
  Tile tile{};
  int64_t groups = 0;
  int log_lanes = 0;  // of stage_entries
};

template <class T>
__global__ void __launch_bounds__(kThreads, 8)
    transpose_kernel(const T* __restrict__ values, T* __restrict__ result, const TransposePlan p) {
  const Pattern& s = p.pattern;
  const int window_rows = s.window.d * s.window.h, window_row = blockIdx.x % window_rows;
  const int a = window_row / s.window.h, b = window_row % s.window.h;
  const Extents origin = p.tile.origin(blockIdx.x / window_rows, s.size);
  const int lane = threadIdx.x & ((1 << p.log_lanes) - 1), first = threadIdx.x >> p.log_lanes;
  const int64_t K = s.offsets(), group_entries = s.pixels() * K;
  T* const entries = reinterpret_cast<T*>(dynamic_shared_memory);  // [kTaps][kPitch]

  for (int64_t g = blockIdx.z; g < p.groups; g += gridDim.z) {
    for (int begin = 0; begin < s.window.w; begin += kTaps) {
      const int count = min(kTaps, s.window.w - begin);
      __syncthreads();  // the entries before these have been written out
      stage_entries<true>(values + g * group_entries, entries, kPitch, s, p.tile, origin,
                          {a, b, begin, count}, p.log_lanes);
      __syncthreads();  // the entries are complete
      for (int pixel = first; pixel < p.tile.pixels(); pixel += kThreads >> p.log_lanes) {
        const int row = pixel >> p.tile.log_w;
        const int d = origin.d + p.tile.row_d(row), h = origin.h + p.tile.row_h(row);
        const int w = origin.w + (pixel & (p.tile.w() - 1));
        if (d >= s.size.d || h >= s.size.h || w >= s.size.w) continue;
        const int slot_row = slot_of_offset(d, a, s.size.d, s.window.d) * s.window.h +
                             slot_of_offset(h, b, s.size.h, s.window.h);
        T* const to = result + g * group_entries + ((d * s.size.h + h) * s.size.w + w) * K +
                      slot_row * s.window.w;
        for (int t = lane; t < count; t += 1 << p.log_lanes) {
          to[slot_of_offset(w, begin + t, s.size.w, s.window.w)] = entries[t * kPitch + pixel];
        }
      }
    }
  }
}

TransposePlan plan(const Problem& problem) {
  TransposePlan p{problem.pattern};
  p.groups = problem.groups;
  p.log_lanes = log_tap_lanes(std::min(p.pattern.window.w, kTaps));
  // Reading takes a step per column of a row and lane of a tap: narrow tiles take more steps.
  const int extra = (1 << p.log_lanes) - 1;
  p.tile = *choose_tile(kLogPixels, 0, kLogPixels, p.pattern.size,
                        [&](const Tile& t) { return t.pixels() + t.rows() * extra; });
  return p;
}

}  // namespace

template <class T>
void transpose(const T* values, T* result, const Problem& problem, cudaStream_t stream) {
  const TransposePlan p = plan(problem);
  const Extents &size = p.pattern.size, &window = p.pattern.window;
  const int64_t blocks = p.tile.count(size) * window.d * window.h;
  launch({"transpose", blocks, p.groups, kThreads, kTaps * kPitch * sizeof(T), stream},
         transpose_kernel<T>, values, result, p);
}

template void transpose(const uint16_t*, uint16_t*, const Problem&, cudaStream_t);
template void transpose(const uint32_t*, uint32_t*, const Problem&, cudaStream_t);
template void transpose(const uint64_t*, uint64_t*, const Problem&, cudaStream_t);

}  // namespace circulant
