// Division and multiples, rounded up, for host and device.
#pragma once

#include <type_traits>

#include <cuda_runtime.h>

namespace circulant {

template <class I>
__host__ __device__ constexpr I divide_up(I a, std::common_type_t<I> b) {
  return (a + b - 1) / b;
}

// The least multiple of `b` that is at least `a`.
template <class I>
__host__ __device__ constexpr I round_up(I a, std::common_type_t<I> b) {
  return divide_up(a, b) * b;
}

}  // namespace circulant
