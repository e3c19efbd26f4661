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
// 32 entries take 16 issue slots to read and 15 to write, twice the speed of the memory.
// Window rows start at any address, so that some sectors are moved in part.
#include <algorithm>

#include "entries.cuh"
#include "kernels.h"
#include "launch.h"
#include "tile.cuh"

namespace circulant {
namespace {

constexpr int kThreads = 128, kLogPixels = 6, kTaps = 32;
// Entries of neighbouring taps lie 3 banks apart, and 2 where lanes walk over the rows of A: at
// most two lanes meet in a bank.
constexpr int kPitch = (1 << kLogPixels) + 3;

// A pixel of the tile: where in a group the window row begins in its row of A^T, and the tap with
// the lowest column, -1 beyond the grid.
struct alignas(16) TilePixel {
  int64_t at;
  int first;
};

struct TransposePlan {
  Pattern pattern;  // of A^T
  Tile tile{};
  int64_t groups = 0;
  int log_lanes = 0;  // of stage_entries
  int entries = 0;    // where they begin in shared memory, in bytes
  size_t shared = 0;  // bytes per block
};

template <class T>
__global__ void __launch_bounds__(kThreads, 8)
    transpose_kernel(const T* __restrict__ values, T* __restrict__ result, const TransposePlan p) {
  const Extents& window = p.pattern.window;
  const int window_rows = window.d * window.h, window_row = blockIdx.x % window_rows;
  const int a = window_row / window.h, b = window_row % window.h;
  const Place place(p.pattern, Spot::of_block(p.pattern, p.tile, blockIdx.x / window_rows));
  const int lane = threadIdx.x & ((1 << p.log_lanes) - 1), first = threadIdx.x >> p.log_lanes;
  const int64_t K = p.pattern.offsets(), group_entries = p.pattern.pixels() * K;
  T* const entries = reinterpret_cast<T*>(dynamic_shared_memory + p.entries);  // [kTaps][kPitch]
  TilePixel* const pixels = reinterpret_cast<TilePixel*>(dynamic_shared_memory);
  int64_t* const entry_rows = reinterpret_cast<int64_t*>(pixels + p.tile.pixels());
  // Of the halo from the first tap on.
  Column* const columns = reinterpret_cast<Column*>(entry_rows + p.tile.rows());

  tabulate_entry_rows<true>(place, p.tile, a, b, entry_rows);
  for (int i = threadIdx.x; i < p.tile.pixels(); i += kThreads) {
    const int row = i >> p.tile.log_w, start = place.row_start(p.tile, row);
    const int d = place.d.pixel(p.tile.row_d(row)), h = place.h.pixel(p.tile.row_h(row));
    const int w = place.w.pixel(i & (p.tile.w() - 1));
    const int slot_row =
        place.d.axis.slot_of_offset(d, a) * window.h + place.h.axis.slot_of_offset(h, b);
    pixels[i] = {int64_t(start + w) * K + slot_row * window.w,
                 start < 0 || w < 0 ? -1 : place.w.axis.first_offset(w)};
  }
  for (int64_t g = blockIdx.z; g < p.groups; g += gridDim.z) {
    T* const of_group = result + g * group_entries;
    for (int begin = 0; begin < window.w; begin += kTaps) {
      const int count = min(kTaps, window.w - begin);
      tabulate_columns<true>(place.w, begin, p.tile.w() + count - 1, columns);
      __syncthreads();  // the tables are complete; the entries before these have been written out
      stage_entries<true>(values + g * group_entries, entries, kPitch, p.pattern, p.tile,
                          {begin, count}, p.log_lanes, entry_rows, columns);
      finish_copies<T, T>();
      __syncthreads();  // the entries are complete
      for (int t = lane; t < count; t += 1 << p.log_lanes) {
        copy_in_batches<T>(
            first, p.tile.pixels(), kThreads >> p.log_lanes,
            [&](int i) { return entries[t * kPitch + i]; },
            [&](int i, T entry) {
              const TilePixel pixel = pixels[i];
              T* const to = (of_group + pixel.at) +
                            static_cast<unsigned>(rotated(begin + t, pixel.first, window.w));
              if (pixel.first >= 0) *to = entry;
            });
      }
    }
  }
}

template <class T>
TransposePlan plan(const Problem& problem) {
  TransposePlan p{problem.pattern.transposed()};
  p.groups = problem.groups;
  p.log_lanes = log_tap_lanes(std::min(p.pattern.window.w, kTaps));
  // A row of the tile reads parts of this many rows of A: narrow tiles read more parts of sectors.
  const int extra = (1 << p.log_lanes) - 1;
  p.tile = *choose_tile(kLogPixels, 0, kLogPixels, p.pattern.lengths(),
                        [&](const Tile& t) { return t.pixels() + t.rows() * extra; });
  p.entries =
      static_cast<int>(p.tile.pixels() * sizeof(TilePixel) + p.tile.rows() * sizeof(int64_t) +
                       round_up(p.tile.w() + kTaps, 2) * sizeof(Column));
  p.shared = p.entries + kTaps * kPitch * sizeof(T);
  return p;
}

}  // namespace

template <class T>
void transpose(const T* values, T* result, const Problem& problem, cudaStream_t stream) {
  const auto p = cached_plan<TransposePlan>(problem.pattern, {problem.groups},
                                            [&] { return plan<T>(problem); });
  const Extents& window = p.pattern.window;
  const int64_t blocks = count_tiles(p.pattern, p.tile) * window.d * window.h;
  launch({"transpose", blocks, p.groups, kThreads, p.shared, stream}, transpose_kernel<T>, values,
         result, p);
}

template void transpose(const uint16_t*, uint16_t*, const Problem&, cudaStream_t);
template void transpose(const uint32_t*, uint32_t*, const Problem&, cudaStream_t);
template void transpose(const uint64_t*, uint64_t*, const Problem&, cudaStream_t);

}  // namespace circulant
