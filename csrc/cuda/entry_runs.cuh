// Runs of entries of A, which are neighbours in CSR order, copied 16 bytes at a time.
//
// In shared memory they are in the order of the offsets, and begin at the same place modulo 16
// bytes as in global memory. At a border, where CSR order is rotated along the last dim, they are
// copied one by one.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "entries.cuh"
#include "map_mma.h"
#include "packed.cuh"

namespace circulant {

// How many entries lie between an address and the multiple of 16 bytes before it.
template <class T>
__device__ __forceinline__ int run_shift(const T* at) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(at) / sizeof(T)) & (kRunWord - 1);
}

// Copies entries `at` to `end` of 8 that begin at a multiple of 16 bytes; none if both are 0.
template <class T>
__device__ __forceinline__ void copy_part(const T* from, T* to, int at, int end) {
  if (at & 1) copy_pack<1>(from + at, to + at), at += 1;
  if ((at & 2) && at + 2 <= end) copy_pack<2>(from + at, to + at), at += 2;
  if (at + 4 <= end) copy_pack<4>(from + at, to + at), at += 4;
  if (at + 2 <= end) copy_pack<2>(from + at, to + at), at += 2;
  if (at < end) copy_pack<1>(from + at, to + at);
}

// Writes the runs of `count` pixels of a row, at most 16, from column `w` on: `rows` rows of the
// window each. From a run to the next it is `pitch` entries, equal to K modulo 8, in `image`, and K
// entries in `to`. Called by all lanes of a warp.
template <class T>
__device__ __forceinline__ void write_runs(const T* image, int pitch, T* to, int K, int count,
                                           int rows, const Axis& of_w, int w, int log_lanes,
                                           int lane) {
  const int length = rows * of_w.window, shift = run_shift(to);
  // Whole words first. Then a lane copies what lies before them, and another what lies behind.
#pragma unroll 1
  for (int q = lane >> log_lanes; q < count; q += 32 >> log_lanes) {
    if (of_w.first_offset(w + q) != 0) continue;
    const int begin = q * pitch + shift, end = (begin + length) & -kRunWord;
    T* const of_run = to + (int64_t(q) * K - begin);
#pragma unroll 1
    for (int at = round_up(begin, kRunWord) + (lane & ((1 << log_lanes) - 1)) * kRunWord; at < end;
         at += kRunWord << log_lanes) {
      copy_pack<kRunWord>(image + at, of_run + at);
    }
  }
  const int q = lane / 2;
  if (q < count && of_w.first_offset(w + q) == 0) {
    const int begin = q * pitch + shift, end = begin + length;
    const int first = begin & -kRunWord, last = end & -kRunWord;
    const int word = lane % 2 ? last : first;
    // The first of them copies a run that lies within one word.
    const bool is_first = lane % 2 == 0 && begin > first, is_last = lane % 2 == 1 && last > first;
    if (is_first || is_last || (lane % 2 == 0 && first == last)) {
      T* const of_run = to + (int64_t(q) * K - begin);
      copy_part(image + word, of_run + word, max(begin - word, 0), min(end - word, kRunWord));
    }
  }
  if (!of_w.circular || (w >= of_w.before && w + count + of_w.after() <= of_w.keys)) return;
  const int window = of_w.window, first_row = lane / window, first_tap = lane % window;
  const int step_rows = 32 / window, step_taps = 32 % window;
#pragma unroll 1
  for (int q = 0; q < count; ++q) {
    const int first = of_w.first_offset(w + q);
    if (first == 0) continue;
    T* const of_run = to + int64_t(q) * K;
    int row = first_row, tap = first_tap;
#pragma unroll 1
    for (int i = lane; i < length; i += 32) {
      of_run[row * window + rotated(tap, first, window)] = image[q * pitch + shift + i];
      row += step_rows;
      tap += step_taps;
      if (tap >= window) tap -= window, ++row;
    }
  }
}

}  // namespace circulant
