// The tile, the units of a set and the shared memory of the kernels of fused attention.
#include <algorithm>

#include "attention_block.cuh"

namespace circulant {
namespace {

// What a block is kept to where there is more, so that two fit a multiprocessor with 228 KiB.
constexpr int kSharedMemory = 100 * 1024;

// What a block that is alone on a multiprocessor costs, relative to one of two: nobody computes
// while it waits for what it brings to shared memory. An estimate.
constexpr double kAlone = 1.2;

// The sizes of the parts of shared memory, in numbers and, of the table, in ints.
struct Layout {
  int pitch, halo_rows, halo;  // of one channel
  int chunk;
  int numbers, partial, table, staged;

  // Of all of it, where a number has so many.
  int bytes(int number) const {
    return (numbers + partial + staged) * number + table * static_cast<int>(sizeof(int));
  }
};

// Eight neighbouring threads take runs in eight, or all, rows of a tile; with such a pitch, counted
// in packs of 16 bytes, they meet each bank of shared memory once.
int halo_pitch(const Tile& tile, int columns, int pack) {
  const int rows = std::min(tile.rows(), 8), step = 8 / rows;
  const int packs = divide_up(columns, pack);
  return (rows == 1 ? packs : (divide_up(packs, step) | 1) * step) * pack;
}

// `room` is how many numbers shared memory holds. A layout without a channel in a chunk, or with
// more than this in all, is none.
Layout layout(const Tile& tile, const Extents& box, int together, int channels, int pass_channels,
              int room, int pack) {
  Layout l;
  l.pitch = halo_pitch(tile, tile.w() + box.w, pack);
  l.halo_rows = (tile.d() + box.d - 1) * (tile.h() + box.h - 1);
  l.halo = l.halo_rows * l.pitch;
  l.numbers = together * kUnitTaps * kAttentionPixels;
  l.partial = 3 * kAttentionWarps * kAttentionPixels;
  l.table = divide_up(static_cast<int>(sizeof(AttentionTable) / sizeof(int)) + l.halo_rows, 4) * 4;
  const int one = kAttentionPixels + l.halo;
  // The channels of a pass of the sums, or a channel of both, or lse and delta of either.
  l.staged = std::max({pass_channels * l.halo, one, 2 * kAttentionPixels, 2 * l.halo});
  const int left = room - l.numbers - l.partial - l.table;
  l.chunk = l.staged > left ? 0 : std::min(channels, l.staged / one);
  return l;
}

}  // namespace

AttentionPlan choose_attention(const Pattern& pattern, int64_t groups, int channels,
                               int result_channels, int bytes) {
  const Extents &size = pattern.size, &window = pattern.window;
  const int pack = 16 / bytes, depth = bytes == 8 ? kSumDepth<double> : kSumDepth<float>;
  const int pass_channels =
      std::min(divide_up(result_channels, kAttentionWarps), depth) * kAttentionWarps;
  const int block_channels = depth * kSumPasses * kAttentionWarps;
  const Device device = current_device();
  const int room = std::min(kSharedMemory, device.shared_memory) / bytes;
  const int most_blocks = bytes == 8 ? kAttentionBlocks<double> : kAttentionBlocks<float>;
  AttentionPlan best{
      pattern, Units(window, 1), {}, static_cast<int>(groups), pattern.pixels(), 0, 0, 0, 0, 0, 0,
      0};
  double least = -1;
  for (int together = 1; together <= kAttentionWarps; ++together) {
    const Units units(window, together);
    const Extents box = largest_box(units);
    const auto fit = [&](const Tile& t) {
      return layout(t, box, together, channels, pass_channels, room, pack);
    };
    // Cycles of a multiprocessor per channel of a set, counted: 16 per unit for its numbers, which
    // come from fewer warps if there are fewer units, 24 for its sums; 3 per row of the halo and 32
    // columns, brought twice; and barriers.
    const auto cost = [&](const Tile& t) {
      const Layout l = fit(t);
      if (l.chunk == 0) return -1.0;
      const int loads = l.halo_rows * divide_up(t.w() + box.w - 1, 32);
      const bool alone = device.resident(size_t(l.bytes(bytes))) < most_blocks;
      return (alone ? kAlone : 1.0) * units.sets() *
             (16.0 * std::max(together, 4) + 24.0 * together + 6.0 * loads + 40);
    };
    Tile tile;
    if (!choose_tile(kLogAttentionPixels, kLogAttentionRun, 5, size, cost, &tile)) continue;
    const double all = cost(tile) * static_cast<double>(tile.count(size));
    if (least >= 0 && all >= least) continue;
    least = all;
    const Layout l = fit(tile);
    best.units = units;
    best.tile = tile;
    best.halo_pitch = l.pitch;
    best.chunk = l.chunk;
    best.partial = l.numbers * bytes;
    best.table = best.partial + l.partial * bytes;
    best.staging = best.table + l.table * static_cast<int>(sizeof(int));
    best.shared = l.bytes(bytes);
  }
  check_cuda(least >= 0 ? cudaSuccess : cudaErrorInvalidConfiguration);
  best.channel_blocks = divide_up(result_channels, block_channels);
  return best;
}

}  // namespace circulant
