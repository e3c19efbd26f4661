// Copies of octets to shared memory. See octets.h.
#pragma once

#include <type_traits>

#include <cuda_runtime.h>

#include "octets.h"
#include "packed.cuh"
#include "warp.cuh"

namespace circulant {

// A thread in its block, and in its warp: see warp.cuh.
struct ThreadPlace {
  static __device__ __forceinline__ int warp() { return opaque(threadIdx.x) / 32; }
  static __device__ __forceinline__ int lane() { return opaque(threadIdx.x) % 32; }
  static __device__ __forceinline__ int r() { return lane() / 4; }
  static __device__ __forceinline__ int t() { return lane() % 4; }
};

// The coordinate, in a dim of n pixels, of a position. Positions beyond `limits` are in no window;
// they are clamped, so that one addition wraps.
__device__ __forceinline__ int wrapped(int i, int n, const Limits& limits) {
  i = min(max(i, limits.low), limits.high);
  return i < 0 ? i + n : (i >= n ? i - n : i);
}

// What a thread copies of 2^log_octets octets: one of them, and of its channels `channel`,
// channel + step, ... Eight threads write 128 bytes of shared memory without a gap.
struct Share {
  int octet, channel, step;

  __device__ __forceinline__ Share(int log_octets, int threads) {
    const unsigned thread = opaque(threadIdx.x), eight = thread / 8;
    octet = static_cast<int>(eight & ((1u << log_octets) - 1));
    channel = static_cast<int>((eight >> log_octets) * 8 + thread % 8);
    step = threads >> log_octets;
  }
};

// Calls f with the granule as an integral constant.
template <class F>
__device__ __forceinline__ void by_granule(int granule, const F& f) {
  if (granule == 8) f(std::integral_constant<int, 8>());
  if (granule == 4) f(std::integral_constant<int, 4>());
  if (granule == 2) f(std::integral_constant<int, 2>());
  if (granule == 1) f(std::integral_constant<int, 1>());
}

// Starts to copy a thread's share of an octet. `x` and `to` are those of its first channel. Pixel i
// of the octet, where a granule begins, is x[pixel_of(i)]. Single pixels, less than asynchronous
// copies move, pass through registers.
template <int granule, class T, class PixelOf>
__device__ __forceinline__ void copy_octet(const T* x, int channels, int64_t pixels,
                                           const Share& share, T* to, const PixelOf& pixel_of) {
  int at[kOctet / granule];
#pragma unroll
  for (int i = 0; i < kOctet / granule; ++i) at[i] = pixel_of(i * granule);
  const int64_t x_step = share.step * pixels;
#pragma unroll 1
  for (int c = share.channel; c < channels; c += share.step) {
    if constexpr (granule > 1) {
#pragma unroll
      for (int i = 0; i < kOctet / granule; ++i)
        copy_async<granule * sizeof(T)>(to + i * granule, x + at[i]);
    } else {
      T octet[kOctet];
#pragma unroll
      for (int i = 0; i < kOctet; ++i) octet[i] = x[at[i]];
      store_packed(to, octet);
    }
    x += x_step;
    to += share.step * kOctet;
  }
}

// Sets the channels of octets from `channels` on to zero, up to D. Called by all threads of a
// block.
template <int D, class T>
__device__ __forceinline__ void clear_channels(T* octets, int count, int channels, int warps) {
  const int missing = (D - channels) * kOctet;
  if (missing == 0) return;
#pragma unroll 1
  for (int o = ThreadPlace::warp(); o < count; o += warps) {
#pragma unroll 1
    for (int i = ThreadPlace::lane(); i < missing; i += 32)
      octets[(o * D + channels) * kOctet + i] = T(0);
  }
}

// Where this lane's rows begin, for load_matrices: of 16 channels of two octets, `next` values
// apart.
template <class T>
__device__ __forceinline__ const T* rows_of_octets(const T* first, int next) {
  const int lane = ThreadPlace::lane();
  return first + lane / 8 % 2 * next + (lane / 16 * 8 + lane % 8) * kOctet;
}

// Waits for this thread's copies of the oldest of `stages` - 1 steps.
__device__ __forceinline__ void wait_for_step(int stages) {
  if (stages == 3) {
    wait_copies<1>();
  } else {
    wait_copies<0>();
  }
}

}  // namespace circulant
