// The sizes that a kernel works on. tensors.h checks them against the limits below.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/geometry.h"

namespace circulant {

// Kernels compute pixels, coordinates, channels and, in fused attention, groups in 32 bits. Halos
// and loop counters exceed these sizes, by less than a factor of two.
constexpr int64_t kMaxPixels = int64_t(1) << 30, kMaxChannels = kMaxPixels,
                  kMaxAttentionGroups = kMaxPixels;

// The most offsets of a window.
constexpr int64_t kMaxOffsets = int64_t(1) << 29;

struct Extents {
  int d, h, w;
};

using Axis = DimOf<int>;

// The classes of a dim, see geometry.h. Some have one pixel less than the longest.
struct Classes {
  int count = 1;
  int length = 0, longest = 0;          // pixels of the longest classes, and how many of them
  int key_length = 0, key_longest = 0;  // the same of the keys
  unsigned turn = 0;                    // of a dilated circle, 2^32 dilation / size

  Classes() = default;
  explicit Classes(const Axis& a) : count(a.classes()) {
    const int step = a.circular ? count : a.dilation;
    length = (a.size - 1) / step + 1;
    longest = a.size - (length - 1) * step;
    key_length = (a.keys - 1) / step + 1;
    key_longest = a.keys - (key_length - 1) * step;
    if (a.circular && a.dilation > 1) {
      turn = static_cast<unsigned>((uint64_t(a.dilation) << 32) / a.size);
    }
  }
};

// A Geometry in 32 bits: pixels and their neighbours, the keys of queries or the queries of keys.
struct Pattern {
  Extents size, keys;  // of the grids of the pixels and of their neighbours
  Extents window, before, dilation, circular;
  Classes classes[kSpatialDims];

  explicit Pattern(const Geometry& g) {
    const auto each = [&g](const auto& of) {
      return Extents{int(of(g.dims[0])), int(of(g.dims[1])), int(of(g.dims[2]))};
    };
    size = each([](const Dim& dim) { return dim.size; });
    keys = each([](const Dim& dim) { return dim.keys; });
    window = each([](const Dim& dim) { return dim.window; });
    before = each([](const Dim& dim) { return dim.before; });
    // The neighbour at an only offset is the pixel itself.
    dilation = each([](const Dim& dim) { return dim.window == 1 ? 1 : dim.dilation; });
    circular = each([](const Dim& dim) { return dim.window == 1 || dim.circular; });
    count_classes();
  }
  // The pattern of the neighbours.
  Pattern transposed() const {
    Pattern p = *this;
    p.size = keys;
    p.keys = size;
    p.before = {d().after(), h().after(), w().after()};
    p.count_classes();
    return p;
  }

  __host__ __device__ Axis d() const {
    return {size.d, keys.d, before.d, window.d, dilation.d, circular.d != 0};
  }
  __host__ __device__ Axis h() const {
    return {size.h, keys.h, before.h, window.h, dilation.h, circular.h != 0};
  }
  __host__ __device__ Axis w() const {
    return {size.w, keys.w, before.w, window.w, dilation.w, circular.w != 0};
  }
  __host__ __device__ int pixels() const { return size.d * size.h * size.w; }
  __host__ __device__ int key_pixels() const { return keys.d * keys.h * keys.w; }
  __host__ __device__ int64_t offsets() const { return int64_t(window.d) * window.h * window.w; }
  // The sizes of the longest class in each dim.
  __host__ __device__ Extents lengths() const {
    return {classes[0].length, classes[1].length, classes[2].length};
  }
  // How many combinations of classes in each dim.
  __host__ __device__ int class_count() const {
    return classes[0].count * classes[1].count * classes[2].count;
  }
  // Whether neighbours can be absent.
  __host__ __device__ bool is_bounded() const { return !(circular.d && circular.h && circular.w); }

  // Sets `classes`, after a change of the others.
  void count_classes() {
    classes[0] = Classes(d());
    classes[1] = Classes(h());
    classes[2] = Classes(w());
  }
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
