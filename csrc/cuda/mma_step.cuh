// A step of fused attention on tensor cores: some octets of the halo, and which lie in windows.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "attention_mma.h"

namespace circulant {

// Some octets, at most `span` per line, of a band of a plane of the halo.
struct MmaStep {
  int plane, band, chunk = 0;
  int stage = 0;  // where it is in shared memory

  __device__ __forceinline__ void advance(const MmaPlan& p, const Limits& bands) {
    stage = stage + 1 < p.stages ? stage + 1 : 0;
    if (++chunk < p.chunks) return;
    chunk = 0;
    if (++band <= bands.high) return;
    band = bands.low;
    ++plane;
  }
};

// Which neighbours of a thread's two pixels, in lines 0 and 1, lie in the window: bit 2 o + i
// stands for the neighbour in `line` of octet `o`, in column 2t + i, of the pixel in `of_line`.
struct MmaWindow {
  uint32_t inside[2][2];  // [line][of_line]

  __device__ __forceinline__ bool outside(uint32_t bit, int line, int of_line) const {
    return !(inside[line][of_line] & bit);
  }
  // Leaves out the first octets.
  __device__ __forceinline__ void advance(int octets) {
#pragma unroll
    for (int line = 0; line < 2; ++line) {
#pragma unroll
      for (int of_line = 0; of_line < 2; ++of_line) inside[line][of_line] >>= 2 * octets;
    }
  }
};

}  // namespace circulant
