// y_i = sum_j A_ij x_j and, transposed, y_j = sum_i A_ij x_i. The window is odd, so the pattern is
// symmetric and the transposed product is a gather over the same halo, with other entries of A.
//
// A block owns a tile of pixels and some channels of one group, and walks over the rows of the
// window. For each it holds in shared memory the rows of x that the tile meets, wrapped, and the
// entries of A for `batch` taps at a time. From one window row to the next the tile moves down x by
// one grid row: only that one is brought anew, in the place of the oldest (where a window row is
// too long for shared memory, it is cut into segments and all rows are brought for each). A warp
// owns 128 pixels and `depth` channels, a thread 4 neighbouring pixels of each: 4 x depth sums in
// registers. Warps share the entries of A over channels and the halo over pixels.
//
// No atomics, and sums in a fixed order: the same bits each time. float16 and bfloat16 are
// converted on the way to shared memory and summed in float32. Every window and channel count;
// grids up to kMaxPixels. Taps beyond the window are skipped, not multiplied by zero: 0 * inf is
// not 0.
//
// Floors for float32 on an H200 (67 TFLOP/s, 4.3 TB/s): 2 G C N K operations, 4 (2 G C N + G N K)
// bytes.
//   README problem (2, 64, 128, 96, window 15)   0.71 GFLOP   11 us    35 MB     8 us
//   8, 64, 256, 256, window 15                   15.1 GFLOP   225 us   740 MB   172 us
//   8, 64, 256, 256, window 35                   82.2 GFLOP   1.23 ms  2.8 GB   0.66 ms
// Expected: a third to a half of the first. Per 8 taps a thread issues 512 FMA and reads 224
// numbers in 56 loads of 16 bytes, which take shared memory 224 cycles per warp where the FMA take
// 128; placing the entries of A takes about 40 instructions each, shared by 64 channels. The README
// problem has 192 tiles for 132 multiprocessors, so that some of them are idle in the end.
#include <algorithm>

#include "../common/accumulate.h"
#include "entries.cuh"
#include "kernels.h"
#include "launch.h"
#include "packed.cuh"
#include "tile.cuh"

namespace circulant {
namespace {

constexpr int kMaxWarps = 4, kRun = 4, kLogRun = 2, kLogWarpPixels = 5 + kLogRun;

// Channels of a warp, and taps whose entries of A are in registers at a time.
template <class A>
constexpr int kDepth = sizeof(A) == 8 ? 8 : 16;
template <class A>
constexpr int kTaps = sizeof(A) == 8 ? 4 : 8;

// What a block is kept to, so that three fit a multiprocessor with 228 KiB; and what entries of A
// take of it.
constexpr int kSharedMemory = 72 * 1024, kWeightBytes = 16 * 1024;

// Entries of neighbouring taps lie 4 banks apart.
template <class A>
__host__ __device__ int weights_pitch(const Tile& tile) {
  return tile.pixels() + kPack<A>;
}

struct ApplyPlan {
  Pattern pattern;
  Tile tile;
  int channel_warps;  // warps of a block that share pixels
  int block_channels, channel_blocks;
  int segment, batch;  // taps in the halo, taps among the weights
  int pitch;           // of the halo
  int log_lanes;       // of stage_weights
  int channels;
  int64_t groups;
};

template <class T, bool transposed>
__global__ void __launch_bounds__(32 * kMaxWarps, 3)
    apply_kernel(const T* __restrict__ values, const T* __restrict__ x, T* __restrict__ y,
                 const ApplyPlan p) {
  using A = accumulate_t<T>;
  constexpr int depth = kDepth<A>, taps = kTaps<A>;
  const Extents &size = p.pattern.size, &window = p.pattern.window;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const Extents origin = p.tile.origin(blockIdx.x / p.channel_blocks, size);
  const int first_channel = blockIdx.x % p.channel_blocks * p.block_channels;
  const int channels = min(p.block_channels, p.channels - first_channel);
  const int my_pixel = (warp / p.channel_warps * 32 + lane) * kRun,
            my_channel = warp % p.channel_warps * depth;
  const int my_row = my_pixel >> p.tile.log_w, my_w = my_pixel & (p.tile.w() - 1);
  const int tile_h = p.tile.h(), tile_rows = p.tile.rows(), weight_pitch = weights_pitch<A>(p.tile);
  const int64_t N = p.pattern.pixels(), K = p.pattern.offsets();

  // The row of x that row h of the tile meets at window row b is kept as row (h + b) mod tile_h.
  A* const halo = reinterpret_cast<A*>(dynamic_shared_memory);       // [channels][tile_rows][pitch]
  A* const weights = halo + p.block_channels * tile_rows * p.pitch;  // [batch][weight_pitch]

  for (int64_t g = blockIdx.z; g < p.groups; g += gridDim.z) {
    const T* const from = x + (g * p.channels + first_channel) * N;
    A sum[depth][kRun] = {};
#pragma unroll 1
    for (int window_row = 0; window_row < window.d * window.h; ++window_row) {
      const int a = window_row / window.h, b = window_row % window.h;
#pragma unroll 1
      for (int begin = 0; begin < window.w; begin += p.batch) {
        const int count = min(p.batch, window.w - begin),
                  segment_begin = begin / p.segment * p.segment;
        __syncthreads();  // halo and weights have been read
        if (begin == segment_begin) {
          const int halo_w = p.tile.w() + min(p.segment, window.w - begin) - 1;
          const int fresh = b > 0 && p.segment >= window.w ? tile_h - 1 : 0;
#pragma unroll 1
          for (int d = 0; d < p.tile.d(); ++d) {
#pragma unroll 1
            for (int h = fresh; h < tile_h; ++h) {
              const int row =
                  halo_coordinate(origin.d + d + a - window.d / 2, size.d, window.d) * size.h +
                  halo_coordinate(origin.h + h + b - window.h / 2, size.h, window.h);
              A* const to = halo + (d * tile_h + ((h + b) & (tile_h - 1))) * p.pitch;
#pragma unroll 1
              for (int j = lane; j < halo_w; j += 32) {
                const int w =
                    halo_coordinate(origin.w + begin - window.w / 2 + j, size.w, window.w);
                const T* pixel = from + row * size.w + w;
                copy_at_once<T>(
                    warp, channels, warps, [&](int c) { return pixel[c * N]; },
                    [&](int c, T number) { to[c * tile_rows * p.pitch + j] = A(number); });
              }
            }
          }
        }
        stage_weights<transposed>(values + g * N * K, weights, weight_pitch, p.pattern, p.tile,
                                  origin, {a, b, begin, count}, p.log_lanes);
        __syncthreads();  // halo and weights are complete
        const A* from_halo =
            halo +
            (my_channel * tile_rows + (my_row & ~(tile_h - 1)) + ((my_row + b) & (tile_h - 1))) *
                p.pitch +
            my_w + begin - segment_begin;
        const A* from_weights = weights + my_pixel;
#pragma unroll 1
        for (int left = count; left > 0; left -= taps) {
          A entry[taps][kRun];
#pragma unroll
          for (int t = 0; t < taps; ++t) {
            if (t < left) load_run(from_weights + t * weight_pitch, entry[t]);
          }
#pragma unroll
          for (int c = 0; c < depth; ++c) {
            if (my_channel + c >= channels) break;
            A pixel[kRun + taps];
            load_run(from_halo + c * tile_rows * p.pitch, pixel);
            if (left >= taps) {
#pragma unroll
              for (int t = 0; t < taps; ++t) {
#pragma unroll
                for (int i = 0; i < kRun; ++i) sum[c][i] += entry[t][i] * pixel[i + t];
              }
            } else {
#pragma unroll
              for (int t = 0; t < taps - 1; ++t) {
                if (t >= left) break;
#pragma unroll
                for (int i = 0; i < kRun; ++i) sum[c][i] += entry[t][i] * pixel[i + t];
              }
            }
          }
          from_halo += taps;
          from_weights += taps * weight_pitch;
        }
      }
    }

    // Fresh, so that none of this takes registers during the sums.
    const int row = fresh(my_row), w = origin.w + fresh(my_w);
    const int d = origin.d + (row >> p.tile.log_h), h = origin.h + (row & (tile_h - 1));
    if (d >= size.d || h >= size.h || w >= size.w) continue;
    T* to = y + (g * p.channels + first_channel + my_channel) * N + (d * size.h + h) * size.w + w;
#pragma unroll
    for (int c = 0; c < depth; ++c) {
      if (my_channel + c >= channels) break;
      if (size.w % kRun == 0) {
        store_run(to, sum[c]);
      } else {
#pragma unroll
        for (int i = 0; i < kRun; ++i) {
          if (w + i < size.w) to[i] = T(sum[c][i]);
        }
      }
      to += N;
    }
  }
}

// Chooses the warps of a block, its tile and its share of the window. Returns the bytes of a block.
template <class A>
size_t choose(ApplyPlan& p, int* warps) {
  const Device device = current_device();
  const int limit = std::min(kSharedMemory, device.shared_memory) / static_cast<int>(sizeof(A));
  const Extents &size = p.pattern.size, &window = p.pattern.window;
  const int row_units = divide_up(window.w, kTaps<A>), row_taps = row_units * kTaps<A>;

  // A window row in equal batches.
  const auto batch = [&](const Tile& t) {
    const int most =
        std::max(1, kWeightBytes / static_cast<int>(sizeof(A)) / t.pixels() / kTaps<A>);
    return divide_up(row_units, divide_up(row_units, most)) * kTaps<A>;
  };
  // Threads that read packs in several rows at once meet each bank once.
  const auto pitch = [&](const Tile& t, int segment) {
    return t.w() + (t.w() >= 32 ? segment : divide_up(segment, 32) * 32);
  };
  const auto halo_rows = [&](const Tile& t) { return p.block_channels * t.rows(); };
  // The longest segment for which there is shared memory, 0 if none.
  const auto segment = [&](const Tile& t) {
    const int most = (limit - batch(t) * weights_pitch<A>(t)) / halo_rows(t);
    if (pitch(t, row_taps) <= most) return row_taps;
    const int whole = t.w() >= 32 ? most - t.w() : (most - t.w()) / 32 * 32;
    return std::max(0, whole / batch(t) * batch(t));
  };
  const auto bytes = [&](const Tile& t) {
    return (size_t(halo_rows(t)) * pitch(t, segment(t)) + size_t(batch(t)) * weights_pitch<A>(t)) *
           sizeof(A);
  };
  // Instructions of a block per window row: about 700 per warp and unit of taps for the sums, 40
  // per 32 entries of A, 15 per channel and 32 columns of a row of the halo. They take longer when
  // a multiprocessor has fewer than 8 warps to choose from.
  const auto cost = [&](const Tile& t) {
    const int taps = segment(t);
    if (taps == 0) return -1.0;
    const double rows = taps == row_taps ? double(window.h + t.h() - 1) / window.h
                                         : double(t.h()) * divide_up(row_taps, taps);
    const double instructions =
        700.0 * *warps * row_units + 40.0 / 32 * t.pixels() * row_taps +
        15.0 * t.d() * rows * divide_up(t.w() + taps - 1, 32) * p.block_channels;
    const int resident = *warps * std::max(1, device.resident(bytes(t)));
    return instructions * std::max(1.0, 8.0 / resident);
  };

  // Warps share pixels first: what they have in common then are the entries of A, most of what is
  // read.
  p.channel_warps = 1;
  while (p.channel_warps < kMaxWarps && p.channel_warps * kDepth<A> < p.channels)
    p.channel_warps *= 2;
  int pixel_warps = kMaxWarps / p.channel_warps;
  for (;;) {
    *warps = p.channel_warps * pixel_warps;
    p.block_channels = std::min(p.channel_warps * kDepth<A>, p.channels);
    p.channel_blocks = divide_up(p.channels, p.block_channels);
    int log_pixels = kLogWarpPixels;
    while (1 << (log_pixels - kLogWarpPixels) < pixel_warps) ++log_pixels;
    const bool found = choose_tile(log_pixels, kLogRun, log_pixels, size, cost, &p.tile);
    check_cuda(found ? cudaSuccess : cudaErrorInvalidConfiguration);
    // Smaller blocks if there are too few to give each multiprocessor two.
    if (p.tile.count(size) * p.channel_blocks * p.groups >= 2 * device.multiprocessors ||
        *warps == 1)
      break;
    (pixel_warps > 1 ? pixel_warps : p.channel_warps) /= 2;
  }
  p.segment = segment(p.tile);
  p.batch = batch(p.tile);
  p.pitch = pitch(p.tile, p.segment);
  p.log_lanes = log_tap_lanes(std::min(p.batch, window.w));
  return bytes(p.tile);
}

}  // namespace

template <class T>
void apply(const T* values, const T* x, T* y, const Problem& problem, bool transposed,
           cudaStream_t stream) {
  ApplyPlan p{problem.pattern, {}, 0, 0, 0, 0, 0, 0, 0, int(problem.channels), problem.groups};
  int warps = 0;
  const size_t shared = choose<accumulate_t<T>>(p, &warps);
  launch(transposed ? apply_kernel<T, true> : apply_kernel<T, false>,
         p.tile.count(p.pattern.size) * p.channel_blocks, p.groups, 32 * warps, shared, stream,
         values, x, y, p);
}

#define CIRCULANT_INSTANTIATE(T) \
  template void apply(const T*, const T*, T*, const Problem&, bool, cudaStream_t);
CIRCULANT_INSTANTIATE(c10::Half)
CIRCULANT_INSTANTIATE(c10::BFloat16)
CIRCULANT_INSTANTIATE(float)
CIRCULANT_INSTANTIATE(double)

}  // namespace circulant
