// Loads and stores of every element type, as vectors of the type of the sums.
//
// float and double are stored as they are; the half types are widened to float on loading and
// rounded to nearest, ties to even, on storing.
#pragma once

#include <cstdint>

#include "vector.h"

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// Any 16 bits, copied without a change, also where they are the bits of a NaN.
struct Bits {
  uint16_t bits;
};

// The type of computations with elements of type S.
template <class S>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeType<S>::type;

typedef uint16_t Bits16 __attribute__((vector_size(kVectorBytes / 2)));
using Bits32 = Vec<uint32_t>;

inline Vec<float> widen(Bits16 bits, Bits) {
  return bit_cast<Vec<float>>(__builtin_convertvector(bits, Bits32));
}
inline Bits16 narrow(Vec<float> v, Bits) {
  return __builtin_convertvector(bit_cast<Bits32>(v), Bits16);
}

inline Vec<float> widen(Bits16 bits, BFloat16) {
  return bit_cast<Vec<float>>(__builtin_convertvector(bits, Bits32) << 16);
}

inline Bits16 narrow(Vec<float> v, BFloat16) {
  const Bits32 bits = bit_cast<Bits32>(v);
  const Bits32 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits32 nan = (bits >> 16) | 0x40;
  return __builtin_convertvector(v == v ? rounded : nan, Bits16);
}

#if defined(__AVX512F__)

inline Vec<float> widen(Bits16 bits, Half) { return _mm512_cvtph_ps(bit_cast<__m256i>(bits)); }
inline Bits16 narrow(Vec<float> v, Half) {
  return bit_cast<Bits16>(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#elif defined(__AVX2__)

inline Vec<float> widen(Bits16 bits, Half) { return _mm256_cvtph_ps(bit_cast<__m128i>(bits)); }
inline Bits16 narrow(Vec<float> v, Half) {
  return bit_cast<Bits16>(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#else

// float16 has 5 bits of exponent with bias 15 and 10 of mantissa; float32 has 8 with bias 127
// and 23.
inline Vec<float> widen(Bits16 bits, Half) {
  const Bits32 wide = __builtin_convertvector(bits, Bits32);
  const Bits32 magnitude = (wide & 0x7fff) << 13;
  // The product gives the exponent its new bias, and subnormal numbers their leading one.
  const Vec<float> finite = bit_cast<Vec<float>>(magnitude) * 0x1p112f;
  const Bits32 special = magnitude | 0x7f800000;
  const Bits32 result = (wide & 0x7c00) == 0x7c00 ? special : bit_cast<Bits32>(finite);
  return bit_cast<Vec<float>>(result | ((wide & 0x8000) << 16));
}

inline Bits16 narrow(Vec<float> v, Half) {
  const Bits32 bits = bit_cast<Bits32>(v);
  const Bits32 magnitude = bits & 0x7fffffff;
  const Bits32 normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // Adding 1/2 rounds to the unit of subnormal float16 numbers, 2^-24.
  const Vec<float> shifted = bit_cast<Vec<float>>(magnitude) + 0.5f;
  const Bits32 subnormal = bit_cast<Bits32>(shifted) - 0x3f000000;
  const Bits32 infinite = magnitude > 0x7f800000 ? Bits32{} + 0x7e00 : Bits32{} + 0x7c00;
  // 65520 is the first number that rounds to infinity, 2^-14 the first normal one.
  const Bits32 finite = magnitude < 0x38800000 ? subnormal : normal;
  const Bits32 result = magnitude >= 0x477ff000 ? infinite : finite;
  return __builtin_convertvector(result | ((bits >> 16) & 0x8000), Bits16);
}

#endif

// The 16-bit types.
template <class S, class = decltype(S::bits)>
inline Vec<float> load(const S* p) {
  Bits16 bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return widen(bits, S{});
}
template <class S, class = decltype(S::bits)>
inline void store(S* p, Vec<float> v) {
  const Bits16 bits = narrow(v, S{});
  __builtin_memcpy(p, &bits, sizeof bits);
}

#if defined(__AVX512BW__) && defined(__AVX512VL__)

template <class S, class = decltype(S::bits)>
inline Vec<float> load_range(const S* p, int64_t lo, int64_t hi) {
  const auto mask = static_cast<__mmask16>(lane_mask(lo, hi));
  return widen(bit_cast<Bits16>(_mm256_maskz_loadu_epi16(mask, p)), S{});
}
template <class S, class = decltype(S::bits)>
inline void store_range(S* p, Vec<float> v, int64_t lo, int64_t hi) {
  const auto mask = static_cast<__mmask16>(lane_mask(lo, hi));
  _mm256_mask_storeu_epi16(p, mask, bit_cast<__m256i>(narrow(v, S{})));
}

#else

template <class S, class = decltype(S::bits)>
inline Vec<float> load_range(const S* p, int64_t lo, int64_t hi) {
  Bits16 bits{};
  for (int64_t l = lo; l < hi; ++l) bits[l] = p[l].bits;
  return widen(bits, S{});
}
template <class S, class = decltype(S::bits)>
inline void store_range(S* p, Vec<float> v, int64_t lo, int64_t hi) {
  const Bits16 bits = narrow(v, S{});
  for (int64_t l = lo; l < hi; ++l) p[l].bits = bits[l];
}

#endif

// The first n lanes; n may be as large as the number of lanes.
template <class S>
inline Vec<Compute<S>> load_first(const S* p, int64_t n) {
  return n == kLanes<Compute<S>> ? load(p) : load_range(p, 0, n);
}
template <class S>
inline void store_first(S* p, Vec<Compute<S>> v, int64_t n) {
  if (n == kLanes<Compute<S>>)
    store(p, v);
  else
    store_range(p, v, 0, n);
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
