// The products of a fragment with an octet of both lines of the halo.
#pragma once

#include <cuda_runtime.h>

#include "mma_block.cuh"

namespace circulant {

// Where this thread's rows begin in an octet: of the channels of a line, for add_products, and of
// the channels of both lines, for add_weighted.
template <class T, int D>
__device__ __forceinline__ const T* rows_of_line(const T* octet) {
  return octet + MmaBlock<T, D>::lane() * kOctet;
}
template <class T, int D>
__device__ __forceinline__ const T* rows_of_lines(const T* octet) {
  return rows_of_octets(octet, MmaBlock<T, D>::kLine);
}

// sum += left * right for an octet of a line of the halo, over the channels.
template <class T, int D>
__device__ __forceinline__ void add_products(const T* rows, const uint32_t (&left)[D / 16][4],
                                             float (&sum)[4]) {
#pragma unroll
  for (int c = 0; c < D / 32; ++c) {
    uint32_t right[4];
    load_matrices<true>(right, rows + c * 32 * kOctet);
    multiply_add<T>(sum, left[c * 2], right[0], right[1]);
    multiply_add<T>(sum, left[c * 2 + 1], right[2], right[3]);
  }
}

// sum += weight * the halo's octet, over its pixels in both lines.
template <class T, int D>
__device__ __forceinline__ void add_weighted(const T* rows, const uint32_t (&weight)[4],
                                             float (&sum)[D / 8][4]) {
#pragma unroll
  for (int c = 0; c < D / 16; ++c) {
    uint32_t right[4];
    load_matrices<false>(right, rows + c * 16 * kOctet);
    multiply_add<T>(sum[c * 2], weight, right[0], right[1]);
    multiply_add<T>(sum[c * 2 + 1], weight, right[2], right[3]);
  }
}

}  // namespace circulant
