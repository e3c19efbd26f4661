// A step of fused attention on tensor cores: some octets of the halo, and which lie in windows.
#pragma once

#include <cuda_runtime.h>

#include "attention_mma.h"

namespace circulant {

// Some octets, at most `span` per line, of a band of a plane of the halo.
struct MmaStep {
  int plane = 0, band = 0, chunk = 0;
  int stage = 0;  // where it is in shared memory

  __device__ __forceinline__ void advance(const MmaPlan& p) {
    stage = stage + 1 < p.stages ? stage + 1 : 0;
    if (++chunk < p.chunks) return;
    chunk = 0;
    if (++band < p.bands) return;
    band = 0;
    ++plane;
  }
};

// Which neighbours of a thread's two pixels, in lines 0 and 1, lie outside of the window.
struct MmaWindow {
  int first;                    // the offset of the first neighbour of a step
  int octet_step, line_w;       // see MmaPlan
  unsigned same, below, above;  // the offsets in the same line, or the other one: 0 for none

  // The neighbour in `line` of octet `o`, in column 2t + i, of the pixel in `of_line`.
  __device__ __forceinline__ bool outside(int o, int line, int of_line, int i) const {
    const unsigned offsets = line == of_line ? same : line > of_line ? below : above;
    return unsigned(first + o * octet_step + (line - of_line) * line_w + i) >= offsets;
  }
};

}  // namespace circulant
