// Conversion between the types that tensors are stored in and those that are computed with.
#pragma once

#include "vector.h"

namespace circulant::CIRCULANT_INSTRUCTION_SET {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type that a stored T is computed with. The unsigned types are for moving values bit by bit.
template <class T>
struct WideOf {
  using type = T;
};
template <>
struct WideOf<Float16> {
  using type = float;
};
template <>
struct WideOf<BFloat16> {
  using type = float;
};
template <>
struct WideOf<uint16_t> {
  using type = uint32_t;
};
template <class T>
struct WideOf<const T> : WideOf<T> {};
template <class T>
using Wide = typename WideOf<T>::type;

template <class To, class From>
CIRCULANT_ALWAYS_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

CIRCULANT_ALWAYS_INLINE float widen(BFloat16 x) {
  return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

// Rounds to the nearest, to even in the middle. The sum would carry a NaN's payload into infinity.
CIRCULANT_ALWAYS_INLINE BFloat16 narrow(float x, BFloat16*) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return {static_cast<uint16_t>(x != x ? (bits >> 16) | 0x40 : rounded)};
}

#if defined(__F16C__)
CIRCULANT_ALWAYS_INLINE float widen(Float16 x) { return _cvtsh_ss(x.bits); }
CIRCULANT_ALWAYS_INLINE Float16 narrow(float x, Float16*) {
  return {static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT))};
}
#else
CIRCULANT_ALWAYS_INLINE float widen(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  const uint32_t rest = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  // Exponent and fraction at float's places, the exponent biased by 15 instead of 127: the product
  // by 2^112 is exact and turns subnormals into normal numbers. Infinity and NaN keep the top
  // exponent.
  const float scaled = bit_cast<float>(rest) * 0x1p112f;
  const uint32_t top = rest >= 0x0f800000 ? 0x7f800000 : 0;
  return bit_cast<float>(bit_cast<uint32_t>(scaled) | top | sign);
}
CIRCULANT_ALWAYS_INLINE Float16 narrow(float x, Float16*) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude > 0x7f800000) {
    half = 0x7e00 | ((magnitude >> 13) & 0x3ff);
  } else if (magnitude >= 0x477ff000) {
    half = 0x7c00;  // from 65520 on, the nearest is infinity
  } else if (magnitude < 0x38800000) {
    // Subnormal: adding 2^-1 * 2^... puts the last bit of the half at the last bit of the float, so
    // that the addition itself rounds.
    half = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
  } else {
    half = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  }
  return {static_cast<uint16_t>(half | sign)};
}
#endif

template <class T>
CIRCULANT_ALWAYS_INLINE T widen(T x) {
  return x;
}
template <class T>
CIRCULANT_ALWAYS_INLINE T narrow(T x, T*) {
  return x;
}
CIRCULANT_ALWAYS_INLINE uint32_t widen(uint16_t x) { return x; }
CIRCULANT_ALWAYS_INLINE uint16_t narrow(uint32_t x, uint16_t*) { return static_cast<uint16_t>(x); }

template <class T>
CIRCULANT_ALWAYS_INLINE void widen(const T* in, Wide<T>* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = widen(in[i]);
}
template <class T>
CIRCULANT_ALWAYS_INLINE void narrow(const Wide<T>* in, T* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = narrow(in[i], static_cast<T*>(nullptr));
}
#if defined(__F16C__)
CIRCULANT_ALWAYS_INLINE void widen(const Float16* in, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(out + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
  }
  for (; i < n; ++i) out[i] = widen(in[i]);
}
CIRCULANT_ALWAYS_INLINE void narrow(const float* in, Float16* out, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < n; ++i) out[i] = narrow(in[i], static_cast<Float16*>(nullptr));
}
#endif

}  // namespace circulant::CIRCULANT_INSTRUCTION_SET
