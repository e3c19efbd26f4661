// values_ij = sum_c x[c, i] y[c, j] (dot) or -1/2 sum_c (x[c, i] - y[c, j])^2 (distance).
//
// The taps of a window row are cut into units of 8. A block owns a tile of 256 pixels i (128 for
// float64) of one group and 8 neighbouring units. It walks over the channels, `chunk` of them at a
// time: their x in the tile and their y in its halo, the pixels j that any i of the tile meets in
// these units, are brought to shared memory once, wrapping on the way. A warp owns one unit and a
// thread `run` neighbouring pixels: run x 8 sums in registers, fed per channel by run + (run + 8)
// numbers from shared memory. Results leave through shared memory, one pixel of each run at a time,
// so that neighbouring threads write neighbouring entries of a row; at a border these are rotated
// as CSR order wants.
//
// No atomics, and sums in a fixed order: the same bits each time. float16 and bfloat16 are
// converted on the way to shared memory and summed in float32. Every window and channel count;
// grids up to kMaxPixels.
//
// Floors for float32 on an H200 (67 TFLOP/s, 4.3 TB/s): 2 G C N K operations, 4 (2 G C N + G N K)
// bytes.
//   README problem (2, 64, 128, 96, window 15)   0.71 GFLOP   11 us    35 MB     8 us
//   8, 64, 256, 256, window 15                   15.1 GFLOP   225 us   740 MB   172 us
//   8, 64, 256, 256, window 35                   82.2 GFLOP   1.23 ms  2.8 GB   0.66 ms
// Expected: about half of the first. Per channel a thread issues 64 FMA and reads 24 numbers in 6
// loads of 16 bytes, which take shared memory 24 cycles per warp where the FMA take 16; staging and
// output cost the rest. The distance takes two operations where the dot product takes one.
#include <algorithm>

#include "../common/accumulate.h"
#include "kernels.h"
#include "launch.h"
#include "packed.cuh"
#include "strips.cuh"
#include "tile.cuh"

namespace circulant {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kTaps = kUnitTaps, kSetTaps = kWarps * kTaps;
constexpr int kMaxChunk = kWarps;  // a warp brings one channel at a time

// What the staging is kept to, so that two blocks fit a multiprocessor of any architecture.
constexpr size_t kSharedMemory = 32 * 1024;

// Pixels of a thread.
template <class A>
constexpr int kLogRun = sizeof(A) == 8 ? 2 : 3;

// Rows in shared memory are an odd number of 16-byte packs long: eight threads that read packs at
// the same place of eight neighbouring rows then meet every bank once.
template <class A>
__host__ __device__ int odd_pitch(int columns) {
  return (divide_up(columns, kPack<A>) | 1) * kPack<A>;
}

template <class A>
constexpr int kOutPitch = kSetTaps + kPack<A>;

struct SimilarityPlan {
  Pattern pattern;
  Units units;
  Tile tile;
  int blocks;  // of units
  int halo_pitch;
  int row_table;  // where it begins, in bytes
  int channels, chunk;
  int64_t groups;
};

template <class T, bool distance>
__global__ void __launch_bounds__(kThreads, 2)
    similarity_kernel(const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ values,
                      const SimilarityPlan p) {
  using A = accumulate_t<T>;
  constexpr int run = 1 << kLogRun<A>;
  const Extents &size = p.pattern.size, &window = p.pattern.window;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int set = blockIdx.x % p.blocks, first_unit = set * kWarps;
  const Box box(p.units, set);
  const Unit unit(p.units, first_unit + warp);
  const bool valid = unit.valid(window);
  const Extents origin = p.tile.origin(blockIdx.x / p.blocks, size);
  const int tile_rows = p.tile.rows(), tile_pitch = odd_pitch<A>(p.tile.w());
  const int halo_h = box.halo_h(p.tile), halo_rows = box.halo_rows(p.tile);
  const int halo_w = p.tile.w() + min(box.taps, window.w - box.tap) - 1;
  // Neighbouring threads take neighbouring rows of the tile.
  const int my_row = lane & (tile_rows - 1), my_w = lane >> (p.tile.log_d + p.tile.log_h)
                                                                << kLogRun<A>;
  const int my_halo_row = ((my_row >> p.tile.log_h) + unit.a - box.a) * halo_h +
                          (my_row & (p.tile.h() - 1)) + unit.b - box.b;
  const int64_t N = p.pattern.pixels(), K = p.pattern.offsets();

  A* const tile = reinterpret_cast<A*>(dynamic_shared_memory);  // [chunk][tile_rows][tile_pitch]
  A* const halo = tile + p.chunk * tile_rows * tile_pitch;      // [chunk][halo_rows][halo_pitch]
  A* const out = tile;                                          // [32][kOutPitch]
  // The pixel at which each row of the tile begins, -1 beyond the grid, and each row of the halo.
  int* const tile_start = reinterpret_cast<int*>(dynamic_shared_memory + p.row_table);
  int* const halo_start = tile_start + tile_rows;

  for (int r = threadIdx.x; r < tile_rows; r += kThreads) {
    const int d = origin.d + (r >> p.tile.log_h), h = origin.h + (r & (p.tile.h() - 1));
    tile_start[r] = d < size.d && h < size.h ? (d * size.h + h) * size.w : -1;
  }
  for (int r = threadIdx.x; r < halo_rows; r += kThreads) {
    const int d = origin.d + box.a - window.d / 2 + r / halo_h;
    const int h = origin.h + box.b - window.h / 2 + r % halo_h;
    halo_start[r] =
        (halo_coordinate(d, size.d, window.d) * size.h + halo_coordinate(h, size.h, window.h)) *
        size.w;
  }

  for (int64_t g = blockIdx.z; g < p.groups; g += gridDim.z) {
    A sum[run][kTaps] = {};
    for (int first = 0; first < p.channels; first += p.chunk) {
      const int some = min(p.chunk, p.channels - first);
      __syncthreads();  // the chunk before, or `out`, has been read; the table is complete
      if (warp < some) {
        const T* const from_x = x + (g * p.channels + first + warp) * N;
        const T* const from_y = y + (g * p.channels + first + warp) * N;
        A* const to_tile = tile + warp * tile_rows * tile_pitch;
        A* const to_halo = halo + warp * halo_rows * p.halo_pitch;
        for (int j = lane; j < p.tile.w(); j += 32) {
          const int w = origin.w + j;
          copy_at_once<T, 8>(
              0, tile_rows, 1,
              [&](int r) {
                const int start = tile_start[r];
                return start >= 0 && w < size.w ? from_x[start + w] : T(0);
              },
              [&](int r, T number) { to_tile[r * tile_pitch + j] = A(number); });
        }
        for (int j = lane; j < halo_w; j += 32) {
          const int w = halo_coordinate(origin.w + box.tap - window.w / 2 + j, size.w, window.w);
          copy_at_once<T, 8>(
              0, halo_rows, 1, [&](int r) { return from_y[halo_start[r] + w]; },
              [&](int r, T number) { to_halo[r * p.halo_pitch + j] = A(number); });
        }
      }
      __syncthreads();  // the chunk is complete
      if (!valid) continue;
      const A* from_tile = tile + my_row * tile_pitch + my_w;
      const A* from_halo = halo + my_halo_row * p.halo_pitch + my_w + unit.tap - box.tap;
#pragma unroll 1
      for (int c = 0; c < some; ++c) {
        A a[run], b[run + kTaps];
        load_run(from_tile, a);
        load_run(from_halo, b);
        from_tile += tile_rows * tile_pitch;
        from_halo += halo_rows * p.halo_pitch;
#pragma unroll
        for (int i = 0; i < run; ++i) {
#pragma unroll
          for (int t = 0; t < kTaps; ++t) {
            if (distance) {
              const A difference = a[i] - b[i + t];
              sum[i][t] += difference * difference;
            } else {
              sum[i][t] += a[i] * b[i + t];
            }
          }
        }
      }
    }

    // A thread writes one entry of the rows of every fourth thread's pixel.
    const Unit mine(p.units, first_unit + threadIdx.x % kSetTaps / kTaps);
    const int tap = mine.tap + threadIdx.x % kTaps;
    const bool writes = mine.valid(window) && tap < window.w;
#pragma unroll
    for (int i = 0; i < run; ++i) {
      __syncthreads();  // what `out` or the last chunk held has been read
      store_run(out + lane * kOutPitch<A> + warp * kTaps, sum[i]);
      __syncthreads();  // `out` is complete
      if (!writes) continue;
#pragma unroll 1
      for (int l = threadIdx.x / kSetTaps; l < 32; l += kThreads / kSetTaps) {
        const int row = l & (tile_rows - 1), start = tile_start[row];
        const int w = origin.w + (l >> (p.tile.log_d + p.tile.log_h) << kLogRun<A>)+i;
        if (start < 0 || w >= size.w) continue;
        const int d = origin.d + (row >> p.tile.log_h), h = origin.h + (row & (p.tile.h() - 1));
        const int slot = (slot_of_offset(d, mine.a, size.d, window.d) * window.h +
                          slot_of_offset(h, mine.b, size.h, window.h)) *
                             window.w +
                         slot_of_offset(w, tap, size.w, window.w);
        const A result = out[l * kOutPitch<A> + threadIdx.x % kSetTaps];
        values[(g * N + start + w) * K + slot] = T(distance ? A(-0.5) * result : result);
      }
    }
  }
}

// Chooses the tile, and how many channels are in shared memory at a time. Returns the bytes of a
// block.
template <class A>
size_t choose(SimilarityPlan& p) {
  const Extents box = largest_box(p.units);
  const auto halo_rows = [&](const Tile& t) { return (t.d() + box.d - 1) * (t.h() + box.h - 1); };
  const auto numbers = [&](const Tile& t) {
    return t.rows() * odd_pitch<A>(t.w()) + halo_rows(t) * odd_pitch<A>(t.w() + box.w);
  };
  const auto staging = [&](const Tile& t, int chunk) {
    return std::max<size_t>(size_t(chunk) * numbers(t), 32 * kOutPitch<A>) * sizeof(A);
  };
  const auto bytes = [&](const Tile& t, int chunk) {
    return staging(t, chunk) + (t.rows() + halo_rows(t)) * sizeof(int);
  };
  const auto chunk = [&](const Tile& t) {
    int channels = std::max(1, std::min(kMaxChunk, p.channels));
    while (channels > 1 && bytes(t, channels) > kSharedMemory) --channels;
    return channels;
  };
  // Instructions of a warp per channel: about 80 for the sums, 11 per row and 32 columns that a
  // warp brings per chunk. Tiles of one and four rows meet each bank of shared memory twice.
  const auto cost = [&](const Tile& t) {
    if (bytes(t, 1) > kDefaultSharedMemory) return -1.0;
    const int loads =
        divide_up(t.w(), 32) * t.rows() + divide_up(t.w() + box.w - 1, 32) * halo_rows(t);
    return (t.rows() == 1 || t.rows() == 4 ? 160 : 80) + 11.0 * loads / chunk(t);
  };
  const bool found = choose_tile(5 + kLogRun<A>, kLogRun<A>, 5, p.pattern.size, cost, &p.tile);
  check_cuda(found ? cudaSuccess : cudaErrorInvalidConfiguration);
  p.chunk = chunk(p.tile);
  p.halo_pitch = odd_pitch<A>(p.tile.w() + box.w);
  p.row_table = static_cast<int>(staging(p.tile, p.chunk));
  return bytes(p.tile, p.chunk);
}

}  // namespace

template <class T>
void similarity(const T* x, const T* y, T* values, const Problem& problem, bool distance,
                cudaStream_t stream) {
  const Pattern& s = problem.pattern;
  SimilarityPlan p{s, Units(s.window, kWarps), {}, 0, 0, 0, int(problem.channels),
                   0, problem.groups};
  p.blocks = p.units.sets();
  const size_t shared = choose<accumulate_t<T>>(p);
  launch(distance ? similarity_kernel<T, true> : similarity_kernel<T, false>,
         p.tile.count(s.size) * p.blocks, p.groups, kThreads, shared, stream, x, y, values, p);
}

#define CIRCULANT_INSTANTIATE(T) \
  template void similarity(const T*, const T*, T*, const Problem&, bool, cudaStream_t);
CIRCULANT_INSTANTIATE(c10::Half)
CIRCULANT_INSTANTIATE(c10::BFloat16)
CIRCULANT_INSTANTIATE(float)
CIRCULANT_INSTANTIATE(double)

}  // namespace circulant
