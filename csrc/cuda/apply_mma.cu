// apply.cu of the half types on tensor cores, from sm_80 on.
//
// map_mma.h has the figure of grid, block and warp. With each row of the halo, x[c][pixel] as it is
// in memory, a step copies the run of one window row of each pixel of the tile; when transposed, of
// each pixel of the halo, for each row of the tile. A warp gathers the band of A from its runs as
// the left factor of a product with two octets of the halo, the right factor.
//
// Sums are float32. No atomics and a fixed order of additions: results are bitwise reproducible.
//
// Of the octets that a warp meets, some neighbours lie outside of the window, with weight 0. 0 *
// inf is NaN: threads look for such values in what they copied, and a step with one is computed
// without tensor cores, neighbour by neighbour.
#include "apply_mma.cuh"
#include "mma_launch.h"

namespace circulant {
namespace {

template <class T, int D, bool transposed>
__global__ void __launch_bounds__(32 * kMapWarps, 2)
    apply_mma_kernel(const T* __restrict__ values, const T* __restrict__ x, T* __restrict__ y,
                     const MapMmaPlan p) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  using Block = ApplyBlock<T, D, transposed>;
  const Block block(p, blockIdx.x / p.channel_blocks);
  const int first_channel = blockIdx.x % p.channel_blocks * D;
  const int channels = min(D, p.channels - first_channel);
  const Pattern& pattern = p.pattern;
  const Extents &size = pattern.size, &window = pattern.window;
  const Axis of_w = pattern.w();
  const int row = block.row(), column = block.column(), r = block.r(), t = block.t();
  const int64_t x_pixels = pattern.key_pixels(), y_pixels = pattern.pixels();
  // Of a group.
  const int64_t entry_count = (transposed ? x_pixels : y_pixels) * pattern.offsets();
  const uint32_t in_window[2] = {block.columns(r, 0, true), block.columns(r + 8, 0, true)};
  // In the runs of a row: the entry of pixel 0 of this warp and column 0 of its halo; from one
  // pixel to the next; from one column to the next.
  const int from_first = of_w.before - p.margin * kOctet;
  const int first_entry = column * p.pitch + (transposed ? window.w - 1 - from_first : from_first);
  const int by_pixel = transposed ? 1 : p.pitch - 1, by_column = transposed ? p.pitch - 1 : 1;
  const int row_entries = p.image_pixels * p.pitch;

  block.tabulate_columns();
  if (threadIdx.x < unsigned(p.stages)) block.spoiled[threadIdx.x] = 0;
  unsigned number = 0;  // of a step
  for (int64_t g = blockIdx.z; g < p.groups; g += gridDim.z) {
    __syncthreads();  // the results of the group before have been read
    const T* const entries = values + g * entry_count;
    const T* const x_channel =
        kept(x + (g * p.channels + first_channel + block.share().channel) * x_pixels);
    for (int i = 0; i < p.stages; ++i)
      clear_channels<D>(block.halo(i), p.positions, channels, p.warps);

    MapStep step(p, block.origin.d), ahead = step, tabulated = step;
    const auto tabulate = [&] {
      block.tabulate_runs(entries, g, tabulated);
      tabulated.advance(p, block.origin.d);
    };
    const auto start_copies = [&] {
      if (ahead.plane < window.d) {
        block.copy_halo(x_channel, channels, ahead);
        block.copy_runs(entries, ahead);
        ahead.advance(p, block.origin.d);
      }
      commit_copies();
    };
    for (int i = 0; i < p.stages - 1; ++i) {
      tabulate();
      __syncthreads();  // the runs of the step are tabulated
      start_copies();
    }
    tabulate();

    float sum[kMapRows][D / 8][4] = {};
#pragma unroll 1
    for (; step.plane < window.d; step.advance(p, block.origin.d)) {
      ++number;
      wait_for_step(p.stages);
      if (block.copied_spoiled(step, channels)) block.spoiled[step.stage] = number;
      __syncthreads();  // the step is complete, and the one before has been read
      start_copies();
      tabulate();
      const RunsOfRow* const of_rows = block.runs_of(step) + row;
      uint32_t meets[kMapRows];  // all bits or none
      const T* of_row[kMapRows];
      uint32_t any = 0;
#pragma unroll
      for (int i = 0; i < kMapRows; ++i) {
        meets[i] = of_rows[i].entries < 0 ? 0 : ~0u;
        any |= meets[i];
        of_row[i] =
            block.runs(step.stage) + (row + i) * row_entries + first_entry + of_rows[i].shift;
      }
      if (!any) continue;
      const T* const halo = block.halo(step.stage) + column / kOctet * Block::kOctetValues;
      if (block.spoiled[step.stage] == number) {
        const int at = block.first_column() + column;
#pragma unroll 1
        for (int j = 0; j < p.octets * kOctet; ++j) {
#pragma unroll
          for (int i = 0; i < 2 * kMapRows; ++i) {
            const int pixel = r + i % 2 * 8, tap = j - pixel + from_first;
            if (!meets[i / 2] || unsigned(tap) >= unsigned(window.w) || !has_key(of_w, at + j))
              continue;
            const float entry = static_cast<float>(of_row[i / 2][pixel * by_pixel + j * by_column]);
#pragma unroll
            for (int c = 0; c < D / 4; ++c) {
              const int channel = c / 2 * 8 + 2 * t + c % 2;
              sum[i / 2][c / 2][i % 2 * 2 + c % 2] +=
                  entry *
                  static_cast<float>(
                      halo[j / kOctet * Block::kOctetValues + channel * kOctet + j % kOctet]);
            }
          }
        }
        continue;
      }
      const T* right_rows = rows_of_octets(halo, Block::kOctetValues);
      uint32_t inside[2] = {in_window[0], in_window[1]};
#pragma unroll
      for (int i = 0; i < kMapRows; ++i) of_row[i] += r * by_pixel + 2 * t * by_column;
#pragma unroll 1
      for (int o = 0; o < p.octets; o += 2) {
        uint32_t left[kMapRows][4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint32_t mask = mask_of(inside[j % 2] >> (j / 2));
#pragma unroll
          for (int i = 0; i < kMapRows; ++i) {
            const T* const at = of_row[i] + (j % 2 * 8 * by_pixel + j / 2 * 8 * by_column);
            left[i][j] = pair_of(at[0], at[by_column]) & mask & meets[i];
          }
        }
#pragma unroll
        for (int c = 0; c < D / 16; ++c) {
          uint32_t right[4];
          load_matrices<false>(right, right_rows + c * 16 * kOctet);
#pragma unroll
          for (int i = 0; i < kMapRows; ++i) {
            multiply_add<T>(sum[i][c * 2], left[i], right[0], right[1]);
            multiply_add<T>(sum[i][c * 2 + 1], left[i], right[2], right[3]);
          }
        }
        right_rows += 2 * Block::kOctetValues;
        inside[0] >>= 2;
        inside[1] >>= 2;
        if (o % kWordOctets == kWordOctets - 2) {
          inside[0] = block.columns(r, o + 2, true);
          inside[1] = block.columns(r + 8, o + 2, true);
        }
#pragma unroll
        for (int i = 0; i < kMapRows; ++i) of_row[i] += 2 * kOctet * by_column;
      }
    }

    // By way of shared memory, so that pixels leave in octets.
    __syncthreads();  // the last step has been read
    T* const tile = block.halo(0);
    const int across = 2 << p.log_across;  // octets of a row of the tile
#pragma unroll
    for (int i = 0; i < 2 * kMapRows; ++i) {
      T* const to = tile +
                    ((row + i / 2) * across + column / kOctet + i % 2) * Block::kOctetValues +
                    2 * t * kOctet + r;
#pragma unroll
      for (int c = 0; c < D / 4; ++c)
        to[(c / 2 * 8 + c % 2) * kOctet] = T(sum[i / 2][c / 2][i % 2 * 2 + c % 2]);
    }
    __syncthreads();  // the results are complete
#pragma unroll 1
    for (int i = 0; i < p.tile_h && block.origin.h + i < size.h; ++i) {
      const int start = (block.origin.d * size.h + block.origin.h + i) * size.w;
      block.each_octet(across, [&](int o, const Share& share) {
        const int w = block.origin.w + o * kOctet;
        if (w >= size.w) return;
        const T* from = tile + (i * across + o) * Block::kOctetValues + share.channel * kOctet;
        T* to = y + ((g * p.channels + first_channel + share.channel) * y_pixels + start + w);
#pragma unroll 1
        for (int c = share.channel; c < channels; c += share.step) {
          if (p.granule == kOctet) {
            copy_pack<kOctet>(from, to);
          } else {
            for (int j = 0; j < kOctet && w + j < size.w; ++j) to[j] = from[j];
          }
          from += share.step * kOctet;
          to += share.step * y_pixels;
        }
      });
    }
  }
#endif
}

}  // namespace

template <class T>
void apply_mma(const T* values, const T* x, T* y, const MapMmaPlan& plan, bool transposed,
               cudaStream_t stream) {
  launch_map_mma<T>(
      transposed ? "apply_transposed" : "apply", transposed ? kMapTransposed : kMapApply, plan,
      stream, {x, y},
      [transposed](auto D) {
        constexpr int channels = std::min(decltype(D)::value, kApplyChannels);
        return transposed ? apply_mma_kernel<T, channels, true>
                          : apply_mma_kernel<T, channels, false>;
      },
      values, x, y);
}

#define CIRCULANT_INSTANTIATE_MMA(T) \
  template void apply_mma(const T*, const T*, T*, const MapMmaPlan&, bool, cudaStream_t);
CIRCULANT_INSTANTIATE_MMA(c10::Half)
CIRCULANT_INSTANTIATE_MMA(c10::BFloat16)

}  // namespace circulant
