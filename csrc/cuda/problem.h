// The sizes that a kernel works on. ops.cu checks them against the limits below.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/geometry.h"

namespace circulant {

// Kernels compute pixels, coordinates, channels and, in fused attention, groups in 32 bits. Halos
// and loop counters exceed these sizes, by less than a factor of two.
constexpr int64_t kMaxPixels = int64_t(1) << 30, kMaxChannels = kMaxPixels,
                  kMaxAttentionGroups = kMaxPixels;

struct Extents {
  int d, h, w;
};

// A Geometry of odd circular windows in 32 bits.
struct Pattern {
  Extents size;
  Extents window;

  explicit Pattern(const Geometry& g)
      : size{int(g.dims[0].size), int(g.dims[1].size), int(g.dims[2].size)},
        window{int(g.dims[0].window), int(g.dims[1].window), int(g.dims[2].window)} {}

  __host__ __device__ int pixels() const { return size.d * size.h * size.w; }
  __host__ __device__ int64_t offsets() const { return int64_t(window.d) * window.h * window.w; }
};

struct Problem {
  int64_t groups;
  int channels;
  Pattern pattern;
};

struct AttentionShape {
  int channels, value_channels;
  bool distance;
  double scale;  // S = scale * similarity
  double
      log2_scale;  // S / log 2 = log2_scale * sum over channels of products or squared differences
};

struct AttentionProblem {
  int64_t groups;
  Pattern pattern;
  AttentionShape shape;
};

}  // namespace circulant
