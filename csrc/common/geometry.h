// Index arithmetic of a circulant pattern, for host and device.
//
// The grid has 1 to 3 spatial dims and is always described by three: missing leading dims have size
// 1 and window 1. Pixels and offsets are numbered row-major, last dim fastest.
//
// Along one dim, a window relates queries and keys: offset o in [0, window) of query i is key
// i + dilation (o - before). A circular dim takes it modulo the size. In a truncated dim a key
// outside of the grid is absent. A dim is valid if the grid of keys is longer than that of the
// queries by a halo, so that no key is absent; it is a truncated dim with before = 0.
//
// A row stores K values. In a circular dim they are in the order of ascending columns. Away from
// the borders that is the order of the offsets; at a border it is a rotation of it, separately in
// each dim:
//
//   slot s of pixel i holds offset (s + first_offset(i)) mod window.
//
// In other dims they are in the order of the offsets, with zeros for absent keys.
#pragma once

#include <cstdint>

#include <torch/headeronly/macros/Macros.h>

namespace circulant {

// Always inlined: the CPU kernels are compiled once per instruction set. Of an ordinary inline
// function the linker keeps one copy, which may contain instructions that this processor lacks.
#define CIRCULANT_INLINE C10_HOST_DEVICE inline __attribute__((always_inline))

constexpr int kSpatialDims = 3;

// I is the type of indices: 64 bits on CPUs, 32 in CUDA kernels, where 64-bit arithmetic costs
// several times as much.
template <class I>
struct DimOf {
  I size, keys;  // of the grids of queries and of keys
  I before, window, dilation;
  bool circular;

  CIRCULANT_INLINE I after() const { return window - 1 - before; }
  // The distance from the first to the last offset.
  CIRCULANT_INLINE I reach() const { return dilation * (window - 1); }
  // The relation of the keys to the queries.
  CIRCULANT_INLINE DimOf transposed() const {
    return {keys, size, after(), window, dilation, circular};
  }
  // The key at position j, -1 if it is absent; a circular dim takes -keys <= j < 2 keys.
  CIRCULANT_INLINE I key(I j) const {
    if (circular) return j < 0 ? j + keys : (j >= keys ? j - keys : j);
    return j < 0 || j >= keys ? -1 : j;
  }
  // The key at offset o of query i, -1 if it is absent.
  CIRCULANT_INLINE I neighbour(I i, I o) const { return key(i + dilation * (o - before)); }
  // The offset of query i that has the lowest column.
  CIRCULANT_INLINE I first_offset(I i) const {
    if (!circular) return 0;
    const I left = dilation * before - i, right = keys - i;
    if (left <= 0 && dilation * after() < right) return 0;
    return left > 0 ? steps(left) : before + steps(right);
  }
  // The slot of query i that holds offset o.
  CIRCULANT_INLINE I slot_of_offset(I i, I o) const {
    const I s = o - first_offset(i);
    return s < 0 ? s + window : s;
  }

  // A dilated dim falls into classes that no window leaves: a circle into circles of one length, a
  // line into lines. Pixel t of class c is (c + t dilation) mod size. A class by itself is a dim
  // without dilation.
  CIRCULANT_INLINE I classes() const {
    if (!circular) return dilation < size ? dilation : size;
    I a = size, b = dilation;
    while (b != 0) {
      const I r = a % b;
      a = b;
      b = r;
    }
    return a;
  }
  CIRCULANT_INLINE DimOf of_class(I c) const {
    if (dilation == 1) return *this;
    return {size_of_class(size, c), size_of_class(keys, c), before, window, 1, circular};
  }

 private:
  // The least number of dilations that reach `distance`. Most windows have none, and the branch is
  // cheaper than a division.
  CIRCULANT_INLINE I steps(I distance) const {
    return dilation == 1 ? distance : (distance + dilation - 1) / dilation;
  }
  // The pixels of class c, of n.
  CIRCULANT_INLINE I size_of_class(I n, I c) const {
    if (circular) return n / classes();
    return n > c ? steps(n - c) : 0;
  }
};

using Dim = DimOf<int64_t>;

struct Geometry {
  Dim dims[kSpatialDims];  // planes, rows and columns

  Geometry() = default;
  // Odd circular windows.
  CIRCULANT_INLINE Geometry(const int64_t (&size)[kSpatialDims],
                            const int64_t (&window)[kSpatialDims]) {
    for (int d = 0; d < kSpatialDims; ++d) {
      dims[d] = {size[d], size[d], window[d] / 2, window[d], 1, true};
    }
  }

  // N, the pixels of the queries, and those of the keys.
  CIRCULANT_INLINE int64_t pixels() const { return dims[0].size * dims[1].size * dims[2].size; }
  CIRCULANT_INLINE int64_t key_pixels() const { return dims[0].keys * dims[1].keys * dims[2].keys; }
  CIRCULANT_INLINE int64_t offsets() const {
    return dims[0].window * dims[1].window * dims[2].window;
  }
  CIRCULANT_INLINE Geometry transposed() const {
    Geometry g;
    for (int d = 0; d < kSpatialDims; ++d) g.dims[d] = dims[d].transposed();
    return g;
  }
};

}  // namespace circulant
