// Square blocks of elements, transposed in registers.
#pragma once

#include <utility>

#include "vector.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// For `bit`, a power of two: lane i of the result is lane (i & ~bit) + (high ? bit : 0), of a where
// i & bit is 0, else of b. Within 128-bit parts this is one unpack instruction.
template <class T, int bit, bool high, int... i>
inline Vec<T> exchange(Vec<T> a, Vec<T> b, std::integer_sequence<int, i...>) {
  constexpr int n = kLanes<T>;
#if defined(__clang__)
  return __builtin_shufflevector(a, b, ((i & ~bit) + (high ? bit : 0) + (i & bit ? n : 0))...);
#else
  return __builtin_shuffle(a, b,
                           Vec<Int<T>>{((i & ~bit) + (high ? bit : 0) + (i & bit ? n : 0))...});
#endif
}

// Lane j of rows[i] becomes lane i of rows[j]: each step swaps one bit of the row number with the
// same bit of the lane number.
template <class T, int bit = kLanes<T> / 2>
inline void transpose_block(Vec<T> (&rows)[kLanes<T>]) {
  if constexpr (bit > 0) {
    using Lanes = std::make_integer_sequence<int, kLanes<T>>;
    CIRCULANT_UNROLL for (int r = 0; r < kLanes<T>; ++r) {
      if (r & bit) continue;
      const Vec<T> a = rows[r], b = rows[r + bit];
      rows[r] = exchange<T, bit, false>(a, b, Lanes{});
      rows[r + bit] = exchange<T, bit, true>(a, b, Lanes{});
    }
    transpose_block<T, bit / 2>(rows);
  }
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
