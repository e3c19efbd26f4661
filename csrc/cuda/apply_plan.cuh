// How `apply` and `apply_transposed` divide their work.
#pragma once

#include <algorithm>

#include "entries.cuh"
#include "launch.h"
#include "packed.cuh"
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

// Blocks of kMaxWarps that fit the registers of a multiprocessor; cycles until a load is complete,
// an estimate.
constexpr int kMaxBlocks = 3, kLatency = 1000;

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

  // In values.
  constexpr int column = sizeof(Column) / sizeof(A), entry_row = sizeof(int64_t) / sizeof(A),
                spot = sizeof(Spot) / sizeof(A);

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
    const int most = (limit / value_bytes - batch(t) * entry_pitch<A>(t) - t.w() * column -
                      2 * t.rows() * entry_row - spot) /
                     (halo_rows(t) + column);
    if (halo_pitch(t, row_taps) <= most) return row_taps;
    const int whole = t.w() >= 32 ? most - t.w() : (most - t.w()) / 32 * 32;
    return std::max(0, whole / batch(t) * batch(t));
  };
  const auto bytes = [&](const Tile& t) {
    const int pitch = halo_pitch(t, segment(t));
    return (size_t(halo_rows(t)) * pitch + size_t(batch(t)) * entry_pitch<A>(t) +
            size_t(column) * (pitch + t.w()) + size_t(entry_row) * 2 * t.rows() + spot) *
           value_bytes;
  };
  // Cycles of a multiprocessor per window row of a block, counted: of issue slots, per warp and
  // kTaps taps 700 for the sums, 14 per 32 entries of A, 8 per channel and 32 columns of a row of
  // the halo; or of shared memory, 224, 3 and 1. A block by itself computes with few warps and
  // waits for each batch that it stages; the others that fit compute meanwhile.
  const auto cost = [&](const Tile& t) {
    const int taps = segment(t);
    if (taps == 0) return -1.0;
    const double rows = taps == row_taps ? double(window.h + t.h() - 1) / window.h
                                         : double(t.h()) * divide_up(row_taps, taps);
    const double entries = t.pixels() * row_taps / 32.0;
    const double loads = t.d() * rows * divide_up(t.w() + taps - 1, 32) * p.block_channels;
    const double slots = 700.0 * p.warps * row_passes + 14 * entries + 8 * loads;
    const double shared = 224.0 * p.warps * row_passes + 3 * entries + loads;
    const double alone = slots / p.warps + kLatency * divide_up(row_taps, batch(t));
    const int resident =
        std::max(1, std::min(kMaxBlocks * kMaxWarps / p.warps, device.resident(bytes(t))));
    return std::max({slots / 4, shared, alone / resident});
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
}  // namespace circulant
