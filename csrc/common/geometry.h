// Index arithmetic of a circulant pattern, for host and device.
//
// The grid has 1 to 3 spatial dims and is always described by three: missing leading dims have size
// 1 and window 1. Pixels and offsets are numbered row-major, last dim fastest.
//
// Along one dim of n pixels with an odd window w <= n, offset o in [0, w) of pixel i is pixel
// (i + o - w/2) mod n. A row stores its K values by ascending column. Away from the borders that is
// the order of the offsets; at a border it is a rotation of it, separately in each dim:
//
//   slot s of pixel i holds offset (s + first_offset(i)) mod w.
#pragma once

#include <cstdint>

#include <torch/headeronly/macros/Macros.h>

namespace circulant {

// Always inlined: the CPU kernels are compiled once per instruction set, and a copy of such a
// function that was compiled for one must not be the copy that the linker keeps for all.
#define CIRCULANT_INLINE C10_HOST_DEVICE inline __attribute__((always_inline))

constexpr int kSpatialDims = 3;

struct Geometry {
  int64_t size[kSpatialDims];
  int64_t window[kSpatialDims];

  CIRCULANT_INLINE int64_t pixels() const { return size[0] * size[1] * size[2]; }
  CIRCULANT_INLINE int64_t offsets() const { return window[0] * window[1] * window[2]; }
};

// The pixel at offset `o` of pixel `i`; -n <= i + o - w/2 < 2n is all that is asked.
CIRCULANT_INLINE int64_t neighbour(int64_t i, int64_t o, int64_t n, int64_t w) {
  const int64_t j = i + o - w / 2;
  return j < 0 ? j + n : (j >= n ? j - n : j);
}

// The offset of pixel `i` that has the lowest column.
CIRCULANT_INLINE int64_t first_offset(int64_t i, int64_t n, int64_t w) {
  const int64_t r = w / 2;
  if (i < r) return r - i;
  if (i + r >= n) return n + r - i;
  return 0;
}

// The offset that slot `s` of pixel `i` holds.
CIRCULANT_INLINE int64_t offset_of_slot(int64_t i, int64_t s, int64_t n, int64_t w) {
  const int64_t o = s + first_offset(i, n, w);
  return o >= w ? o - w : o;
}

// The slot of pixel `i` that holds offset `o`.
CIRCULANT_INLINE int64_t slot_of_offset(int64_t i, int64_t o, int64_t n, int64_t w) {
  const int64_t s = o - first_offset(i, n, w);
  return s < 0 ? s + w : s;
}

}  // namespace circulant
