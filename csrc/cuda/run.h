// Runs of neighbouring numbers, moved 16 bytes at a time.
#pragma once

#include <cuda_runtime.h>

namespace circulant {

// Numbers that are read or written as one.
template <class T, int count>
struct alignas(count * sizeof(T)) Pack {
  T at[count];
};

// Numbers of 16 bytes.
template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));

// Reads `count` numbers from `from`, which is aligned to 16 bytes.
template <int count, class T>
__device__ __forceinline__ void load_run(const T* from, T (&to)[count]) {
  static_assert(count % kPack<T> == 0, "a run is whole packs");
#pragma unroll
  for (int i = 0; i < count; i += kPack<T>) {
    const auto pack = *reinterpret_cast<const Pack<T, kPack<T>>*>(from + i);
#pragma unroll
    for (int j = 0; j < kPack<T>; ++j) to[i + j] = pack.at[j];
  }
}

// Writes `count` numbers, converted, to `to`, which is aligned to them or to 16 bytes.
template <int count, class T, class A>
__device__ __forceinline__ void store_run(T* to, const A (&from)[count]) {
  constexpr int width = count < kPack<T> ? count : kPack<T>;
  static_assert(count % width == 0, "a run is whole packs");
#pragma unroll
  for (int i = 0; i < count; i += width) {
    Pack<T, width> pack;
#pragma unroll
    for (int j = 0; j < width; ++j) pack.at[j] = static_cast<T>(from[i + j]);
    *reinterpret_cast<Pack<T, width>*>(to + i) = pack;
  }
}

}  // namespace circulant
