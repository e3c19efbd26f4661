// The type of sums. Separate from dtype.h, so that CUDA kernels do not include torch's Tensor.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

namespace circulant {

// The type of sums of T.
template <class T>
struct Accumulate {
  using type = T;
};
template <>
struct Accumulate<c10::Half> {
  using type = float;
};
template <>
struct Accumulate<c10::BFloat16> {
  using type = float;
};
template <class T>
using accumulate_t = typename Accumulate<T>::type;

// Whether T is float16 or bfloat16.
template <class T>
constexpr bool is_half = sizeof(T) == 2;

}  // namespace circulant
