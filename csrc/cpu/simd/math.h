// 2^x and log2(x), lane by lane.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../../common/constants.h"
#include "vector.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

template <class T>
struct FloatFormat;
template <>
struct FloatFormat<float> {
  static constexpr int mantissa_bits = 23;
  static constexpr int32_t bias = 127;
  static constexpr float lowest = -0x1.fffffep127f;
  // 1.5 * 2^mantissa_bits: adding it to a small integer puts that into the low bits of the sum.
  static constexpr float round_magic = 0x1.8p23f;
  // 2^mantissa_bits: numbers from here on are integers.
  static constexpr float integers = 0x1p23f;
  // 2^n is zero below.
  static constexpr float least_exponent = -151;
  // sqrt(1/2).
  static constexpr int32_t sqrt_half_bits = 0x3f3504f3;
  // Terms of the series in log2 below. The first omitted one is below 2^-25 of the sum.
  static constexpr int log_terms = 5;
  // The polynomial of degree 5 with p(0) = 1 that is nearest to 2^f on [-1/2, 1/2]: relative error
  // 0.92e-7, found by linear programming. The coefficients of f^1, f^2, ...
  static constexpr int exp_degree = 5;
  static constexpr float exp_coefficient(int k) {
    constexpr float c[] = {0x1.62e42ap-1f, 0x1.ebf9bcp-3f, 0x1.c6b754p-5f, 0x1.3cea88p-7f,
                           0x1.5bb9eep-10f};
    return c[k - 1];
  }
};
template <>
struct FloatFormat<double> {
  static constexpr int mantissa_bits = 52;
  static constexpr int64_t bias = 1023;
  static constexpr double lowest = -0x1.fffffffffffffp1023;
  static constexpr double round_magic = 0x1.8p52;
  static constexpr double integers = 0x1p52;
  static constexpr double least_exponent = -1076;
  static constexpr int64_t sqrt_half_bits = 0x3fe6a09e667f3bcd;
  static constexpr int log_terms = 11;
  // Taylor's ln(2)^k / k!. The first omitted term is below 2^-55 of the sum.
  static constexpr int exp_degree = 13;
  static constexpr double exp_coefficient(int k) {
    double c = 1;
    for (int i = 1; i <= k; ++i) c *= kLn2 / i;
    return c;
  }
};

// To the nearest integer; infinity and NaN stay.
#if defined(__AVX512F__)

constexpr int kRoundNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
inline Vec<float> round(Vec<float> x) { return _mm512_roundscale_ps(x, kRoundNearest); }
inline Vec<double> round(Vec<double> x) { return _mm512_roundscale_pd(x, kRoundNearest); }

#elif defined(__AVX2__)

constexpr int kRoundNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
inline Vec<float> round(Vec<float> x) { return _mm256_round_ps(x, kRoundNearest); }
inline Vec<double> round(Vec<double> x) { return _mm256_round_pd(x, kRoundNearest); }

#elif defined(__aarch64__)

inline Vec<float> round(Vec<float> x) {
  return bit_cast<Vec<float>>(vrndnq_f32(bit_cast<float32x4_t>(x)));
}
inline Vec<double> round(Vec<double> x) {
  return bit_cast<Vec<double>>(vrndnq_f64(bit_cast<float64x2_t>(x)));
}

#else

// Needs exact floating-point semantics: no -ffast-math.
template <class V>
inline V round(V x) {
  using Format = FloatFormat<decltype(x[0] + x[0])>;
  const V size = x < V{} ? -x : x, rounded = (size + Format::integers) - Format::integers;
  return size < Format::integers ? (x < V{} ? -rounded : rounded) : x;
}

#endif

// p 2^n for p near 1, and zero for n far below the exponents of T, also if p is NaN; a NaN n stays.
#if defined(__AVX512F__)

// Results that the instruction rounds to zero take tens of times as long. Lanes that are masked out
// cost nothing.
inline Vec<float> scale_by_power(Vec<float> p, Vec<float> n) {
  constexpr float least = FloatFormat<float>::least_exponent;
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, broadcast(least), _CMP_NLT_UQ), p, n);
}
inline Vec<double> scale_by_power(Vec<double> p, Vec<double> n) {
  constexpr double least = FloatFormat<double>::least_exponent;
  return _mm512_maskz_scalef_pd(_mm512_cmp_pd_mask(n, broadcast(least), _CMP_NLT_UQ), p, n);
}

#else

// In two factors, since 2^n alone can overflow or underflow where p 2^n does not.
template <class V>
inline V scale_by_power(V p, V n) {
  using T = decltype(p[0] + p[0]);
  using I = Vec<Int<T>>;
  using Unsigned = Vec<std::make_unsigned_t<Int<T>>>;
  using Format = FloatFormat<T>;
  // From here on the result is infinite.
  constexpr T most = 2 * (Format::bias - 1);
  const V bounded = -maximum(broadcast(-most), -n);
  // Modulo 2^32, or 2^64: n far below the exponents is not bounded.
  const I k = bit_cast<I>(bit_cast<Unsigned>(bounded + Format::round_magic) -
                          bit_cast<Unsigned>(V{} + Format::round_magic));
  const I first = k >> 1, second = k - first;
  const V a = bit_cast<V>((first + Format::bias) << Format::mantissa_bits);
  const V b = bit_cast<V>((second + Format::bias) << Format::mantissa_bits);
  return n < Format::least_exponent ? V{} : p * a * b;
}

#endif

// 2^(x - exponent) for x < infinity and an integer exponent: relative error below 2e-7 in float,
// 4e-16 in double.
//
// The fraction of x does not depend on the exponent. So another exponent gives the same
// significand, and the same sums of results but for a power of two, unless they underflow.
template <class T>
inline Vec<T> exp2(Vec<T> x, Vec<T> exponent = Vec<T>{}) {
  using Format = FloatFormat<T>;
  const Vec<T> n = round(x);
  const Vec<T> f = x - n;
  Vec<T> p = broadcast(T(Format::exp_coefficient(Format::exp_degree)));
  CIRCULANT_UNROLL for (int k = Format::exp_degree - 1; k > 0; --k) {
    p = fma(p, f, broadcast(T(Format::exp_coefficient(k))));
  }
  p = fma(p, f, broadcast(T(1)));
  return scale_by_power(p, n - exponent);
}

// log2(x) + exponent for normal numbers x, zero, infinity and NaN, and an integer exponent: the
// same bits for 2 x and exponent - 1.
//
// With x = 2^e m, sqrt(1/2) <= m < sqrt(2) and s = (m - 1) / (m + 1), |s| < 0.172:
// log2(x) = e + 2 / ln(2) (s + s^3 / 3 + s^5 / 5 + ...).
template <class T>
inline Vec<T> log2(Vec<T> x, Vec<T> exponent = Vec<T>{}) {
  using Format = FloatFormat<T>;
  using I = Vec<Int<T>>;
  const I bits = bit_cast<I>(x);
  const I e = (bits - Format::sqrt_half_bits) >> Format::mantissa_bits;
  const Vec<T> m = bit_cast<Vec<T>>(bits - (e << Format::mantissa_bits));
  const Vec<T> s = (m - T(1)) / (m + T(1)), s2 = s * s;
  Vec<T> p{};
  CIRCULANT_UNROLL for (int k = Format::log_terms - 1; k >= 0; --k) {
    p = fma(p, s2, broadcast(T(2 * kLog2E / (2 * k + 1))));
  }
  const Vec<T> result = fma(p, s, __builtin_convertvector(e, Vec<T>) + exponent);
  const Vec<T> infinity = broadcast(T(__builtin_inf()));
  const Vec<T> special = x == T(0) ? -infinity : x;
  return ((x > T(0)) & (x < infinity)) ? result : special;
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
