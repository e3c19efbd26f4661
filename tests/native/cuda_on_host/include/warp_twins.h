// The functions of csrc/cuda/warp.cuh on the host.
#pragma once

#include <cstring>

#include <cuda_runtime.h>

namespace circulant {

#define CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

template <class T>
void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, CALLER) {
  cuda_on_host::Product product{d, a, {b0, b1}, std::is_same<T, c10::BFloat16>::value};
  cuda_on_host::meet_warp(&product, cuda_on_host::multiply, file, line);
}

template <bool transposed, class T>
void load_matrices(uint32_t (&m)[4], const T* row, CALLER) {
  cuda_on_host::Load load{m, reinterpret_cast<const uint16_t*>(row), transposed};
  cuda_on_host::meet_warp(&load, cuda_on_host::load, file, line);
}

template <class A>
A from_lane_xor(A x, int mask, CALLER) {
  cuda_on_host::Exchange exchange{x, x, mask};
  cuda_on_host::meet_warp(&exchange, cuda_on_host::exchange, file, line);
  return static_cast<A>(exchange.received);
}

inline void sync_warp(CALLER) {
  char nothing;
  cuda_on_host::meet_warp(&nothing, [](void* const*) {}, file, line);
}

template <class T>
uint32_t pack_halves(float low, float high) {
  return uint32_t(T(low).x) | uint32_t(T(high).x) << 16;
}

template <class T>
float2 unpack_halves(uint32_t both) {
  return {float(T(static_cast<unsigned short>(both), T::from_bits())),
          float(T(static_cast<unsigned short>(both >> 16), T::from_bits()))};
}

inline float fast_exp2(float x) { return std::exp2(x); }

template <int bytes>
void copy_async(void* to, const void* from) {
  cuda_on_host::start_copy(to, from, bytes);
}
inline void commit_copies() { cuda_on_host::commit_copies(); }
template <int left>
void wait_copies() {
  cuda_on_host::wait_copies(left);
}

#undef CALLER

}  // namespace circulant
