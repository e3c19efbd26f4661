// Vectors of the instruction set that the including file is compiled for.
//
// The kernels are compiled once per instruction set, each time in a namespace of that name. They
// call no inline function from outside that namespace, such as a standard algorithm, unless it is
// always inlined: the linker keeps one copy, which may contain instructions that this processor
// lacks.
#pragma once

#include <cstdint>

#include "../../common/integers.h"

#if defined(__AVX2__)
#if defined(__clang__)
#include <immintrin.h>
#else
// GCC 12 warns about undefined operands inside its own AVX-512 functions (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif
#endif

namespace circulant::simd::CIRCULANT_INSTRUCTION_SET {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 32;
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;
#endif

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
struct VectorType {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VectorType<T>::type;

// The integer as wide as T. Comparisons of vectors give vectors of it: 0 or -1 in each lane.
template <class T>
struct IntegerType;
template <>
struct IntegerType<float> {
  using type = int32_t;
};
template <>
struct IntegerType<double> {
  using type = int64_t;
};
template <class T>
using Int = typename IntegerType<T>::type;

// For loops over arrays of vectors: unrolled, so that the vectors stay in registers.
#define CIRCULANT_UNROLL _Pragma("GCC unroll 64")

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Not Vec<T>{} + x: that is an addition, and 0 + x differs from x = -0.
inline Vec<float> broadcast(float x) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(x);
#elif defined(__AVX2__)
  return _mm256_set1_ps(x);
#else
  return Vec<float>{x, x, x, x};
#endif
}
inline Vec<double> broadcast(double x) {
#if defined(__AVX512F__)
  return _mm512_set1_pd(x);
#elif defined(__AVX2__)
  return _mm256_set1_pd(x);
#else
  return Vec<double>{x, x};
#endif
}

// Any alignment.
inline Vec<float> load(const float* p) {
  Vec<float> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline Vec<double> load(const double* p) {
  Vec<double> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec<float> v) { __builtin_memcpy(p, &v, sizeof v); }
inline void store(double* p, Vec<double> v) { __builtin_memcpy(p, &v, sizeof v); }

// Keeps a loaded value in a register. Otherwise GCC repeats the load for each of up to three uses,
// and unaligned loads limit the speed of the kernels.
template <class V>
inline void pin(V& v) {
#if defined(__aarch64__)
  asm("" : "+w"(v));
#elif defined(__x86_64__)
  asm("" : "+v"(v));
#else
  asm("" : "+m"(v));
#endif
}

// The bits of `from` as a vector of another type.
template <class To, class From>
inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// 0, 1, 2, ...
template <class T>
inline Vec<Int<T>> lane_numbers() {
  Vec<Int<T>> v{};
  CIRCULANT_UNROLL for (int i = 0; i < kLanes<T>; ++i) v[i] = i;
  return v;
}

// fma(a, b, c) = a b + c.
// maximum(a, b) = a > b ? a : b, so b where either is NaN.
// load_range(p, lo, hi): lanes lo <= l < hi from p[l], zero in the others.
// store_range(p, v, lo, hi): the same lanes to p[l]; no other memory is accessed.
#if defined(__AVX512F__)

inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return _mm512_fmadd_pd(a, b, c);
}
inline Vec<float> maximum(Vec<float> a, Vec<float> b) { return _mm512_max_ps(a, b); }
inline Vec<double> maximum(Vec<double> a, Vec<double> b) { return _mm512_max_pd(a, b); }

inline uint32_t lane_mask(int64_t lo, int64_t hi) {
  return ((uint32_t{1} << hi) - 1) & ~((uint32_t{1} << lo) - 1);
}
inline Vec<float> load_range(const float* p, int64_t lo, int64_t hi) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>(lane_mask(lo, hi)), p);
}
inline Vec<double> load_range(const double* p, int64_t lo, int64_t hi) {
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>(lane_mask(lo, hi)), p);
}
inline void store_range(float* p, Vec<float> v, int64_t lo, int64_t hi) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>(lane_mask(lo, hi)), v);
}
inline void store_range(double* p, Vec<double> v, int64_t lo, int64_t hi) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>(lane_mask(lo, hi)), v);
}

#elif defined(__AVX2__)

inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return _mm256_fmadd_pd(a, b, c);
}
inline Vec<float> maximum(Vec<float> a, Vec<float> b) { return _mm256_max_ps(a, b); }
inline Vec<double> maximum(Vec<double> a, Vec<double> b) { return _mm256_max_pd(a, b); }

template <class T>
inline __m256i lane_mask(int64_t lo, int64_t hi) {
  const Vec<Int<T>> lane = lane_numbers<T>();
  return bit_cast<__m256i>((lane >= static_cast<Int<T>>(lo)) & (lane < static_cast<Int<T>>(hi)));
}
inline Vec<float> load_range(const float* p, int64_t lo, int64_t hi) {
  return _mm256_maskload_ps(p, lane_mask<float>(lo, hi));
}
inline Vec<double> load_range(const double* p, int64_t lo, int64_t hi) {
  return _mm256_maskload_pd(p, lane_mask<double>(lo, hi));
}
inline void store_range(float* p, Vec<float> v, int64_t lo, int64_t hi) {
  _mm256_maskstore_ps(p, lane_mask<float>(lo, hi), v);
}
inline void store_range(double* p, Vec<double> v, int64_t lo, int64_t hi) {
  _mm256_maskstore_pd(p, lane_mask<double>(lo, hi), v);
}

#else

template <class V>
inline V fma(V a, V b, V c) {
  return a * b + c;
}
template <class V>
inline V maximum(V a, V b) {
  return a > b ? a : b;
}
// The bound kLanes is for GCC 16, which warns about lanes behind the last.
inline Vec<float> load_range(const float* p, int64_t lo, int64_t hi) {
  Vec<float> v{};
  for (int64_t l = lo; l < hi && l < kLanes<float>; ++l) v[l] = p[l];
  return v;
}
inline Vec<double> load_range(const double* p, int64_t lo, int64_t hi) {
  Vec<double> v{};
  for (int64_t l = lo; l < hi && l < kLanes<double>; ++l) v[l] = p[l];
  return v;
}
inline void store_range(float* p, Vec<float> v, int64_t lo, int64_t hi) {
  for (int64_t l = lo; l < hi && l < kLanes<float>; ++l) p[l] = v[l];
}
inline void store_range(double* p, Vec<double> v, int64_t lo, int64_t hi) {
  for (int64_t l = lo; l < hi && l < kLanes<double>; ++l) p[l] = v[l];
}

#endif

// Whether any lane of a comparison holds.
template <class T>
inline bool any(Vec<Int<T>> comparison) {
  Int<T> lanes[kLanes<T>], found = 0;
  __builtin_memcpy(lanes, &comparison, sizeof lanes);
  for (int i = 0; i < kLanes<T>; ++i) found |= lanes[i];
  return found != 0;
}

}  // namespace circulant::simd::CIRCULANT_INSTRUCTION_SET
