// How fused attention of the half types divides its work for tensor cores.
//
// octet    8 neighbouring pixels of a grid row
// line     octets side by side: a grid row. A flat grid, of one row, has two: its even octets and
//          its odd ones
// band     two lines: grid rows y and y + 1, or the one row of a flat grid
//
// grid     z: group     x: tile of 128 pixels
// block    8 warps; the halo comes band by band, all channels, `stages` - 1 steps ahead:
//
//          halo of the tile               tile: 8 x 16 pixels, or 4 x 32, 2 x 64, 1 x 128 (flat)
//
//          ##################  band 0
//          ######+--+--+#####  band 1     the first band of warps meets bands 0 ... n,
//          ######|w0|w1|#####             the second one bands 1 ... n + 1, and so on, with
//          ######+--+--+#####  ...        n = window.h / 2. Other bands are no work for it
//          ######|w2|w3|#####
//
// warp     one octet of each line of a band: 16 pixels, the rows of a product of matrices. 8
//          neighbours, an octet of the halo, are its columns
//
// The octets of a tile begin where those of its halo do. So which columns lie outside of the
// window, or of the grid, is the same for all lines: a word of bits per thread and tile.
//
// In dilated dims, tile and halo are pixels of one class (geometry.h), numbered by their positions
// in it: neighbours in a window are neighbours there. Copies and results find the pixels.
#pragma once

#include <algorithm>
#include <cstdint>

#include <cuda_runtime.h>

#include "kernels.h"
#include "octets.h"
#include "score_terms.h"
#include "tile.cuh"

namespace circulant {

constexpr int kMmaWarps = 8, kMmaThreads = 32 * kMmaWarps;
// Octets of both lines of which a warp computes the scores together. The steps of a band, but for
// the last one, have a multiple of it.
constexpr int kTogether = 3;
// The most octets of a step: MmaWindow has bits for them.
constexpr int kMostOctets = 16;
// Features have at most this many channels. Kernels are compiled for 32, 64 and 128: others are
// filled up with zeros.
constexpr int kMmaMaxChannels = 128;

// The grid of the tile, or that of the halo.
struct MmaGrid {
  Extents size;
  Extents length, longest;  // of the longest classes, and how many of them
  int64_t pixels;
};

// Made once per launch. It has all numbers that kernels need: they have no registers to keep what
// they would compute themselves.
struct MmaPlan {
  MmaGrid tile{}, halo{};  // dims of one pixel come first
  Extents window{}, before{}, after{};
  // Positions of neighbours that exist, see octets.h.
  Limits planes_present{}, rows_present{}, columns_present{};
  Stride stride_d, stride_h, stride_w;
  Extents classes{1, 1, 1};
  int class_count = 1;
  int groups = 0;
  int log_octet_step = 0;  // of the pixels from an octet to the next one of its line
  int octet_step = 0;      // the same number: 8, or 16 if flat
  int line_h = 0;          // rows from line 0 to line 1 of a band, 0 if flat
  int line_w = 0;          // columns, 8 if flat
  int line_offsets = 0;    // offsets of the window, numbered row-major
  int offsets = 0;         // of the window
  int log_across = 0;      // of the octets of a tile line
  int across = 0;          // the same number
  int tile_lines = 0, tile_h = 0, tile_w = 0;
  int tiles_across = 0, tiles_down = 0;
  int margin = 0;         // octets of a line, left of a tile, that the window reaches
  int octets = 0;         // that a warp meets in a line
  int bands = 0;          // of the halo
  int span = 0;           // octets of a step that a warp meets in a line, at most
  int chunks = 0;         // steps per band
  int positions = 0;      // octets of a step in a line
  int log_positions = 0;  // the same, rounded up
  int stages = 0;         // steps in shared memory
  int half = 0;           // values of x or z in a step
  int numbers = 0;        // where the numbers of the halo begin in shared memory, in bytes
  int step_numbers = 0;   // of one kind in a step
  int bias = 0;           // where that of offset 0 is in shared memory, in bytes
  int offset_sums = 0;    // where the sums of the warps begin, see mma_terms.cuh
  int place = 0;          // where the MmaClass of the tile is
  int resident = 1;       // blocks of a multiprocessor
  int table = 0;          // where the table of MmaPlace begins
  // Where its parts begin: planes, rows and columns of the halo, rows and columns of the tile.
  int rows_at = 0, columns_at = 0, tile_rows_at = 0, tile_columns_at = 0, table_size = 0;
  int shared = 0;     // bytes per block
  int granule = 0;    // see octets.h
  Limits granules{};  // columns of the halo where a granule begins

  __host__ __device__ bool is_flat() const { return line_h == 0; }
  int64_t blocks() const {
    return int64_t(class_count) * tile.length.d * tiles_down * tiles_across;
  }
};

// The class of the pixels of a tile, in shared memory: kernels have no registers for it.
struct MmaClass {
  Extents length;           // its pixels
  int row_end, column_end;  // where neighbours that exist end
};

// What the plan depends on beside the problem.
struct MmaNeeds {
  int channels;  // the most of any feature
  int numbers;   // float32 numbers of each pixel of the halo beside its features
  int blocks;    // how many the registers of a multiprocessor have room for, 1 or 2
  // Whether a bias of the offsets, and the sums of its gradient, are in shared memory.
  bool has_bias = false, has_offset_sums = false;
};

// The ring of a warp in mma_terms.cuh, in float32 numbers: rows do not meet in the same banks.
constexpr int kRingPitch = 20, kRingRows = 8 * kRingPitch + 8, kRingFloats = 3 * kRingRows;

// The number of channels that kernels for `channels` are compiled for.
inline int mma_channels(int channels) { return channels <= 32 ? 32 : channels <= 64 ? 64 : 128; }

// The problem with keys as pixels and queries as their neighbours: the queries that have a key in
// their windows are those in its transposed window.
inline AttentionProblem transposed(const AttentionProblem& problem) {
  return {problem.groups, problem.pattern.transposed(), problem.shape};
}

// What the gradients with respect to the queries need.
inline MmaNeeds queries_needs(const AttentionShape& shape, bool has_terms, bool has_bias) {
  const int channels = std::max(shape.channels, shape.value_channels);
  return {channels, shape.distance + has_terms, channels <= 32 && !has_terms ? 2 : 1, has_bias,
          has_bias};
}

// The plan with the fewest issue slots, by count. Throws if there is none.
MmaPlan plan_mma(const AttentionProblem& problem, const MmaNeeds& needs);

// Whether tensor cores compute attention of the half types: if the device has the instructions, and
// by count they are faster.
bool uses_mma(const AttentionProblem& problem);
// The same with terms, if the bias and its sums fit shared memory.
bool uses_mma(const AttentionProblem& problem, bool has_bias);

// Fused attention and its gradients on tensor cores, for c10::Half and c10::BFloat16. For the
// distance, `norms` is scratch memory for a sum per query and one per key.
template <class T>
void attention_mma(const T* q, const T* k, const T* v, T* y, float* lse, float* norms,
                   const ScoreTerms<float>& terms, const AttentionProblem& problem,
                   cudaStream_t stream);
template <class T>
void attention_mma_backward(const T* dy, const T* q, const T* k, const T* v, const float* lse,
                            const float* delta, float* norms, T* dq, T* dk, T* dv,
                            const ScoreTerms<float>& terms, const ScoreTermSums<float>& sums,
                            const AttentionProblem& problem, cudaStream_t stream);

// ScoreTermSums::tiles on tensor cores.
int64_t attention_mma_tiles(const AttentionProblem& problem);

// sum[i] = sum_c x[c, i] y[c, i], for each group.
template <class T>
void sum_products(const char* op, const T* x, const T* y, accumulate_t<T>* sum, int channels,
                  const AttentionProblem& problem, cudaStream_t stream);

}  // namespace circulant
