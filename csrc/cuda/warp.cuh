// What the 32 threads of a warp do together: products of small matrices, loads of their fragments,
// exchanges; and copies to shared memory that go on while a thread computes. From sm_80 on.
//
// Each function is one instruction. For tests on the host each has a twin, with the same result.
//
// An 8 x 8 matrix of half-precision numbers is spread over the warp: with r = lane / 4 and
// t = lane % 4, a thread has two neighbours of a row, (r, 2t) and (r, 2t + 1), in 32 bits.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#ifdef CUDA_ON_HOST
#include <warp_twins.h>
#else

namespace circulant {

__device__ __forceinline__ uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

// d (16 x 8) += a (16 x 16) b (16 x 8), with d in float32.
//   a: the 8 x 8 matrices [upper left, lower left, upper right, lower right]
//   b: [upper, lower], transposed: a thread has rows 2t and 2t + 1 of column r
//   d: (r, 2t), (r, 2t + 1), (r + 8, 2t), (r + 8, 2t + 1)
template <class T>
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1);
#define CIRCULANT_MULTIPLY_ADD(T, name)                                                  \
  template <>                                                                            \
  __device__ __forceinline__ void multiply_add<T>(float (&d)[4], const uint32_t (&a)[4], \
                                                  uint32_t b0, uint32_t b1) {            \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name                  \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"  \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                        \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));        \
  }
CIRCULANT_MULTIPLY_ADD(c10::Half, "f16")
CIRCULANT_MULTIPLY_ADD(c10::BFloat16, "bf16")
#undef CIRCULANT_MULTIPLY_ADD

// Loads four 8 x 8 matrices. Lane l names row l % 8 of matrix l / 8: 16 aligned bytes of shared
// memory. Transposed, a thread has (2t, r) and (2t + 1, r) instead.
template <bool transposed, class T>
__device__ __forceinline__ void load_matrices(uint32_t (&m)[4], const T* row) {
  if (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row)));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row)));
  }
}

// The x of lane `lane ^ mask`. For double two instructions. On every architecture.
template <class A>
__device__ __forceinline__ A from_lane_xor(A x, int mask) {
  return __shfl_xor_sync(0xffffffffu, x, mask);
}

// Waits for the other lanes, and for what they wrote to memory.
__device__ __forceinline__ void sync_warp() { __syncwarp(); }

// Two numbers, rounded: `low` in the low 16 bits.
template <class T>
__device__ __forceinline__ uint32_t pack_halves(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack_halves<c10::Half>(float low, float high) {
  uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
template <>
__device__ __forceinline__ uint32_t pack_halves<c10::BFloat16>(float low, float high) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

// And back.
template <class T>
__device__ __forceinline__ float2 unpack_halves(uint32_t both) {
  const T low(static_cast<unsigned short>(both), T::from_bits());
  const T high(static_cast<unsigned short>(both >> 16), T::from_bits());
  return {float(low), float(high)};
}

// 2^x, to a relative error of 2^-22; 0 below 2^-126.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Starts to copy 4, 8 or 16 bytes, aligned to their number, to shared memory.
template <int bytes>
__device__ __forceinline__ void copy_async(void* to, const void* from) {
  if (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(to)), "l"(from),
                 "n"(bytes)
                 : "memory");
  }
}

// Ends a group of copies.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits for this thread's copies, all groups but the last `left`. Those of other threads are
// complete after a barrier.
template <int left>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

}  // namespace circulant

#endif
