// Copies of listed values from global to shared memory, which go on while a thread computes if
// nothing is converted and the architecture can: sm_80 and newer.
#pragma once

#include <type_traits>

#include <cuda_runtime.h>

#include "packed.cuh"
#include "staging.cuh"
#include "warp.cuh"

namespace circulant {

template <class T, class A>
constexpr bool kCopiesWhileComputing =
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    std::is_same<T, A>::value && sizeof(T) >= 4;
#else
    false;
#endif

// Copies from[source[i]] to to[i] for i = first, first + stride, ... below `end`. They are complete
// after finish_copies() and a barrier.
template <class A, class T>
__device__ __forceinline__ void start_copies(const T* from, A* to, const int* source, int first,
                                             int end, int stride) {
  from = kept(from);
  if constexpr (kCopiesWhileComputing<T, A>) {
    copy_in_batches<int>(
        first, end, stride, [&](int i) { return source[i]; },
        [&](int i, int from_at) {
          copy_async<sizeof(T)>(to + i, from + static_cast<unsigned>(from_at));
        });
  } else {
    copy_in_batches<T>(
        first, end, stride, [&](int i) { return from[static_cast<unsigned>(source[i])]; },
        [&](int i, T value) { to[i] = A(value); });
  }
}

constexpr int kCopyBatch = 4;

// Copies from[source(i)] to *to(i) in the same way, for kernels without registers to spare: where
// nothing is converted, less than a batch is copied one by one. Otherwise the values that remain
// are set even if there are none: some compilers keep registers for unset ones over the whole
// kernel.
template <class A, class T, class Source, class To>
__device__ __forceinline__ void start_copies_to(const T* from, int first, int end, int stride,
                                                const Source& source, const To& to) {
  from = kept(from);
  if constexpr (kCopiesWhileComputing<T, A>) {
    const auto copy = [&](int i, int from_at) {
      copy_async<sizeof(T)>(to(i), from + static_cast<unsigned>(from_at));
    };
    copy_whole_batches<int, kCopyBatch>(first, end, stride, source, copy);
#pragma unroll 1
    for (; first < end; first += stride) copy(first, source(first));
  } else {
    const auto load = [&](int i) { return from[static_cast<unsigned>(source(i))]; };
    copy_whole_batches<T, kCopyBatch>(first, end, stride, load,
                                      [&](int i, T value) { *to(i) = A(value); });
    T value[kCopyBatch - 1];
#pragma unroll
    for (int i = 0; i < kCopyBatch - 1; ++i) {
      value[i] = first + i * stride < end ? load(first + i * stride) : T(0);
    }
#pragma unroll
    for (int i = 0; i < kCopyBatch - 1; ++i) {
      if (first + i * stride < end) *to(first + i * stride) = A(value[i]);
    }
  }
}

// Copies one value. It is complete after finish_copies() and a barrier.
template <class T, class A>
__device__ __forceinline__ void start_copy(A* to, const T* from) {
  if constexpr (kCopiesWhileComputing<T, A>) {
    copy_async<sizeof(T)>(to, from);
  } else {
    *to = A(*from);
  }
}

// Waits for the copies that this thread has started.
template <class T, class A>
__device__ __forceinline__ void finish_copies() {
  if constexpr (kCopiesWhileComputing<T, A>) {
    commit_copies();
    wait_copies<0>();
  }
}

}  // namespace circulant
