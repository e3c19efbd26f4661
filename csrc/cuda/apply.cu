// apply: y_i = sum_j A_ij x_j. apply_transposed: y_j = sum_i A_ij x_i. The transposed pattern is of
// the same kind: the transposed product is a gather, too, with other entries of A.
//
// grid     z: group      x: tile of 128 to 512 pixels of y, up to 64 channels (32 for float64)
// block    1 to 4 warps; per batch of taps of a window row, in shared memory:
//
//          entries of A [tap][pixel]  and  x of the halo [channel][row][column], wrapped
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
// are converted when staged and summed in float32. Every window and channel count; grids up to
// kMaxPixels. Taps beyond the window are skipped, not multiplied by zero: 0 * inf is not 0.
//
// Floors for float32 on an H200 (67 TFLOP/s, 4.3 TB/s): 2 G C N K FLOP, 4 (2 G C N + G N K) bytes.
//   README problem (2, 64, 128, 96, window 15)   0.71 GFLOP   11 us    35 MB     8 us
//   8, 64, 256, 256, window 15                   15.1 GFLOP   225 us   740 MB   172 us
//   8, 64, 256, 256, window 35                   82.2 GFLOP   1.23 ms  2.8 GB   0.66 ms
// Per 8 taps a thread issues 512 FMA and 56 loads of 16 bytes, which take shared memory 224 cycles
// per warp where the FMA take 128. Staging takes about 40 instructions per entry of A, shared by
// the channels of a block.
#include <algorithm>

#include "entries.cuh"
#include "kernels.h"
#include "launch.h"
#include "packed.cuh"
#include "products.cuh"
#include "staging.cuh"
#include "tile.cuh"

namespace circulant {
namespace {

constexpr int kMaxWarps = 4, kThreadPixels = 4, kLogThreadPixels = 2,
              kLogWarpPixels = 5 + kLogThreadPixels;

// Channels of a warp, and taps with their entries in registers at a time.
template <class A>
constexpr int kWarpChannels = sizeof(A) == 8 ? 8 : 16;
template <class A>
constexpr int kTaps = sizeof(A) == 8 ? 4 : 8;

// Limits per block, of all its shared memory, so that three blocks fit a multiprocessor of 228 KiB,
// and of the entries in it.
constexpr int kSharedMemory = 72 * 1024, kEntryBytes = 16 * 1024;

// Entries of neighbouring taps lie 4 banks apart.
template <class A>
__host__ __device__ int entry_pitch(const Tile& tile) {
  return tile.pixels() + kPack<A>;
}

struct ApplyPlan {
  Pattern pattern;  // from the pixels of y to those of x
  Tile tile{};
  int channel_warps = 1;  // warps of a block with the same pixels
  int block_channels = 0, channel_blocks = 0;
  int segment = 0, batch = 0;  // taps of the halo, and of the entries, in shared memory
  int halo_pitch = 0;
  int log_lanes = 0;  // of stage_entries
  int channels = 0;
  int64_t groups = 0;
  int warps = 0;      // of a block
  size_t shared = 0;  // bytes per block
};

template <class T, bool transposed>
__global__ void __launch_bounds__(32 * kMaxWarps, 3)
    apply_kernel(const T* __restrict__ values, const T* __restrict__ x, T* __restrict__ y,
                 const ApplyPlan p) {
  using A = accumulate_t<T>;
  constexpr int warp_channels = kWarpChannels<A>, taps = kTaps<A>;
  const Extents &size = p.pattern.size, &window = p.pattern.window;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const Place place(p.pattern, Spot::of_block(p.pattern, p.tile, blockIdx.x / p.channel_blocks));
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

  for (int64_t g = blockIdx.z; g < p.groups; g += gridDim.z) {
    // Mainloop: the sums over the window.
    const T* const from = x + (g * p.channels + first_channel) * x_pixels;
    A sum[warp_channels][kThreadPixels] = {};
#pragma unroll 1
    for (int window_row = 0; window_row < window.d * window.h; ++window_row) {
      const int a = window_row / window.h, b = window_row % window.h;
#pragma unroll 1
      for (int begin = 0; begin < window.w; begin += p.batch) {
        const int count = min(p.batch, window.w - begin),
                  segment_begin = begin / p.segment * p.segment;
        __syncthreads();  // halo and entries have been read
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
                const T* const in_channel = from + start + column;
                copy_in_batches<T>(
                    warp, channels, warps,
                    [&](int c) { return present ? in_channel[c * x_pixels] : T(0); },
                    [&](int c, T value) { to[c * tile_rows * p.halo_pitch + j] = A(value); });
              }
            }
          }
        }
        stage_entries<transposed>(values + g * entry_count, entries, pitch, place, p.tile,
                                  {a, b, begin, count}, p.log_lanes,
                                  transposed ? halo_columns + begin - segment_begin : tile_columns);
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
    const int start = place.row_start(p.tile, row);
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

// Chooses the warps of a block, its tile, and how much of the window is in shared memory.
template <class A>
ApplyPlan plan(const Problem& problem, bool transposed, const char* op) {
  ApplyPlan p{transposed ? problem.pattern.transposed() : problem.pattern};
  p.channels = problem.channels;
  p.groups = problem.groups;
  const Device device = current_device();
  const int limit = std::min(kSharedMemory, device.shared_memory), value_bytes = sizeof(A);
  const Extents& window = p.pattern.window;
  const int row_taps = round_up(window.w, kTaps<A>), row_passes = row_taps / kTaps<A>;
  constexpr int column = sizeof(Column) / sizeof(A);  // in values

  // A window row in equal batches.
  const auto batch = [&](const Tile& t) {
    const int most = std::max(1, kEntryBytes / value_bytes / t.pixels() / kTaps<A>);
    return divide_up(row_passes, divide_up(row_passes, most)) * kTaps<A>;
  };
  // Threads that read packs in several rows at once meet each bank once.
  const auto halo_pitch = [&](const Tile& t, int segment) {
    return t.w() + (t.w() >= 32 ? segment : round_up(segment, 32));
  };
  const auto halo_rows = [&](const Tile& t) { return p.block_channels * t.rows(); };
  // The longest segment for which there is shared memory, 0 if none.
  const auto segment = [&](const Tile& t) {
    // Values of a row of the halo; their columns take as much as rows of it.
    const int most = (limit / value_bytes - batch(t) * entry_pitch<A>(t) - t.w() * column) /
                     (halo_rows(t) + column);
    if (halo_pitch(t, row_taps) <= most) return row_taps;
    const int whole = t.w() >= 32 ? most - t.w() : (most - t.w()) / 32 * 32;
    return std::max(0, whole / batch(t) * batch(t));
  };
  const auto bytes = [&](const Tile& t) {
    const int pitch = halo_pitch(t, segment(t));
    return (size_t(halo_rows(t)) * pitch + size_t(batch(t)) * entry_pitch<A>(t) +
            size_t(column) * (pitch + t.w())) *
           value_bytes;
  };
  // Instructions of a block per window row: about 700 per warp and kTaps taps for the sums, 40 per
  // 32 entries of A, 15 per channel and 32 columns of a row of the halo. They take longer when a
  // multiprocessor has fewer than 8 warps to choose from.
  const auto cost = [&](const Tile& t) {
    const int taps = segment(t);
    if (taps == 0) return -1.0;
    const double rows = taps == row_taps ? double(window.h + t.h() - 1) / window.h
                                         : double(t.h()) * divide_up(row_taps, taps);
    const double instructions =
        700.0 * p.warps * row_passes + 40.0 / 32 * t.pixels() * row_taps +
        15.0 * t.d() * rows * divide_up(t.w() + taps - 1, 32) * p.block_channels;
    const int resident = p.warps * std::max(1, device.resident(bytes(t)));
    return instructions * std::max(1.0, 8.0 / resident);
  };

  // Warps share pixels first, and with them the entries of A, most of what is read.
  while (p.channel_warps < kMaxWarps && p.channel_warps * kWarpChannels<A> < p.channels)
    p.channel_warps *= 2;
  int pixel_warps = kMaxWarps / p.channel_warps;
  for (;;) {
    p.warps = p.channel_warps * pixel_warps;
    p.block_channels = std::min(p.channel_warps * kWarpChannels<A>, p.channels);
    p.channel_blocks = divide_up(p.channels, p.block_channels);
    int log_pixels = kLogWarpPixels;
    while (1 << (log_pixels - kLogWarpPixels) < pixel_warps) ++log_pixels;
    const auto tile =
        choose_tile(log_pixels, kLogThreadPixels, log_pixels, p.pattern.lengths(), cost);
    if (!tile) fail_to_tile(op, p.pattern, p.channels, value_bytes, limit);
    p.tile = *tile;
    // Smaller blocks if there are too few to give each multiprocessor two.
    if (count_tiles(p.pattern, p.tile) * p.channel_blocks * p.groups >=
            2 * device.multiprocessors ||
        p.warps == 1)
      break;
    (pixel_warps > 1 ? pixel_warps : p.channel_warps) /= 2;
  }
  p.segment = segment(p.tile);
  p.batch = batch(p.tile);
  p.halo_pitch = halo_pitch(p.tile, p.segment);
  p.log_lanes = log_tap_lanes(std::min(p.batch, window.w));
  p.shared = bytes(p.tile);
  return p;
}

}  // namespace

template <class T>
void apply(const T* values, const T* x, T* y, const Problem& problem, bool transposed,
           cudaStream_t stream) {
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
