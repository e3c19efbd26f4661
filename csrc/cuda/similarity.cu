// values_ij = sum_c x[c, i] y[c, j] (dot) or -1/2 sum_c (x[c, i] - y[c, j])^2 (distance).
//
// grid     z: group             x: tile of 256 pixels i (128 for float64), 8 strips of the window
// block    8 warps; per chunk of up to 8 channels, in shared memory:
//
//          x of the tile [channel][row][column]  and  y of its halo [channel][row][column], wrapped
//
// A tile has pixels of one class, see geometry.h: in shared memory their windows are not dilated.
// The halo is zero where keys are absent, and so are their entries.
//
// warp     stages one channel; computes one strip: 8 taps of a window row
// lane     8 neighbouring pixels of a tile row (4 for float64)
// regs     sum[8 pixels][8 taps]; per channel 8 values of x and 16 of y
//
// The results leave through shared memory, one pixel of each thread at a time: neighbouring threads
// then write neighbouring entries of a row of A, rotated at a border as CSR order demands.
//
// No atomics and a fixed order of additions: results are bitwise reproducible. float16 and bfloat16
// are converted when staged and summed in float32. Every window and channel count; grids up to
// kMaxPixels.
//
// Floors for float32 on an H200 (67 TFLOP/s, 4.3 TB/s): 2 G C N K operations, 4 (2 G C N + G N K)
// bytes.
//   README problem (2, 64, 128, 96, window 15)   0.71 GFLOP   11 us    35 MB     8 us
//   8, 64, 256, 256, window 15                   15.1 GFLOP   225 us   740 MB   172 us
//   8, 64, 256, 256, window 35                   82.2 GFLOP   1.23 ms  2.8 GB   0.66 ms
// Per channel a thread issues 64 FMA (twice that for the distance) and 6 loads of 16 bytes, which
// take shared memory 24 cycles per warp where the FMA take 16. Staging and output, mostly index
// arithmetic, take more issue slots than that.
#include <algorithm>

#include "entries.cuh"
#include "kernels.h"
#include "launch.h"
#include "packed.cuh"
#include "products.cuh"
#include "staging.cuh"
#include "strips.cuh"
#include "tile.cuh"

namespace circulant {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kBlockTaps = kWarps * kStripTaps;
constexpr int kMaxChunk = kWarps;  // a warp stages one channel
// Loads in flight per thread.
template <class A>
constexpr int kLoads = sizeof(A) == 8 ? 4 : 8;

// Limit of the staging, so that two blocks fit a multiprocessor of any architecture.
constexpr size_t kSharedMemory = 32 * 1024;

template <class A>
constexpr int kLogThreadPixels = sizeof(A) == 8 ? 2 : 3;

template <class A>
constexpr int kOutPitch = kBlockTaps + kPack<A>;

// A row of the tile: its first pixel, -1 beyond the grid, and the offsets of its pixels that have
// the lowest plane and row.
struct TileRow {
  int start, first_d, first_h;
};

struct SimilarityPlan {
  Pattern pattern;
  int64_t groups;
  int channels;
  Strips strips;
  Tile tile{};
  int chunk = 0;  // channels in shared memory
  int halo_pitch = 0;
  int table = 0;      // where it begins in shared memory, in bytes
  size_t shared = 0;  // bytes per block
};

template <class T, bool distance>
__global__ void __launch_bounds__(kThreads, 2)
    similarity_kernel(const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ values,
                      const SimilarityPlan p) {
  using A = accumulate_t<T>;
  constexpr int log_pixels = kLogThreadPixels<A>, pixels = 1 << log_pixels;
  const Extents& window = p.pattern.window;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int steps = p.strips.steps(), step = blockIdx.x % steps;
  const StepBox box(p.strips, step);
  const Strip strip(p.strips, step * kWarps + warp);
  const bool strip_exists = strip.exists(window);
  const int tile_rows = p.tile.rows(), tile_pitch = odd_pitch<A>(p.tile.w());
  const int halo_rows = box.halo_rows(p.tile), halo_w = box.halo_w(p.tile, window.w);
  const int row = p.tile.lane_row(lane), column = p.tile.lane_w(lane, log_pixels);
  const int halo_row = (p.tile.row_d(row) + strip.a - box.a) * box.halo_h(p.tile) +
                       p.tile.row_h(row) + strip.b - box.b;

  A* const tile = reinterpret_cast<A*>(dynamic_shared_memory);  // [chunk][tile_rows][tile_pitch]
  A* const halo = tile + p.chunk * tile_rows * tile_pitch;      // [chunk][halo_rows][halo_pitch]
  A* const out = tile;                                          // [32][kOutPitch]
  Column* const tile_column = reinterpret_cast<Column*>(dynamic_shared_memory + p.table);
  TileRow* const tile_row = reinterpret_cast<TileRow*>(tile_column + p.tile.w());
  HaloBounds& bounds = *reinterpret_cast<HaloBounds*>(tile_row + tile_rows);
  int* const halo_column = reinterpret_cast<int*>(&bounds + 1);
  const Halo halo_table{halo_column + p.halo_pitch, halo_column};

  const Place place(p.pattern, Spot::of_block(p.pattern, p.tile, blockIdx.x / steps));
  for (int r = threadIdx.x; r < tile_rows; r += kThreads) {
    tile_row[r] = {place.row_start(p.tile, r),
                   place.d.axis.first_offset(place.d.pixel(p.tile.row_d(r))),
                   place.h.axis.first_offset(place.h.pixel(p.tile.row_h(r)))};
  }
  tabulate_columns<false>(place.w, 0, p.tile.w(), tile_column);
  halo_table.tabulate(place, p.tile, box);
  if (threadIdx.x == 0) bounds = HaloBounds(place, p.tile, box);

  for (int64_t g = blockIdx.z; g < p.groups; g += gridDim.z) {
    // Mainloop: the sums over the channels.
    A sum[pixels][kStripTaps] = {};
    for (int first = 0; first < p.channels; first += p.chunk) {
      const int count = min(p.chunk, p.channels - first);
      __syncthreads();  // the chunk before, or `out`, has been read; the tables are complete
      if (warp < count) {
        const int64_t channel = g * p.channels + first + warp;
        const T* const from = x + channel * p.pattern.pixels();
        A* const to = tile + warp * tile_rows * tile_pitch;
        for (int j = lane; j < p.tile.w(); j += 32) {
          const int w = tile_column[j].pixel;
          copy_in_batches<T, kLoads<A>>(
              0, tile_rows, 1,
              [&](int r) {
                const int start = tile_row[r].start;
                return start >= 0 && w >= 0 ? from[start + w] : T(0);
              },
              [&](int r, T value) { to[r * tile_pitch + j] = A(value); });
        }
        halo_table.stage<kLoads<A>>(y + channel * p.pattern.key_pixels(),
                                    halo + warp * halo_rows * p.halo_pitch, halo_rows,
                                    box.halo_h(p.tile), halo_w, p.halo_pitch, bounds, lane);
      }
      __syncthreads();  // the chunk is complete
      if (!strip_exists) continue;
      add_products<distance>(tile + row * tile_pitch + column, tile_rows * tile_pitch,
                             halo + halo_row * p.halo_pitch + column + strip.tap - box.tap,
                             halo_rows * p.halo_pitch, count, sum);
    }

    // Epilogue: a thread writes one entry of the rows of every fourth lane's pixel.
    const Strip out_strip(p.strips, step * kWarps + threadIdx.x % kBlockTaps / kStripTaps);
    const int tap = out_strip.tap + threadIdx.x % kStripTaps;
    const bool writes = out_strip.exists(window) && tap < window.w;
    const bool lacks = bounds.lacks;
    // opaque() keeps the product out of the loop.
    const int K = opaque(static_cast<int>(p.pattern.offsets()));
    T* const of_group = values + g * p.pattern.pixels() * K;
#pragma unroll
    for (int i = 0; i < pixels; ++i) {
      __syncthreads();  // `out`, or the last chunk in its place, has been read
      store_packed(out + lane * kOutPitch<A> + warp * kStripTaps, sum[i]);
      __syncthreads();  // `out` is complete
      if (!writes) continue;
#pragma unroll 1
      for (int l = threadIdx.x / kBlockTaps; l < 32; l += kThreads / kBlockTaps) {
        const int r = p.tile.lane_row(l), j = p.tile.lane_w(l, log_pixels) + i;
        const TileRow of_row = tile_row[r];
        const Column of_column = tile_column[j];
        if (of_row.start < 0 || of_column.pixel < 0) continue;
        const int slot = (rotated(out_strip.a, of_row.first_d, window.d) * window.h +
                          rotated(out_strip.b, of_row.first_h, window.h)) *
                             window.w +
                         rotated(tap, of_column.first, window.w);
        A result = out[l * kOutPitch<A> + threadIdx.x % kBlockTaps];
        if (distance) result *= A(-0.5);
        if (lacks && !(bounds.has_row(p.tile.row_d(r) + out_strip.a - box.a,
                                      p.tile.row_h(r) + out_strip.b - box.b) &&
                       bounds.has_column(j + tap - box.tap))) {
          result = 0;
        }
        of_group[int64_t(of_row.start + of_column.pixel) * K + slot] = T(result);
      }
    }
  }
}

// Chooses the tile and the chunk.
template <class A>
SimilarityPlan plan(const Problem& problem) {
  SimilarityPlan p{problem.pattern, problem.groups, problem.channels,
                   Strips(problem.pattern.window, kWarps)};
  const Extents box = largest_box(p.strips);
  const auto halo_rows = [&](const Tile& t) { return (t.d() + box.d - 1) * (t.h() + box.h - 1); };
  const auto channel_values = [&](const Tile& t) {
    return t.rows() * odd_pitch<A>(t.w()) + halo_rows(t) * odd_pitch<A>(t.w() + box.w);
  };
  const auto staging_bytes = [&](const Tile& t, int chunk) {
    return std::max<size_t>(size_t(chunk) * channel_values(t), 32 * kOutPitch<A>) * sizeof(A);
  };
  const auto bytes = [&](const Tile& t, int chunk) {
    return staging_bytes(t, chunk) + t.rows() * sizeof(TileRow) + t.w() * sizeof(Column) +
           sizeof(HaloBounds) + (odd_pitch<A>(t.w() + box.w) + halo_rows(t)) * sizeof(int);
  };
  const auto chunk = [&](const Tile& t) {
    int channels = std::max(1, std::min(kMaxChunk, p.channels));
    while (channels > 1 && bytes(t, channels) > kSharedMemory) --channels;
    return channels;
  };
  // Instructions of a warp per channel: about 80 for the sums, 11 per row and 32 columns that it
  // stages per chunk. Tiles of one and four rows meet each bank of shared memory twice.
  const auto cost = [&](const Tile& t) {
    if (bytes(t, 1) > kDefaultSharedMemory) return -1.0;
    const int loads =
        divide_up(t.w(), 32) * t.rows() + divide_up(t.w() + box.w - 1, 32) * halo_rows(t);
    return (t.rows() == 1 || t.rows() == 4 ? 160 : 80) + 11.0 * loads / chunk(t);
  };
  const auto tile =
      choose_tile(5 + kLogThreadPixels<A>, kLogThreadPixels<A>, 5, p.pattern.lengths(), cost);
  if (!tile) fail_to_tile("similarity", p.pattern, p.channels, sizeof(A), kDefaultSharedMemory);
  p.tile = *tile;
  p.chunk = chunk(p.tile);
  p.halo_pitch = odd_pitch<A>(p.tile.w() + box.w);
  p.table = static_cast<int>(staging_bytes(p.tile, p.chunk));
  p.shared = bytes(p.tile, p.chunk);
  return p;
}

}  // namespace

template <class T>
void similarity(const T* x, const T* y, T* values, const Problem& problem, bool distance,
                cudaStream_t stream) {
  const SimilarityPlan p =
      cached<SimilarityPlan>(plan_key(problem.pattern, 0, {problem.groups, problem.channels}),
                             [&] { return plan<accumulate_t<T>>(problem); });
  const int64_t blocks = count_tiles(p.pattern, p.tile) * p.strips.steps();
  launch({"similarity", blocks, p.groups, kThreads, p.shared, stream},
         distance ? similarity_kernel<T, true> : similarity_kernel<T, false>, x, y, values, p);
}

#define CIRCULANT_INSTANTIATE(T) \
  template void similarity(const T*, const T*, T*, const Problem&, bool, cudaStream_t);
CIRCULANT_INSTANTIATE(c10::Half)
CIRCULANT_INSTANTIATE(c10::BFloat16)
CIRCULANT_INSTANTIATE(float)
CIRCULANT_INSTANTIATE(double)

}  // namespace circulant
