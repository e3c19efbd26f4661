// similarity.cu of the half types on tensor cores, from sm_80 on.
//
// map_mma.h has the figure of grid, block and warp. Channels first is what the loads of fragments
// want: x[c][pixel] gives, transposed, the left and right factors of x^T y. The distance is
// x y - (|x|^2 + |y|^2) / 2: sums of products begin at the norms. Its error is relative to these,
// and it is -inf where they are infinite.
//
// Fragments of sums, rounded, are scattered in the window's order to shared memory, some rows of
// the window of each pixel. From there runs of CSR order leave 16 bytes at a time. Each entry takes
// a store to shared memory, and none of the arithmetic of CSR order, which is done per run.
//
// Sums are float32. No atomics and a fixed order of additions: results are bitwise reproducible.
// Products of neighbours outside of the window are never written.
#include "entry_runs.cuh"
#include "map_mma.cuh"
#include "mma_launch.h"

namespace circulant {
namespace {

// The squared norm of a pixel of some octets, which four lanes compute together.
template <class T, int D>
__device__ __forceinline__ float squared_norm(const T* octets, int pixel, int part) {
  const T* const from = octets + pixel / kOctet * MapBlock<T, D>::kOctetValues + pixel % kOctet;
  float sum = 0;
#pragma unroll 4
  for (int c = part; c < D; c += 4) {
    const float value = static_cast<float>(from[c * kOctet]);
    sum += value * value;
  }
  sum += from_lane_xor(sum, 1);
  return sum + from_lane_xor(sum, 2);
}

// -1/2 |x - y|^2 of a sum that began at -1/2 of `norms`. It is at most 0, and -inf if they are
// infinite.
template <class A>
__device__ __forceinline__ A distance_of(A sum, A norms) {
  const A distance = norms == INFINITY ? -INFINITY : sum;
  return distance > 0 ? 0 : distance;
}

template <class T, int D>
__global__ void __launch_bounds__(32 * kMapWarps, D <= 64 ? 2 : 1)
    similarity_mma_kernel(const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ values,
                          bool distance, const MapMmaPlan p) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  using Block = MapBlock<T, D>;
  const Block block(p, blockIdx.x);
  const Pattern& pattern = p.pattern;
  const Extents &size = pattern.size, &window = pattern.window;
  const Axis of_d = undilated(pattern.d()), of_h = undilated(pattern.h()),
             of_w = undilated(pattern.w());
  const int row = block.row(), h = block.origin.h + row, w = block.origin.w + block.column();
  const int pixels = min(kMapPixels, size.w - w), K = static_cast<int>(pattern.offsets());
  const uint32_t in_window[2] = {block.columns(block.r(), 0, false),
                                 block.columns(block.r() + 8, 0, false)};
  float* const norms = reinterpret_cast<float*>(dynamic_shared_memory + p.numbers);
  const int image_row = map_image(p.pitch);
  T* const image =
      reinterpret_cast<T*>(dynamic_shared_memory + p.image) + block.warp() * kMapRows * image_row;
  // The entry of this thread's first pixel and column, in a run without a shift.
  T* const own_image =
      image + (block.r() * (p.pitch - 1) + 2 * block.t() + of_w.before - p.margin * kOctet);
  const int lower = 8 * (p.pitch - 1);  // from pixel r to pixel r + 8

  for (int64_t g = blockIdx.z; g < p.groups; g += gridDim.z) {
    __syncthreads();  // the results of the group before have been read
    uint32_t left[kMapRows][D / 16][4];
    float norm[kMapRows][2] = {};
    const int across = 2 << p.log_across;  // octets of a row of the tile
    T* const tile = block.halo(0);
    const int first_channel = block.share().channel;
    const T* const x_channel = x + (g * p.channels + first_channel) * int64_t(pattern.pixels());
    const T* const y_channel =
        kept(y + (g * p.channels + first_channel) * int64_t(pattern.key_pixels()));
#pragma unroll 1
    for (int i = 0; i < p.tile_h; ++i) {
      const int at = (block.origin.d * size.h + min(block.origin.h + i, size.h - 1)) * size.w;
      block.copy_row(x_channel, p.channels, pattern.pixels(), at, block.origin.w, size.w,
                     p.tile_granules, across, tile + i * across * Block::kOctetValues);
    }
    commit_copies();
    clear_channels<D>(tile, p.tile_h * across, p.channels, p.warps);
    wait_copies<0>();
    __syncthreads();  // the tile is complete
#pragma unroll
    for (int i = 0; i < kMapRows; ++i) {
      const T* const from =
          tile + ((row + i) * across + block.column() / kOctet) * Block::kOctetValues;
      const T* const rows = rows_of_octets(from, Block::kOctetValues);
#pragma unroll
      for (int c = 0; c < D / 16; ++c) load_matrices<true>(left[i][c], rows + c * 16 * kOctet);
      if (!distance) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half)
        norm[i][half] = squared_norm<T, D>(from, block.r() + 8 * half, block.t());
    }
    __syncthreads();  // the tile has been read
    for (int i = 0; i < p.stages; ++i)
      clear_channels<D>(block.halo(i), p.positions, p.channels, p.warps);

    MapStep step(p, block.origin.d), ahead = step;
    const auto start_copies = [&] {
      if (ahead.plane < window.d) {
        block.copy_halo(y_channel, p.channels, ahead);
        ahead.advance(p, block.origin.d);
      }
      commit_copies();
    };
    for (int i = 0; i < p.stages - 1; ++i) start_copies();

    int rows[kMapRows] = {}, shift[kMapRows] = {};  // of the runs in the image
#pragma unroll 1
    for (; step.plane < window.d; step.advance(p, block.origin.d)) {
      wait_for_step(p.stages);
      __syncthreads();  // the step is complete, and the one before has been read
      start_copies();
      const T* const halo = block.halo(step.stage);
      if (distance) {
#pragma unroll 1
        for (int i = threadIdx.x / 4; i < p.positions * kOctet; i += blockDim.x / 4) {
          const float of_pixel = squared_norm<T, D>(halo, i, threadIdx.x % 4);
          if (threadIdx.x % 4 == 0) norms[i] = of_pixel;
        }
        __syncthreads();  // the norms are complete
      }
      // The window row of the first of this warp's rows.
      const int first_b = step.row - row;
      if (first_b < 0 || first_b >= window.h + kMapRows - 1 || pixels <= 0) continue;
      const bool exists = block.exists(step);
      const int first_column = block.first_column() + block.column();
      const bool lacks = !exists || !has_key(of_w, first_column) ||
                         !has_key(of_w, first_column + p.octets * kOctet - 1);

      // Where the run that ends with this step begins, for pixel 0 of a row of this warp.
      const auto run = [&](int i) {
        const int b = first_b - i + 1 - rows[i];
        const int slot =
            (rotated(step.plane, of_d.first_offset(block.origin.d), window.d) * window.h +
             rotated(b, of_h.first_offset(h + i), window.h)) *
            window.w;
        const int pixel = (block.origin.d * size.h + h + i) * size.w + w;
        return values + ((g * pattern.pixels() + pixel) * K + slot);
      };
      T* to[kMapRows];
      bool meets[kMapRows];
#pragma unroll
      for (int i = 0; i < kMapRows; ++i) {
        meets[i] = unsigned(first_b - i) < unsigned(window.h) && h + i < size.h;
        if (meets[i] && ++rows[i] == 1) shift[i] = run_shift(run(i));
        // Without a row of the window, nothing reads what is written.
        to[i] = own_image + (i * image_row + shift[i] + max(rows[i] - 1, 0) * window.w);
      }
      const T* keys = halo + block.column() / kOctet * Block::kOctetValues + block.lane() * kOctet;
      const float* number = norms + block.column() + 2 * block.t();
      uint32_t inside[2] = {in_window[0], in_window[1]};
#pragma unroll 1
      for (int o = 0; o < p.octets; ++o) {
        float score[kMapRows][4] = {};
        float both[kMapRows][4];
        if (distance) {
#pragma unroll
          for (int i = 0; i < kMapRows; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
              both[i][j] = norm[i][j / 2] + number[j % 2];
              score[i][j] = -0.5f * both[i][j];
            }
          }
        }
#pragma unroll
        for (int c = 0; c < D / 32; ++c) {
          uint32_t right[4];
          load_matrices<true>(right, keys + c * 32 * kOctet);
#pragma unroll
          for (int i = 0; i < kMapRows; ++i) {
            multiply_add<T>(score[i], left[i][c * 2], right[0], right[1]);
            multiply_add<T>(score[i], left[i][c * 2 + 1], right[2], right[3]);
          }
        }
        if (distance) {
#pragma unroll
          for (int i = 0; i < kMapRows; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) score[i][j] = distance_of(score[i][j], both[i][j]);
          }
        }
        if (lacks) {
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            if (exists && has_key(of_w, first_column + o * kOctet + 2 * block.t() + j)) continue;
#pragma unroll
            for (int i = 0; i < kMapRows; ++i) score[i][j] = score[i][2 + j] = 0;
          }
        }
#pragma unroll
        for (int i = 0; i < kMapRows; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            if (inside[j / 2] & (j % 2 ? 0x10000u : 1u))
              to[i][j / 2 * lower + j % 2] = T(score[i][j]);
          }
          to[i] += kOctet;
        }
        keys += Block::kOctetValues;
        number += kOctet;
        inside[0] >>= 1;
        inside[1] >>= 1;
        if (o % kWordOctets == kWordOctets - 1) {
          inside[0] = block.columns(block.r(), o + 1, false);
          inside[1] = block.columns(block.r() + 8, o + 1, false);
        }
      }
#pragma unroll
      for (int i = 0; i < kMapRows; ++i) {
        // A run ends when it is full, and where CSR order begins again.
        const int next = first_b - i + 1;
        if (!meets[i] || (rows[i] < p.rows && next < window.h && next != of_h.first_offset(h + i)))
          continue;
        sync_warp();  // the runs are complete
        write_runs(image + i * image_row, p.pitch, run(i), K, pixels, rows[i], of_w, w, p.log_lanes,
                   block.lane());
        rows[i] = 0;
      }
    }
  }
#endif
}

}  // namespace

template <class T>
void similarity_mma(const T* x, const T* y, T* values, const MapMmaPlan& plan, bool distance,
                    cudaStream_t stream) {
  launch_map_mma<T>(
      "similarity", kMapSimilarity, plan, stream, {x, y},
      [](auto D) { return similarity_mma_kernel<T, decltype(D)::value>; }, x, y, values, distance);
}

#define CIRCULANT_INSTANTIATE_MMA(T) \
  template void similarity_mma(const T*, const T*, T*, const MapMmaPlan&, bool, cudaStream_t);
CIRCULANT_INSTANTIATE_MMA(c10::Half)
CIRCULANT_INSTANTIATE_MMA(c10::BFloat16)

}  // namespace circulant
