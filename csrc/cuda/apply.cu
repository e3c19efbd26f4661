// apply: y_i = sum_j A_ij x_j. apply_transposed: y_j = sum_i A_ij x_i. The transposed pattern is of
// the same kind: the transposed product is a gather, too, with other entries of A.
//
// grid     z: group             x: tile of 128 to 512 pixels of y, up to 64 channels (32 for
//                                  float64)
// block    1 to 4 warps; per batch of taps of a window row, in shared memory:
//
//          entries of A [tap][pixel]  and  x of the halo [channel][row][column], wrapped
//
// A tile has pixels of one class, see geometry.h: in shared memory their windows are not dilated.
// The halo is zero where pixels are absent.
//
// warp     128 pixels, 16 channels (8 for float64): warps share pixels first, then channels
// lane     4 neighbouring pixels of a tile row
// regs     sum[16 channels][4 pixels]; per 8 taps (4) entry[8 taps][4 pixels] and 12 values of x
//
// From one window row to the next the tile moves down x by one grid row: only that one is staged,
// in the place of the oldest. A window row that is too long for shared memory is cut into segments,
// and all rows are staged for each.
//
// No atomics and a fixed order of additions: results are bitwise reproducible. float16 and bfloat16
// are converted when staged and summed in float32, unless apply_mma.cu is faster. Every window and
// channel count; grids up to kMaxPixels. Taps beyond the window are skipped, not multiplied by
// zero: 0 * inf is not 0.
//
// Floors for float32 on an H200 (67 TFLOP/s, 4.3 TB/s): 2 G C N K operations, 4 (2 G C N + G N K)
// bytes.
//   README problem (2, 64, 128, 96, window 15)   0.71 GFLOP   11 us    35 MB     8 us
//   8, 64, 256, 256, window 15                   15.1 GFLOP   225 us   740 MB   172 us
//   8, 64, 256, 256, window 35                   82.2 GFLOP   1.23 ms  2.8 GB   0.66 ms
// Per 8 taps a thread issues 512 FMA and 56 loads of 16 bytes, which take shared memory 224 cycles
// per warp where the FMA take 128. Staging takes 13 issue slots per 32 entries of A (16 when
// transposed), shared by the channels of a block, and waits once per batch: nothing is converted,
// so that all its copies are in flight at a time. The README problem leaves a multiprocessor about
// 6 warps, too few to hide all latency.
#include "../common/accumulate.h"
#include "apply_plan.cuh"
#include "entries.cuh"
#include "kernels.h"
#include "launch.h"
#include "map_mma.h"
#include "packed.cuh"
#include "products.cuh"
#include "staging.cuh"
#include "tile.cuh"

namespace circulant {
namespace {

// Copies a pixel of `count` channels; zero if it is absent.
template <class T, class A>
__device__ __forceinline__ void stage_channels(const T* from, int64_t from_step, A* to, int to_step,
                                               int count, bool present) {
  if constexpr (kCopiesWhileComputing<T, A>) {
    if (present) {
#pragma unroll 4
      for (int c = 0; c < count; ++c, from += from_step, to += to_step) start_copy(to, from);
    } else {
#pragma unroll 1
      for (int c = 0; c < count; ++c, to += to_step) *to = 0;
    }
  } else {
    copy_in_batches<T>(
        0, count, 1,
        [&](int) {
          // Absent pixels are read from the first one.
          const T value = *from;
          from += from_step;
          return value;
        },
        [&](int, T value) {
          *to = present ? A(value) : A(0);
          to += to_step;
        });
  }
}

template <class T, bool transposed>
__global__ void __launch_bounds__(32 * kMaxWarps, kMaxBlocks)
    apply_kernel(const T* __restrict__ values, const T* __restrict__ x, T* __restrict__ y,
                 const ApplyPlan p) {
  using A = accumulate_t<T>;
  constexpr int warp_channels = kWarpChannels<A>, taps = kTaps<A>;
  const Extents &size = p.pattern.size, &window = p.pattern.window;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int first_channel = blockIdx.x % p.channel_blocks * p.block_channels;
  const int channels = min(p.block_channels, p.channels - first_channel);
  // The first of this thread's pixels and channels, in the block.
  const int pixel = (warp / p.channel_warps * 32 + lane) * kThreadPixels,
            channel = warp % p.channel_warps * warp_channels;
  const int pixel_row = pixel >> p.tile.log_w, pixel_w = pixel & (p.tile.w() - 1);
  const int tile_h = p.tile.h(), tile_rows = p.tile.rows(), pitch = entry_pitch<A>(p.tile);
  const int64_t x_pixels = p.pattern.key_pixels();
  // Of a group.
  const int64_t entry_count = (transposed ? x_pixels : p.pattern.pixels()) * p.pattern.offsets();

  // The row of x that row h of the tile meets at window row b is in place (h + b) mod tile_h.
  A* const halo = reinterpret_cast<A*>(dynamic_shared_memory);  // [channels][tile_rows][halo_pitch]
  A* const entries = halo + p.block_channels * tile_rows * p.halo_pitch;  // [batch][pitch]
  // The columns of the halo and of the tile.
  Column* const halo_columns = reinterpret_cast<Column*>(entries + p.batch * pitch);
  Column* const tile_columns = halo_columns + p.halo_pitch;
  // Of even window rows, and of odd ones.
  int64_t* const entry_rows = reinterpret_cast<int64_t*>(tile_columns + p.tile.w());
  // In shared memory, to leave registers to the sums.
  Spot& spot = *reinterpret_cast<Spot*>(entry_rows + 2 * tile_rows);

  if (threadIdx.x == 0) {
    spot = Spot::of_block(p.pattern, p.tile, blockIdx.x / p.channel_blocks);
  }
  for (int64_t g = blockIdx.z; g < p.groups; g += gridDim.z) {
    // Mainloop: the sums over the window.
    const T* const from = x + (g * p.channels + first_channel) * x_pixels;
    A sum[warp_channels][kThreadPixels] = {};
    __syncthreads();  // the spot is complete; the entry rows have been read
    tabulate_entry_rows<transposed>(Place(p.pattern, spot), p.tile, 0, 0, entry_rows);
#pragma unroll 1
    for (int window_row = 0; window_row < window.d * window.h; ++window_row) {
      const int a = window_row / window.h, b = window_row % window.h;
#pragma unroll 1
      for (int begin = 0; begin < window.w; begin += p.batch) {
        const int count = min(p.batch, window.w - begin),
                  segment_begin = begin / p.segment * p.segment;
        __syncthreads();  // halo, entries and the entry rows before have been read
        const Place place(p.pattern, spot);
        if (begin == 0 && window_row + 1 < window.d * window.h) {
          const int next = window_row + 1;
          tabulate_entry_rows<transposed>(place, p.tile, next / window.h, next % window.h,
                                          entry_rows + (next & 1) * tile_rows);
        }
        if (begin == segment_begin) {
          const int halo_w = p.tile.w() + min(p.segment, window.w - begin) - 1;
          // Other rows of the window have the same columns.
          if (window_row == 0 || p.segment < window.w) {
            tabulate_columns<true>(place.w, begin, halo_w, halo_columns);
            tabulate_columns<false>(place.w, 0, p.tile.w(), tile_columns);
            __syncthreads();  // the columns are complete
          }
          const int first_row = b > 0 && p.segment >= window.w ? tile_h - 1 : 0;
#pragma unroll 1
          for (int d = 0; d < p.tile.d(); ++d) {
            const int plane = place.d.neighbour(place.d.halo(a) + d);
#pragma unroll 1
            for (int h = first_row; h < tile_h; ++h) {
              const int row = place.h.neighbour(place.h.halo(b) + h);
              const int start = (plane * p.pattern.keys.h + row) * p.pattern.keys.w;
              A* const to = halo + (d * tile_h + ((h + b) & (tile_h - 1))) * p.halo_pitch;
#pragma unroll 1
              for (int j = lane; j < halo_w; j += 32) {
                const int column = halo_columns[j].pixel;
                const bool present = plane >= 0 && row >= 0 && column >= 0;
                const T* in_channel = kept(from + warp * x_pixels + (present ? start + column : 0));
                A* to_channel = to + warp * tile_rows * p.halo_pitch + j;
                stage_channels(in_channel, warps * x_pixels, to_channel,
                               warps * tile_rows * p.halo_pitch, divide_up(channels - warp, warps),
                               present);
              }
            }
          }
        }
        stage_entries<transposed>(values + g * entry_count, entries, pitch, p.pattern, p.tile,
                                  {begin, count}, p.log_lanes,
                                  entry_rows + (window_row & 1) * tile_rows,
                                  transposed ? halo_columns + begin - segment_begin : tile_columns);
        finish_copies<T, A>();
        __syncthreads();  // halo and entries are complete
        const A* from_halo =
            halo +
            (channel * tile_rows + (pixel_row & ~(tile_h - 1)) + ((pixel_row + b) & (tile_h - 1))) *
                p.halo_pitch +
            pixel_w + begin - segment_begin;
        const A* from_entries = entries + pixel;
#pragma unroll 1
        for (int left = count; left > 0; left -= taps) {
          A entry[taps][kThreadPixels];
#pragma unroll
          for (int t = 0; t < taps; ++t) {
            if (t < left) load_packed(from_entries + t * pitch, entry[t]);
          }
#pragma unroll
          for (int c = 0; c < warp_channels; ++c) {
            if (channel + c >= channels) break;
            A neighbours[kThreadPixels + taps];
            load_packed(from_halo + c * tile_rows * p.halo_pitch, neighbours);
            add_weighted(entry, neighbours, left, sum[c]);
          }
          from_halo += taps;
          from_entries += taps * pitch;
        }
      }
    }

    // Epilogue. opaque() keeps its addresses out of the registers of the mainloop.
    const int row = opaque(pixel_row), w = opaque(pixel_w);
    const int start = Place(p.pattern, spot).row_start(p.tile, row);
    if (start < 0 || tile_columns[w].pixel < 0) continue;
    int column[kThreadPixels];
#pragma unroll
    for (int i = 0; i < kThreadPixels; ++i) column[i] = tile_columns[w + i].pixel;
    const int64_t y_pixels = p.pattern.pixels();
    T* to = y + (g * p.channels + first_channel + channel) * y_pixels + start;
#pragma unroll
    for (int c = 0; c < warp_channels; ++c) {
      if (channel + c >= channels) break;
      if (size.w % kThreadPixels == 0 && p.pattern.dilation.w == 1) {
        store_packed(to + column[0], sum[c]);
      } else {
#pragma unroll
        for (int i = 0; i < kThreadPixels; ++i) {
          if (column[i] >= 0) to[column[i]] = T(sum[c][i]);
        }
      }
      to += y_pixels;
    }
  }
}

}  // namespace

template <class T>
void apply(const T* values, const T* x, T* y, const Problem& problem, bool transposed,
           cudaStream_t stream) {
  if constexpr (is_half<T>) {
    const MapOp op = transposed ? kMapTransposed : kMapApply;
    if (uses_map_mma(problem, op))
      return apply_mma(values, x, y, plan_map_mma(problem, op), transposed, stream);
  }
  const char* op = transposed ? "apply_transposed" : "apply";
  const auto p =
      cached_plan<ApplyPlan>(problem.pattern, {problem.groups, problem.channels, transposed},
                             [&] { return plan<accumulate_t<T>>(problem, transposed, op); });
  const int64_t blocks = count_tiles(p.pattern, p.tile) * p.channel_blocks;
  launch({op, blocks, p.groups, 32 * p.warps, p.shared, stream},
         transposed ? apply_kernel<T, true> : apply_kernel<T, false>, values, x, y, p);
}

#define CIRCULANT_INSTANTIATE(T) \
  template void apply(const T*, const T*, T*, const Problem&, bool, cudaStream_t);
CIRCULANT_INSTANTIATE(c10::Half)
CIRCULANT_INSTANTIATE(c10::BFloat16)
CIRCULANT_INSTANTIATE(float)
CIRCULANT_INSTANTIATE(double)

}  // namespace circulant
