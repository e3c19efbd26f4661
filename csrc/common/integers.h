// Integer arithmetic that kernels and schedules share.
#pragma once

#include <type_traits>

#include "geometry.h"

namespace circulant {

// The type of the first argument: the others are converted to it.
template <class I>
using SameInteger = std::common_type_t<I>;

template <class I>
CIRCULANT_INLINE I divide_up(I a, SameInteger<I> b) {
  return (a + b - 1) / b;
}

// The smallest multiple of b that is at least a.
template <class I>
CIRCULANT_INLINE I round_up(I a, SameInteger<I> b) {
  return divide_up(a, b) * b;
}

}  // namespace circulant
