// How similarity, apply and apply_transposed of the half types divide their work for tensor cores.
//
// octet    8 neighbouring pixels of a grid row, from a multiple of 8 on
// run      the entries of one or more window rows of a pixel, neighbours in CSR order
//
// grid     z: group     x: tile of pixels of a plane, and in apply up to 64 channels
// block    up to 8 warps, side by side and one below the other
// step     one row of the halo: for each row of the tile another row of the window. It is copied
//          `stages` - 1 steps ahead, by octets
// warp     kMapRows rows of 16 pixels. A row of 16 pixels is the rows of a product of matrices, an
//          octet of the halo (in apply two) its other side
//
// Octets of the tile begin where those of its halo do. So which columns lie outside of the window
// is the same for all rows: a word of bits per thread and pixel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <cuda_runtime.h>

#include "octets.h"
#include "problem.h"

namespace circulant {

constexpr int kMapWarps = 8, kMapRows = 2, kMapPixels = 16;
// Entries of a word of 16 bytes.
constexpr int kRunWord = 8;
// Octets that a word of bits describes, see MapBlock.
constexpr int kWordOctets = 16;
// The kernels of apply are compiled for up to 64 channels, and others take several blocks.
constexpr int kMapChannels = 128, kApplyChannels = 64;

enum MapOp { kMapSimilarity, kMapApply, kMapTransposed };

struct MapMmaPlan {
  Pattern pattern;  // from the pixels of a tile to those of its halo
  int64_t groups = 0;
  int channels = 0, channel_blocks = 1;
  int warps = 0;
  int log_across = 0;  // of the warps side by side
  int tile_h = 0, tile_w = 0, tiles_down = 0, tiles_across = 0;
  int margin = 0;         // octets left of the tile, which the window reaches
  int octets = 0;         // that a warp meets in a row of the halo
  int positions = 0;      // octets of a row of the halo
  int log_positions = 0;  // of those that are copied at a time
  int steps = 0;          // per plane of the window
  int stages = 0;
  // Positions of neighbours that exist, see octets.h.
  Limits planes_present{}, rows_present{}, columns_present{};
  int granule = 0;                          // see octets.h
  Limits tile_granules{}, halo_granules{};  // columns where a granule begins
  int pitch = 0;               // entries from the run of a pixel to that of the next one
  int rows = 1;                // of the window in a run
  int log_lanes = 0;           // of the lanes that copy a run together
  int image_pixels = 0;        // in apply, pixels that have a run, per row of the tile
  unsigned image_inverse = 0;  // 2^32 / image_pixels, rounded up
  // In shared memory, in bytes.
  int image = 0;    // where the runs begin: in a stage or, in similarity, in the block
  int stage = 0;    // the size of a stage
  int numbers = 0;  // where norms or tables begin
  int shared = 0;   // the size of all

  int64_t blocks() const {
    return int64_t(pattern.size.d) * tiles_down * tiles_across * channel_blocks;
  }
};

// Entries of the runs of a row of a warp, which begin up to 7 entries behind an aligned address.
CIRCULANT_INLINE int map_image(int pitch) { return kMapPixels * pitch + 8; }

// The number of channels that kernels for `channels` are compiled for.
inline int map_channels(int channels, MapOp op) {
  return channels <= 32 ? 32 : channels <= 64 || op != kMapSimilarity ? 64 : 128;
}

// The plans that the device has shared memory for, and the one of least time, by count.
std::vector<MapMmaPlan> map_mma_plans(const Problem& problem, MapOp op);
MapMmaPlan plan_map_mma(const Problem& problem, MapOp op);

// Issue slots of all warps, by count, without tensor cores and with them: infinitely many if there
// is no plan.
struct MapSlots {
  double fma, mma;
};
MapSlots map_slots(const Problem& problem, MapOp op);

// Whether tensor cores compute a map of the half types: if there is no dilation, the device has the
// instructions, and by count they are faster.
bool uses_map_mma(const Problem& problem, MapOp op);

// The maps on tensor cores, for c10::Half and c10::BFloat16. similarity_mma takes up to
// kMapChannels channels.
template <class T>
void similarity_mma(const T* x, const T* y, T* values, const MapMmaPlan& plan, bool distance,
                    cudaStream_t stream);
template <class T>
void apply_mma(const T* values, const T* x, T* y, const MapMmaPlan& plan, bool transposed,
               cudaStream_t stream);

}  // namespace circulant
