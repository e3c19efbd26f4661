// After the last step of fused attention: totals over the warps, and results to global memory.
#pragma once

#include <cuda_runtime.h>

#include "attention_block.cuh"

namespace circulant {

template <class A>
__device__ __forceinline__ void fill(A* to, A value) {
  A values[kThreadPixels];
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) values[i] = value;
  store_packed(to, values);
}

// The totals of all warps, added in their order. Each warp has stored its own before the last
// barrier of the mainloop.
template <class A>
__device__ __forceinline__ void load_total(const AttentionBlock<A>& block,
                                           A (&total)[kThreadPixels]) {
#pragma unroll
  for (int i = 0; i < kThreadPixels; ++i) total[i] = 0;
#pragma unroll 1
  for (int warp = 0; warp < kAttentionWarps; ++warp) {
    A of_warp[kThreadPixels];
    load_packed(block.warp_total(warp), of_warp);
#pragma unroll
    for (int i = 0; i < kThreadPixels; ++i) total[i] += of_warp[i];
  }
}

// Writes the results of a thread's pixels, those in the grid, to one channel of the result.
template <class T, class A>
__device__ __forceinline__ void store_pixels(const AttentionBlock<A>& block, T* channel,
                                             const A (&result)[kThreadPixels]) {
  const int* const pixel = block.table().pixel + block.tile_pixel();
  const Pattern& pattern = block.p.pattern;
  if (pattern.size.w % kThreadPixels == 0 && pattern.dilation.w == 1) {
    if (pixel[0] >= 0) store_packed(channel + pixel[0], result);
  } else {
#pragma unroll
    for (int i = 0; i < kThreadPixels; ++i) {
      if (pixel[i] >= 0) channel[pixel[i]] = T(result[i]);
    }
  }
}

}  // namespace circulant
