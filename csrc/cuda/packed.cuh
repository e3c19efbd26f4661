// Registers of a thread filled from memory, and written to it, 16 bytes at a time.
#pragma once

#include <cuda_runtime.h>

#include "../common/integers.h"

namespace circulant {

// Values that are loaded or stored by one instruction.
template <class T, int count>
struct alignas(count * sizeof(T)) Pack {
  T at[count];
};

// How many values have 16 bytes.
template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));

// Copies `count` values, with both addresses aligned to their bytes, by way of registers.
template <int count, class T>
__device__ __forceinline__ void copy_pack(const T* from, T* to) {
  *reinterpret_cast<Pack<T, count>*>(to) = *reinterpret_cast<const Pack<T, count>*>(from);
}

// Reads `count` values from `from`, which is aligned to 16 bytes.
template <int count, class T>
__device__ __forceinline__ void load_packed(const T* from, T (&to)[count]) {
  static_assert(count % kPack<T> == 0, "whole packs only");
#pragma unroll
  for (int i = 0; i < count; i += kPack<T>) {
    const auto pack = *reinterpret_cast<const Pack<T, kPack<T>>*>(from + i);
#pragma unroll
    for (int j = 0; j < kPack<T>; ++j) to[i + j] = pack.at[j];
  }
}

// Writes `count` values, converted, to `to`, which is aligned to 16 bytes or to all of them.
template <int count, class T, class A>
__device__ __forceinline__ void store_packed(T* to, const A (&from)[count]) {
  constexpr int width = count < kPack<T> ? count : kPack<T>;
  static_assert(count % width == 0, "whole packs only");
#pragma unroll
  for (int i = 0; i < count; i += width) {
    Pack<T, width> pack;
#pragma unroll
    for (int j = 0; j < width; ++j) pack.at[j] = static_cast<T>(from[i + j]);
    *reinterpret_cast<Pack<T, width>*>(to + i) = pack;
  }
}

// An odd number of 16-byte packs per row of shared memory: eight threads that read packs in the
// same column of eight neighbouring rows then meet each bank once.
template <class A>
__host__ __device__ int odd_pitch(int columns) {
  return (divide_up(columns, kPack<A>) | 1) * kPack<A>;
}

// Hides the value of `i` from the optimiser, to reduce register pressure: expressions of it are
// computed again instead of kept in registers.
template <class I>
__device__ __forceinline__ I opaque(I i) {
  asm volatile("" : "+r"(i));
  return i;
}

// Hides from the optimiser how a pointer to global memory was computed, so that it is kept in
// registers instead of computed again in a loop.
template <class T>
__device__ __forceinline__ T* kept(T* at) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+l"(at));
  __builtin_assume(__isGlobal(at));
#endif
  return at;
}

}  // namespace circulant
