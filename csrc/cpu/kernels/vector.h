// A vector register of the instruction set that this file is compiled for.
//
// Everything in kernels/ is compiled once per instruction set, each time in a namespace of its
// name. Code outside that namespace that is not inlined would exist once for all of them, compiled
// for whichever came first: so nothing here includes torch or calls into the standard library.
#pragma once

#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define CIRCULANT_ALWAYS_INLINE inline __attribute__((always_inline))

namespace circulant::CIRCULANT_INSTRUCTION_SET {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
// How many sums a block keeps in registers: lines times taps, or lines times channels.
constexpr int kBlockLines = 4, kBlockTaps = 6;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kBlockLines = 3, kBlockTaps = 4;
#else
constexpr int kVectorBytes = 16;
constexpr int kBlockLines = 3, kBlockTaps = 4;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vector = typename VectorOf<T>::type;

// The elements of a vector.
template <class T>
constexpr int kLanes = kVectorBytes / sizeof(T);

template <class T>
CIRCULANT_ALWAYS_INLINE Vector<T> load(const T* p) {
  Vector<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
CIRCULANT_ALWAYS_INLINE void store(T* p, Vector<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// The constants 0, 1, ..., n - 1 as template arguments.
template <int... I>
struct Indices {};
template <int n, int... I>
struct CountTo : CountTo<n - 1, n - 1, I...> {};
template <int... I>
struct CountTo<0, I...> {
  using type = Indices<I...>;
};
template <int n>
using CountToT = typename CountTo<n>::type;

// a[first], b[first], a[first + 1], b[first + 1], ...
template <int first, class T, int... I>
CIRCULANT_ALWAYS_INLINE Vector<T> interleave(Vector<T> a, Vector<T> b, Indices<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (first + I / 2 + (I % 2) * kLanes<T>)...);
#else
  // A comparison of two vectors has the integer type that masks need.
  typedef decltype(a < b) Mask;
  return __builtin_shuffle(a, b, Mask{(first + I / 2 + (I % 2) * kLanes<T>)...});
#endif
}

// Transposes a square block: lane j of rows[i] becomes lane i of rows[j]. Each stage moves the
// highest bit of the row number to the lowest of the lane number and the highest of the lane number
// to the lowest of the row number; after as many stages as there are bits, the two have changed
// places.
template <class T>
CIRCULANT_ALWAYS_INLINE void transpose(Vector<T> (&rows)[kLanes<T>]) {
  constexpr int n = kLanes<T>;
  using Lanes = CountToT<n>;
#pragma GCC unroll 8
  for (int stage = 1; stage < n; stage *= 2) {
    Vector<T> next[n];
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i) {
      next[2 * i] = interleave<0, T>(rows[i], rows[i + n / 2], Lanes{});
      next[2 * i + 1] = interleave<n / 2, T>(rows[i], rows[i + n / 2], Lanes{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) rows[i] = next[i];
  }
}

}  // namespace circulant::CIRCULANT_INSTRUCTION_SET
