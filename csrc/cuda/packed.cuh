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

// The same number, which the compiler takes for another one each time: what is computed from it in
// a loop is not kept in registers from one round to the next.
template <class I>
__device__ __forceinline__ I fresh(I i) {
  asm volatile("" : "+r"(i));
  return i;
}

// Copies the numbers first, first + stride, ... below `end` by `load(i)` and `store(i, number)`,
// with `at_once` loads under way in each thread. A loop over loads and stores, unrolled or not, has
// one: a load waits for the store before it, since both might be of the same memory.
template <class T, int at_once = 4, class Load, class Store>
__device__ __forceinline__ void copy_at_once(int first, int end, int stride, const Load& load,
                                             const Store& store) {
  T number[at_once];
#pragma unroll 1
  for (; first + (at_once - 1) * stride < end; first += at_once * stride) {
#pragma unroll
    for (int i = 0; i < at_once; ++i) number[i] = load(first + i * stride);
#pragma unroll
    for (int i = 0; i < at_once; ++i) store(first + i * stride, number[i]);
  }
  // What is left.
#pragma unroll
  for (int i = 0; i < at_once - 1; ++i) {
    if (first + i * stride < end) number[i] = load(first + i * stride);
  }
#pragma unroll
  for (int i = 0; i < at_once - 1; ++i) {
    if (first + i * stride < end) store(first + i * stride, number[i]);
  }
}

}  // namespace circulant
