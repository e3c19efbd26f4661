// values_ij = sum_c x[c, i] y[c, j] (dot) or -1/2 sum_c (x[c, i] - y[c, j])^2 (distance).
//
// grid     z: group             x: tile of 256 pixels i (128 for float64), 8 strips of the window
// block    8 warps; per chunk of up to 8 channels, in shared memory:
//
//          x of the tile [channel][row][column]  and  y of its halo [channel][row][column], wrapped
//
// A tile has pixels of one class, see geometry.h: in shared memory their windows are not dilated.
// There are two chunks in shared memory: one is copied while the products of the other are
// computed. A table says where each value of a channel comes from, the same for all channels: a
// copy is its place in the table, an address and one instruction that needs no register. Types
// that are converted go through registers. Values that do not exist are copied from the first
// pixel, and their products are dropped.
//
// warp     stages one channel, or part of one; computes one strip: 8 taps of a window row
// lane     8 neighbouring pixels of a tile row (4 for float64)
// regs     sum[8 pixels][8 taps]; per channel 8 values of x and 16 of y
//
// The results leave through shared memory, one pixel of each thread at a time: neighbouring threads
// then write neighbouring entries of a row of A. Their slots come from two tables, so that borders,
// where CSR order is rotated, cost no more than the interior: per strip and row the slot of the
// window row, per pixel the tap with the lowest column.
//
// No atomics and a fixed order of additions: results are bitwise reproducible. float16 and bfloat16
// are converted when staged and summed in float32, unless similarity_mma.cu is faster. Every window
// and channel count; grids up to kMaxPixels.
//
// Floors for float32 on an H200 (67 TFLOP/s, 4.3 TB/s): 2 G C N K operations, 4 (2 G C N + G N K)
// bytes.
//   README problem (2, 64, 128, 96, window 15)   0.71 GFLOP   11 us    35 MB     8 us
//   8, 64, 256, 256, window 15                   15.1 GFLOP   225 us   740 MB   172 us
//   8, 64, 256, 256, window 35                   82.2 GFLOP   1.23 ms  2.8 GB   0.66 ms
// Per channel a thread issues 64 FMA (twice that for the distance) and 6 loads of 16 bytes, which
// take shared memory 24 cycles per warp where the FMA take 16: that is the limit, see
// benchmarks/cuda/README.md.
#include <algorithm>

#include "copies.cuh"
#include "entries.cuh"
#include "kernels.h"
#include "launch.h"
#include "map_mma.h"
#include "packed.cuh"
#include "products.cuh"
#include "staging.cuh"
#include "strips.cuh"
#include "tile.cuh"

namespace circulant {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kBlockTaps = kWarps * kStripTaps;
constexpr int kMaxChunk = kWarps;  // a warp stages one channel, or part of it
constexpr int kStages = 2;         // chunks in shared memory

template <class A>
constexpr int kLogThreadPixels = sizeof(A) == 8 ? 2 : 3;
template <class A>
constexpr int kTilePixels = 32 << kLogThreadPixels<A>;

template <class A>
constexpr int kOutPitch = kBlockTaps + kPack<A>;

struct SimilarityPlan {
  Pattern pattern;
  int64_t groups;
  int channels;
  Strips strips;
  Tile tile{};
  int log_chunk = 0;  // of the channels of a chunk
  int channel = 0;    // values of a channel in shared memory, at most
  int halo_pitch = 0;
  int table = 0;      // where it begins in shared memory, in bytes
  size_t shared = 0;  // bytes per block
};

// Indices that the threads of a block share. Complete after a barrier.
template <class A>
struct SimilarityTable {
  Column pixel[kTilePixels<A>];  // in the order of the threads that own them; -1 beyond the grid
  int slot[kWarps][32];          // per strip and lane: where its window row begins in the rows of A
  HaloBounds bounds;
  // Where each value of a channel in shared memory comes from, `channel` of them, follows; then the
  // columns and the rows of the halo.
};

// Fills the tables; `source` has a barrier inside.
template <class A>
__device__ __forceinline__ void tabulate(const SimilarityPlan& p, const Place& place,
                                         const StepBox& box, int step, SimilarityTable<A>& table,
                                         int* source) {
  constexpr int log_pixels = kLogThreadPixels<A>;
  const Extents& window = p.pattern.window;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int tile_pitch = odd_pitch<A>(p.tile.w()), tile_values = p.tile.rows() * tile_pitch;
  const int halo_rows = box.halo_rows(p.tile), halo_w = box.halo_w(p.tile, window.w);
  const Halo halo{source + p.channel + p.halo_pitch, source + p.channel};

  halo.tabulate(place, p.tile, box);
  if (threadIdx.x == 0) table.bounds = HaloBounds(place, p.tile, box);
  for (int i = threadIdx.x; i < kTilePixels<A>; i += kThreads) {
    const int l = i >> log_pixels, row = p.tile.lane_row(l);
    const int column = p.tile.lane_w(l, log_pixels) + (i & ((1 << log_pixels) - 1));
    const int start = place.row_start(p.tile, row), w = place.w.pixel(column);
    const int pixel = start < 0 || w < 0 ? -1 : start + w;
    table.pixel[i] = {pixel, place.w.axis.first_offset(w)};
    source[row * tile_pitch + column] = max(pixel, 0);
  }
  // The values between two rows are not used.
  const int unused = tile_pitch - p.tile.w();
  for (int i = threadIdx.x; i < p.tile.rows() * unused; i += kThreads) {
    source[i / unused * tile_pitch + p.tile.w() + i % unused] = 0;
  }
  const Strip strip(p.strips, step * kWarps + warp);
  const int row = p.tile.lane_row(lane), d = place.d.pixel(p.tile.row_d(row)),
            h = place.h.pixel(p.tile.row_h(row));
  table.slot[warp][lane] = (rotated(strip.a, place.d.axis.first_offset(d), window.d) * window.h +
                            rotated(strip.b, place.h.axis.first_offset(h), window.h)) *
                           window.w;
  __syncthreads();  // rows and columns of the halo are complete
  for (int i = threadIdx.x; i < halo_rows * p.halo_pitch; i += kThreads) {
    const int j = i % p.halo_pitch;
    source[tile_values + i] = halo.rows[i / p.halo_pitch] + (j < halo_w ? halo.columns[j] : 0);
  }
}

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
  const int tile_pitch = odd_pitch<A>(p.tile.w()), tile_values = p.tile.rows() * tile_pitch;
  const int halo_values = box.halo_rows(p.tile) * p.halo_pitch;
  const int row = p.tile.lane_row(lane), column = p.tile.lane_w(lane, log_pixels);
  // Of this thread's first pixel, for the first tap of its strip.
  const int halo_d = p.tile.row_d(row) + strip.a - box.a,
            halo_h = p.tile.row_h(row) + strip.b - box.b, halo_w = column + strip.tap - box.tap;
  const int halo_at = tile_values + (halo_d * box.halo_h(p.tile) + halo_h) * p.halo_pitch + halo_w;

  // [kStages][chunk][tile, halo]: rows of tile_pitch, and of halo_pitch.
  A* const staging = reinterpret_cast<A*>(dynamic_shared_memory);
  A* const out = staging;  // [32][kOutPitch]
  auto& table = *reinterpret_cast<SimilarityTable<A>*>(dynamic_shared_memory + p.table);
  int* const source = reinterpret_cast<int*>(&table + 1);

  tabulate(p, Place(p.pattern, Spot::of_block(p.pattern, p.tile, blockIdx.x / steps)), box, step,
           table, source);

  for (int64_t g = blockIdx.z; g < p.groups; g += gridDim.z) {
    // Mainloop: the sums over the channels.
    const int stage_values = p.channel << p.log_chunk;
    // Starts to copy the channels from `first` on: one per warp, or part of one.
    const auto stage = [&](int first, int to_stage) {
      const int c = warp & ((1 << p.log_chunk) - 1), part = warp >> p.log_chunk;
      if (first + c >= p.channels) return;
      const int64_t channel = g * p.channels + first + c;
      A* const to = staging + to_stage * stage_values + c * p.channel;
      const int begin = part * 32 + lane, stride = kThreads >> p.log_chunk;
      start_copies(x + channel * p.pattern.pixels(), to, source, begin, tile_values, stride);
      start_copies(y + channel * p.pattern.key_pixels(), to + tile_values, source + tile_values,
                   begin, halo_values, stride);
    };
    A sum[pixels][kStripTaps] = {};
    __syncthreads();  // the tables are complete; `out` has been read
    stage(0, 0);
#pragma unroll 1
    for (int first = 0, at = 0; first < p.channels; first += 1 << p.log_chunk, at ^= 1) {
      finish_copies<T, A>();
      __syncthreads();  // the chunk is complete; the one before has been read
      stage(first + (1 << p.log_chunk), at ^ 1);
      if (!strip_exists) continue;
      const A* const chunk = staging + at * stage_values;
      add_products<distance>(chunk + row * tile_pitch + column, p.channel, chunk + halo_at,
                             p.channel, min(1 << p.log_chunk, p.channels - first), sum);
    }

    // Epilogue: a thread writes one entry of the rows of every fourth lane's pixel.
    if (table.bounds.lacks) {
      const bool has_row = table.bounds.has_row(halo_d, halo_h);
#pragma unroll
      for (int j = 0; j < pixels + kStripTaps - 1; ++j) {
        if (has_row && table.bounds.has_column(halo_w + j)) continue;
        // No neighbour for pixel i at tap j - i.
#pragma unroll
        for (int i = 0; i < pixels; ++i) {
          if (j - i >= 0 && j - i < kStripTaps) sum[i][j - i] = 0;
        }
      }
    }
    constexpr int lanes = kThreads / kBlockTaps;
    const int out_tap = threadIdx.x % kBlockTaps, out_warp = out_tap / kStripTaps,
              first_lane = threadIdx.x / kBlockTaps;
    const Strip out_strip(p.strips, step * kWarps + out_warp);
    const int tap = out_strip.tap + threadIdx.x % kStripTaps;
    const bool writes = out_strip.exists(window) && tap < window.w;
    // opaque() keeps the product out of the loop.
    const int K = opaque(static_cast<int>(p.pattern.offsets()));
    T* const of_group = kept(values + g * p.pattern.pixels() * K);
#pragma unroll
    for (int i = 0; i < pixels; ++i) {
      __syncthreads();  // `out`, or the last chunk in its place, has been read
      store_packed(out + lane * kOutPitch<A> + warp * kStripTaps, sum[i]);
      __syncthreads();  // `out` is complete
      if (!writes) continue;
      const Column* const of_pixel = table.pixel + first_lane * pixels + i;
      const int* const of_slot = table.slot[out_warp] + first_lane;
      const A* const from = out + opaque(first_lane * kOutPitch<A> + out_tap);
#pragma unroll 4
      for (int l = 0; l < 32; l += lanes) {
        const Column pixel = of_pixel[l * pixels];
        const int slot = of_slot[l] + rotated(tap, pixel.first, window.w);
        const A result = from[l * kOutPitch<A>];
        T* const to = entry_at(of_group, pixel.pixel, K, slot);
        if (pixel.pixel >= 0) *to = T(distance ? result * A(-0.5) : result);
      }
    }
  }
}

// Chooses the tile and the chunk.
template <class A>
SimilarityPlan plan(const Problem& problem) {
  SimilarityPlan p{problem.pattern, problem.groups, problem.channels,
                   Strips(problem.pattern.window, kWarps)};
  const Device device = current_device();
  // Two blocks fit the registers of a multiprocessor.
  const int half = device.total_shared_memory / 2 - device.block_shared_memory;
  const Extents box = largest_box(p.strips);
  const auto halo_rows = [&](const Tile& t) { return (t.d() + box.d - 1) * (t.h() + box.h - 1); };
  const auto halo_pitch = [&](const Tile& t) { return odd_pitch<A>(t.w() + box.w); };
  const auto channel = [&](const Tile& t) {
    return t.rows() * odd_pitch<A>(t.w()) + halo_rows(t) * halo_pitch(t);
  };
  const auto staging_bytes = [&](const Tile& t, int log_chunk) {
    const size_t staged = size_t(kStages) * channel(t) << log_chunk;
    return std::max<size_t>(staged, 32 * kOutPitch<A>) * sizeof(A);
  };
  const auto bytes = [&](const Tile& t, int log_chunk) {
    return staging_bytes(t, log_chunk) + sizeof(SimilarityTable<A>) +
           (channel(t) + halo_pitch(t) + halo_rows(t)) * sizeof(int);
  };
  const auto log_chunk = [&](const Tile& t) {
    int log = 0;
    while (1 << log < std::min(kMaxChunk, p.channels)) ++log;
    while (log > 0 && bytes(t, log) > size_t(half)) --log;
    return log;
  };
  // Cycles of a multiprocessor per channel: of issue slots, 75 per warp for the sums and 8 per
  // 32 values that are staged; or of shared memory, 24 per warp and 2 per 32 values. Tiles of one
  // and four rows meet each bank twice. And a barrier per chunk.
  const auto cost = [&](const Tile& t) {
    if (bytes(t, 0) > size_t(device.shared_memory)) return -1.0;
    const int copies = divide_up(channel(t), 32);
    const double slots = (kWarps * 75 + 8.0 * copies) / 4;
    const double shared = kWarps * (t.rows() == 1 || t.rows() == 4 ? 48 : 24) + 2.0 * copies;
    return std::max(slots, shared) + 40.0 / (1 << log_chunk(t));
  };
  const auto tile =
      choose_tile(5 + kLogThreadPixels<A>, kLogThreadPixels<A>, 5, p.pattern.lengths(), cost);
  if (!tile) fail_to_tile("similarity", p.pattern, p.channels, sizeof(A), device.shared_memory);
  p.tile = *tile;
  p.log_chunk = log_chunk(p.tile);
  p.channel = channel(p.tile);
  p.halo_pitch = halo_pitch(p.tile);
  p.table = static_cast<int>(staging_bytes(p.tile, p.log_chunk));
  p.shared = bytes(p.tile, p.log_chunk);
  return p;
}

}  // namespace

template <class T>
void similarity(const T* x, const T* y, T* values, const Problem& problem, bool distance,
                cudaStream_t stream) {
  if constexpr (is_half<T>) {
    if (uses_map_mma(problem, kMapSimilarity))
      return similarity_mma(x, y, values, plan_map_mma(problem, kMapSimilarity), distance, stream);
  }
  const auto p = cached_plan<SimilarityPlan>(problem.pattern, {problem.groups, problem.channels},
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
