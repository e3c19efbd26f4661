// Lanes in any order, chosen at run time.
#pragma once

#include <cstdint>

#include "vector.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

// Whether one instruction permutes the lanes of a vector.
#if defined(__AVX512F__)
template <class T>
constexpr bool kPermutes = true;
#elif defined(__AVX2__)
template <class T>
constexpr bool kPermutes = sizeof(T) == sizeof(float);
#else
template <class T>
constexpr bool kPermutes = false;
#endif

// Lane l of the result is lane lanes[l] of v, if kPermutes.
template <class T>
inline Vec<T> permute(Vec<T> v, const Int<T>* lanes) {
  Vec<Int<T>> from;
  __builtin_memcpy(&from, lanes, sizeof from);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == sizeof(float)) {
    return _mm512_permutexvar_ps(bit_cast<__m512i>(from), v);
  } else {
    return _mm512_permutexvar_pd(bit_cast<__m512i>(from), v);
  }
#elif defined(__AVX2__)
  return bit_cast<Vec<T>>(
      _mm256_permutevar8x32_epi32(bit_cast<__m256i>(v), bit_cast<__m256i>(from)));
#else
  return v;
#endif
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
