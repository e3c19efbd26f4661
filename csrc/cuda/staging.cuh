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

// A column of a grid, -1 for none, and the offset of its pixels that has the lowest column.
struct alignas(8) Column {
  int pixel, first;
};

// Which neighbours the halo of a step has, in shared memory: the first pixel of each row, and each
// column; -1 for absent ones.
struct Halo {
  int* rows;
  int* columns;

  // Fills the tables, which are complete after the next barrier. Called by all threads of a block.
  __device__ __forceinline__ void tabulate(const Place& place, const Tile& tile,
                                           const StepBox& box) const {
    const int halo_h = box.halo_h(tile), halo_rows = box.halo_rows(tile);
    for (int r = threadIdx.x; r < halo_rows; r += blockDim.x) {
      const int d = place.d.neighbour(place.d.halo(box.a) + r / halo_h);
      const int h = place.h.neighbour(place.h.halo(box.b) + r % halo_h);
      rows[r] = d < 0 || h < 0 ? -1 : (d * place.h.axis.keys + h) * place.w.axis.keys;
    }
    const int halo_w = box.halo_w(tile, place.w.axis.window);
    for (int j = threadIdx.x; j < halo_w; j += blockDim.x) {
      columns[j] = place.w.neighbour(place.w.halo(box.tap) + j);
    }
  }
  // Whether neighbours are absent.
  static __device__ bool lacks(const Place& place, const Tile& tile, const StepBox& box) {
    return place.d.lacks(place.d.halo(box.a), box.halo_d(tile)) ||
           place.h.lacks(place.h.halo(box.b), box.halo_h(tile)) ||
           place.w.lacks(place.w.halo(box.tap), box.halo_w(tile, place.w.axis.window));
  }

  // Copies the halo of one channel to `to`, [rows][pitch]; zero where neighbours are absent. Called
  // by all lanes of a warp, which take neighbouring columns.
  template <int batch, class T, class A>
  __device__ __forceinline__ void stage(const T* from, A* to, int row_count, int column_count,
                                        int pitch, bool lacks, int lane) const {
#pragma unroll 1
    for (int j = lane; j < column_count; j += 32) {
      const int column = columns[j];
      const auto store = [&](int r, T value) { to[r * pitch + j] = A(value); };
      if (lacks) {
        copy_in_batches<T, batch>(
            0, row_count, 1,
            [&](int r) { return column >= 0 && rows[r] >= 0 ? from[rows[r] + column] : T(0); },
            store);
      } else {
        const T* const in_column = from + column;
        copy_in_batches<T, batch>(
            0, row_count, 1, [&](int r) { return in_column[rows[r]]; }, store);
      }
    }
  }
};

}  // namespace circulant
