// The inner loops of the kernels, in registers: pixels of a thread and neighbouring taps.
#pragma once

#include <cuda_runtime.h>

#include "packed.cuh"
#include "strips.cuh"

namespace circulant {

// sum[i][t] += sum_c x[c, i] y[c, i + t] or, for the distance, sum_c (x[c, i] - y[c, i + t])^2.
// Channels of x and y in shared memory are `x_pitch` and `y_pitch` values apart; x and y are
// aligned to 16 bytes.
template <bool distance, int pixels, class A>
__device__ __forceinline__ void add_products(const A* x, int x_pitch, const A* y, int y_pitch,
                                             int channels, A (&sum)[pixels][kStripTaps]) {
#pragma unroll 1
  for (int c = 0; c < channels; ++c) {
    A a[pixels], b[pixels + kStripTaps];
    load_packed(x, a);
    load_packed(y, b);
    x += x_pitch;
    y += y_pitch;
#pragma unroll
    for (int i = 0; i < pixels; ++i) {
#pragma unroll
      for (int t = 0; t < kStripTaps; ++t) {
        if (distance) {
          const A difference = a[i] - b[i + t];
          sum[i][t] += difference * difference;
        } else {
          sum[i][t] += a[i] * b[i + t];
        }
      }
    }
  }
}

// sum[i] += sum_t weight[t][i] x[i + t] over the first `count` taps. The others are skipped, not
// multiplied by zero: 0 * inf is not 0.
template <int taps, int pixels, class A>
__device__ __forceinline__ void add_weighted(const A (&weight)[taps][pixels],
                                             const A (&x)[pixels + taps], int count,
                                             A (&sum)[pixels]) {
  if (count >= taps) {
#pragma unroll
    for (int t = 0; t < taps; ++t) {
#pragma unroll
      for (int i = 0; i < pixels; ++i) sum[i] += weight[t][i] * x[i + t];
    }
  } else {
#pragma unroll
    for (int t = 0; t < taps - 1; ++t) {
      if (t >= count) break;
#pragma unroll
      for (int i = 0; i < pixels; ++i) sum[i] += weight[t][i] * x[i + t];
    }
  }
}

}  // namespace circulant
