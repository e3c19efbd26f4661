// How fused attention and its gradients divide their work and their shared memory.
//
// grid     z: group     x: tile of 128 pixels, 64 channels of the sums (32 for float64)
// block    8 warps; per step, 8 or fewer strips of the window:
//
//          products ---> softmax ---> weights[strip, tap][pixel] ---> sums
//              ^                                                       ^
//          staged: tile and halo, two                      staged: halo,
//          chunks of up to 8 channels                      32 channels (16) at a time
//
// warp     products: one strip               sums: every eighth channel
// lane     4 neighbouring pixels of a tile row, the same in each warp
// regs     product[4 pixels][8 taps]         sum[8 channels][4 pixels] (4 channels)
//
// The halo are the pixels that the tile meets in the strips of a step, wrapped when they are
// staged, zero where they are absent. The tile has pixels of one class. Weights never leave the
// block.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "staging.cuh"
#include "strips.cuh"
#include "tile.cuh"

namespace circulant {

constexpr int kAttentionWarps = 8, kAttentionThreads = 32 * kAttentionWarps;
constexpr int kThreadPixels = 4, kLogThreadPixels = 2;
constexpr int kLogTilePixels = 5 + kLogThreadPixels, kTilePixels = 1 << kLogTilePixels;

// Channels of a warp's sums; the halo of half of them is in shared memory at a time (a pass).
constexpr int kPasses = 2;
template <class A>
constexpr int kWarpPassChannels = sizeof(A) == 8 ? 2 : 4;
template <class A>
constexpr int kWarpChannels = kPasses * kWarpPassChannels<A>;
// The same for a block.
template <class A>
constexpr int kPassChannels = kAttentionWarps * kWarpPassChannels<A>;
template <class A>
constexpr int kBlockChannels = kAttentionWarps * kWarpChannels<A>;

// Biases of the offsets of a step, in shared memory: one per tap of its strips.
constexpr int kStepBiases = kAttentionWarps * kStripTaps;

// How many blocks fit the registers of a multiprocessor.
template <class A>
constexpr int kResidentBlocks = sizeof(A) == 8 ? 1 : 2;

// Made once per launch.
struct AttentionPlan {
  Pattern pattern;
  Strips strips;
  Tile tile{};
  int groups = 0;
  int64_t pixels = 0, halo_pixels = 0;  // of the grids of tile and halo
  int channel_blocks = 0;               // blocks with the same tile and other channels of the sums
  int halo_pitch = 0;
  int chunk = 0;                               // channels of the products that are copied at a time
  int statistics = 0, table = 0, staging = 0;  // where these begin in shared memory, in bytes
  int terms = 0;                               // and the terms of scores, see score_terms.cuh
  int shared = 0;                              // bytes per block
};

// Chooses the plan for products of at most `channels` channels and sums of `sum_channels`, with
// room for terms of scores or not. `bytes` is the size of the type that is summed in, `op` a name
// for messages.
AttentionPlan plan_attention(const char* op, const Pattern& pattern, int64_t groups, int channels,
                             int sum_channels, int bytes, bool has_terms = false);

// Indices that the threads of a block share, in shared memory: products and sums leave no registers
// for them.
struct AttentionTable {
  int pixel[kTilePixels];  // in the order of the threads that own them; -1 beyond the grid
  Spot spot;
  // Of a step:
  int halo_h, halo_rows, halo_w;
  HaloBounds bounds;
  int strip_halo[kAttentionWarps];  // where the halo of a strip begins in that of the step
  int strip_taps[kAttentionWarps];  // the taps of a strip in the window, 0 for none
  // The columns and the rows of the halo follow.
};

}  // namespace circulant
