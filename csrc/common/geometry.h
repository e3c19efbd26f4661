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
#include <type_traits>

#include <torch/headeronly/macros/Macros.h>

namespace circulant {

// Always inlined: the CPU kernels are compiled once per instruction set. Of an ordinary inline
// function the linker keeps one copy, which may contain instructions that this processor lacks.
#define CIRCULANT_INLINE C10_HOST_DEVICE inline __attribute__((always_inline))

constexpr int kSpatialDims = 3;

struct Geometry {
  int64_t size[kSpatialDims];
  int64_t window[kSpatialDims];

  CIRCULANT_INLINE int64_t pixels() const { return size[0] * size[1] * size[2]; }
  CIRCULANT_INLINE int64_t offsets() const { return window[0] * window[1] * window[2]; }
};

// The functions below compute in the integer type of their first argument: 64 bits on the CPU, 32
// bits in CUDA kernels, where 64-bit arithmetic costs several times as much.
template <class I>
using SameInteger = std::common_type_t<I>;

// The pixel at offset `o` of pixel `i`; requires -n <= i + o - w/2 < 2n.
template <class I>
CIRCULANT_INLINE I neighbour(I i, SameInteger<I> o, SameInteger<I> n, SameInteger<I> w) {
  const I j = i + o - w / 2;
  return j < 0 ? j + n : (j >= n ? j - n : j);
}

// The offset of pixel `i` that has the lowest column.
template <class I>
CIRCULANT_INLINE I first_offset(I i, SameInteger<I> n, SameInteger<I> w) {
  const I r = w / 2;
  if (i < r) return r - i;
  if (i + r >= n) return n + r - i;
  return 0;
}

// The slot of pixel `i` that holds offset `o`.
template <class I>
CIRCULANT_INLINE I slot_of_offset(I i, SameInteger<I> o, SameInteger<I> n, SameInteger<I> w) {
  const I s = o - first_offset(i, n, w);
  return s < 0 ? s + w : s;
}

}  // namespace circulant
