// Chooses tile, strips per step and shared memory of fused attention.
#include <algorithm>

#include "attention_plan.h"
#include "launch.h"
#include "packed.cuh"

namespace circulant {
namespace {

// Limit per block where there is more, so that two fit a multiprocessor of 228 KiB.
constexpr int kSharedMemory = 100 * 1024;

// Estimates, not measured: the cost of the instructions of a block that is alone on a
// multiprocessor, relative to one of two, as nothing else computes while they wait for each other;
// cycles from the start of copies from global memory to their end; and cycles of a barrier.
constexpr double kAlone = 1.2, kLatency = 700, kBarrier = 40;

// Channels of a chunk of the products: one per warp if they fit.
constexpr int kLeastChunk = 4, kMaxChunk = kAttentionWarps;

// The parts of shared memory: the table in ints, the others in values.
struct Layout {
  int halo_pitch = 0, halo_rows = 0;
  int halo = 0;   // of one channel
  int chunk = 0;  // 0 marks a layout that does not fit
  int weights = 0, statistics = 0, table = 0, staging = 0, terms = 0;

  int bytes(int value_bytes) const {
    return (weights + statistics + staging + terms) * value_bytes +
           table * static_cast<int>(sizeof(int));
  }
};

// Eight neighbouring threads read packs in eight, or all, rows of a tile. With this pitch, counted
// in packs of 16 bytes, they meet each bank of shared memory once.
int conflict_free_pitch(const Tile& tile, int columns, int pack) {
  const int rows = std::min(tile.rows(), 8), step = 8 / rows;
  const int packs = divide_up(columns, pack);
  return (rows == 1 ? packs : (divide_up(packs, step) | 1) * step) * pack;
}

// `room` is how many values shared memory holds, `pass_channels` how many channels of the halo the
// sums want at a time.
Layout lay_out(const Tile& tile, const Extents& box, int strips, int channels, int pass_channels,
               int room, int pack, bool has_terms) {
  Layout l;
  l.halo_pitch = conflict_free_pitch(tile, tile.w() + box.w, pack);
  l.halo_rows = (tile.d() + box.d - 1) * (tile.h() + box.h - 1);
  l.halo = l.halo_rows * l.halo_pitch;
  l.weights = strips * kStripTaps * kTilePixels;
  // In the gradients, two numbers for each pixel of the tile or of the halo take the place of the
  // largest scores.
  l.statistics =
      kAttentionWarps * kTilePixels + std::max(2 * kAttentionWarps * kTilePixels, 2 * l.halo);
  const int columns = l.halo_pitch, table = sizeof(AttentionTable) / sizeof(int);
  l.table = round_up(table + columns + l.halo_rows, 4);
  // A pass of the sums, or two chunks of the products.
  const int channel = kTilePixels + l.halo;
  l.staging = std::max(pass_channels * l.halo, 2 * std::min(channels, kLeastChunk) * channel);
  if (has_terms) l.terms = kStepBiases + l.halo;  // which is larger than the tile
  const int left = room - l.weights - l.statistics - l.table - l.terms;
  if (l.staging <= left) l.chunk = std::min({channels, kMaxChunk, l.staging / (2 * channel)});
  return l;
}

AttentionPlan make_plan(const char* op, const Pattern& pattern, int64_t groups, int channels,
                        int sum_channels, int bytes, bool has_terms, const Device& device) {
  const bool wide = bytes == sizeof(double);
  const int warp_pass_channels = wide ? kWarpPassChannels<double> : kWarpPassChannels<float>;
  const int pass_channels =
      std::min(round_up(sum_channels, kAttentionWarps), warp_pass_channels * kAttentionWarps);
  // Of the sums of a block.
  const int block_channels =
      std::min(sum_channels, wide ? kBlockChannels<double> : kBlockChannels<float>);
  const int passes = divide_up(block_channels, pass_channels);
  const int resident_blocks = wide ? kResidentBlocks<double> : kResidentBlocks<float>;
  const int limit = std::min(kSharedMemory, device.shared_memory);
  AttentionPlan best{pattern, Strips(pattern.window, 1)};
  best.groups = static_cast<int>(groups);
  best.pixels = pattern.pixels();
  best.halo_pixels = pattern.key_pixels();
  best.channel_blocks =
      divide_up(sum_channels, wide ? kBlockChannels<double> : kBlockChannels<float>);
  double least = -1;
  for (int per_step = 1; per_step <= kAttentionWarps; ++per_step) {
    const Strips strips(pattern.window, per_step);
    const Extents box = largest_box(strips);
    const auto layout = [&](const Tile& t) {
      return lay_out(t, box, per_step, channels, pass_channels, limit / bytes, 16 / bytes,
                     has_terms);
    };
    // Cycles of a multiprocessor, counted. Per channel, 16 per strip for its products, which come
    // from fewer warps if there are fewer strips, 24 for its sums, 1.8 per row of the halo and 32
    // columns. A step waits for its first chunk and for each pass of the sums, while another block
    // may compute; later chunks are copied during the products of the one before.
    const auto cost = [&](const Tile& t) {
      const Layout l = layout(t);
      if (l.chunk == 0) return -1.0;
      const int loads = l.halo_rows * divide_up(t.w() + box.w - 1, 32);
      const int resident = std::min(device.resident(size_t(l.bytes(bytes))), resident_blocks);
      const double work = channels * (16.0 * std::max(per_step, 4) + 1.8 * loads) +
                          block_channels * (24.0 * per_step + 1.8 * loads) +
                          kBarrier * (divide_up(channels, l.chunk) + 2 * passes + 2);
      return strips.steps() * ((resident < resident_blocks ? kAlone : 1.0) * work +
                               kLatency * (1 + passes) / resident);
    };
    const auto tile = choose_tile(kLogTilePixels, kLogThreadPixels, 5, pattern.lengths(), cost);
    if (!tile) continue;
    const double total = cost(*tile) * static_cast<double>(tile->count(pattern.lengths()));
    if (least >= 0 && total >= least) continue;
    least = total;
    const Layout l = layout(*tile);
    best.strips = strips;
    best.tile = *tile;
    best.halo_pitch = l.halo_pitch;
    best.chunk = l.chunk;
    best.statistics = l.weights * bytes;
    best.table = best.statistics + l.statistics * bytes;
    best.staging = best.table + l.table * static_cast<int>(sizeof(int));
    best.terms = best.staging + l.staging * bytes;
    best.shared = l.bytes(bytes);
  }
  if (least < 0) fail_to_tile(op, pattern, channels, bytes, limit);
  return best;
}

}  // namespace

AttentionPlan plan_attention(const char* op, const Pattern& pattern, int64_t groups, int channels,
                             int sum_channels, int bytes, bool has_terms) {
  const Device device = current_device();
  return cached<AttentionPlan>(
      plan_key(pattern, device.index, {groups, channels, sum_channels, bytes, has_terms}), [&] {
        return make_plan(op, pattern, groups, channels, sum_channels, bytes, has_terms, device);
      });
}

}  // namespace circulant
