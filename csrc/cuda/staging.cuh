// Copies from global to shared memory.
#pragma once

#include <cuda_runtime.h>

#include "strips.cuh"
#include "tile.cuh"

namespace circulant {

// Copies the values first, first + stride, ... below `end` by `load(i)` and `store(i, value)`, with
// `batch` loads in flight per thread. A loop over loads and stores, unrolled or not, has one: a
// load waits for the store before it, since the compiler cannot tell their memory apart.
template <class T, int batch = 4, class Load, class Store>
__device__ __forceinline__ void copy_in_batches(int first, int end, int stride, const Load& load,
                                                const Store& store) {
  T value[batch];
#pragma unroll 1
  for (; first + (batch - 1) * stride < end; first += batch * stride) {
#pragma unroll
    for (int i = 0; i < batch; ++i) value[i] = load(first + i * stride);
#pragma unroll
    for (int i = 0; i < batch; ++i) store(first + i * stride, value[i]);
  }
  // The remainder.
#pragma unroll
  for (int i = 0; i < batch - 1; ++i) {
    if (first + i * stride < end) value[i] = load(first + i * stride);
  }
#pragma unroll
  for (int i = 0; i < batch - 1; ++i) {
    if (first + i * stride < end) store(first + i * stride, value[i]);
  }
}

// Writes the first pixel of each row of the halo to `row_start`, which is complete after the next
// barrier. Called by all threads of a block.
__device__ __forceinline__ void tabulate_halo(const Pattern& pattern, const Tile& tile,
                                              const Extents& origin, const StepBox& box,
                                              int* row_start) {
  const Extents &size = pattern.size, &window = pattern.window;
  const int halo_h = box.halo_h(tile), halo_rows = box.halo_rows(tile);
  for (int r = threadIdx.x; r < halo_rows; r += blockDim.x) {
    const int d = origin.d + box.a - window.d / 2 + r / halo_h;
    const int h = origin.h + box.b - window.h / 2 + r % halo_h;
    row_start[r] =
        (halo_coordinate(d, size.d, window.d) * size.h + halo_coordinate(h, size.h, window.h)) *
        size.w;
  }
}

// Columns of a halo, the same in each of its rows; `first` is not wrapped.
struct HaloColumns {
  int first, count;
};

// Copies the halo of one channel to `to`, [rows][pitch]. Called by all lanes of a warp, which take
// neighbouring columns.
template <int batch, class T, class A>
__device__ __forceinline__ void stage_halo(const T* from, A* to, const int* row_start, int rows,
                                           const HaloColumns& columns, int pitch,
                                           const Pattern& pattern, int lane) {
#pragma unroll 1
  for (int j = lane; j < columns.count; j += 32) {
    const T* const column =
        from + halo_coordinate(columns.first + j, pattern.size.w, pattern.window.w);
    copy_in_batches<T, batch>(
        0, rows, 1, [&](int r) { return column[row_start[r]]; },
        [&](int r, T value) { to[r * pitch + j] = A(value); });
  }
}

}  // namespace circulant
