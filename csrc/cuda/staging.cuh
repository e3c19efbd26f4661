// Copies from global to shared memory.
#pragma once

#include <cuda_runtime.h>

#include "strips.cuh"
#include "tile.cuh"

namespace circulant {

// Copies values by `load(i)` and `store(i, value)`, with `batch` loads in flight per thread. A loop
// over loads and stores, unrolled or not, has one: a load waits for the store before it, since the
// compiler cannot tell their memory apart. This copies whole batches of the values first,
// first + stride, ... below `end`, and moves `first` past them.
template <class T, int batch = 4, class Load, class Store>
__device__ __forceinline__ void copy_whole_batches(int& first, int end, int stride,
                                                   const Load& load, const Store& store) {
  T value[batch];
#pragma unroll 1
  for (; first + (batch - 1) * stride < end; first += batch * stride) {
#pragma unroll
    for (int i = 0; i < batch; ++i) value[i] = load(first + i * stride);
#pragma unroll
    for (int i = 0; i < batch; ++i) store(first + i * stride, value[i]);
  }
}

// This copies the values that remain.
template <class T, int batch = 4, class Load, class Store>
__device__ __forceinline__ void copy_rest(int first, int end, int stride, const Load& load,
                                          const Store& store) {
  T value[batch];
#pragma unroll
  for (int i = 0; i < batch - 1; ++i) {
    if (first + i * stride < end) value[i] = load(first + i * stride);
  }
#pragma unroll
  for (int i = 0; i < batch - 1; ++i) {
    if (first + i * stride < end) store(first + i * stride, value[i]);
  }
}

// This copies all of them.
template <class T, int batch = 4, class Load, class Store>
__device__ __forceinline__ void copy_in_batches(int first, int end, int stride, const Load& load,
                                                const Store& store) {
  copy_whole_batches<T, batch>(first, end, stride, load, store);
  copy_rest<T, batch>(first, end, stride, load, store);
}

// A column of a grid, -1 for none, and the offset of its pixels that has the lowest column.
struct alignas(8) Column {
  int pixel, first;
};

// Which positions of a halo exist, in each dim.
struct HaloBounds {
  Stretch d, h, w;
  int lacks;  // whether some do not

  __device__ HaloBounds(const Place& place, const Tile& tile, const StepBox& box)
      : d(place.d.stretch(box.a, box.halo_d(tile))),
        h(place.h.stretch(box.b, box.halo_h(tile))),
        w(place.w.stretch(box.tap, box.halo_w(tile, place.w.axis.window))) {
    lacks = d.begin > 0 || d.end < box.halo_d(tile) || h.begin > 0 || h.end < box.halo_h(tile) ||
            w.begin > 0 || w.end < box.halo_w(tile, place.w.axis.window);
  }
  __device__ bool is_empty() const {
    return d.begin >= d.end || h.begin >= h.end || w.begin >= w.end;
  }
  __device__ bool has_row(int i, int j) const {
    return d.begin <= i && i < d.end && h.begin <= j && j < h.end;
  }
  __device__ bool has_column(int j) const { return w.begin <= j && j < w.end; }
};

// The halo of a step, in shared memory: the first pixel of each row, and each column. Absent ones
// are 0, so that they can be read.
struct Halo {
  int *rows, *columns;

  // Fills the tables, which are complete after the next barrier. Called by all threads of a block.
  __device__ __forceinline__ void tabulate(const Place& place, const Tile& tile,
                                           const StepBox& box) const {
    const int halo_h = box.halo_h(tile), halo_rows = box.halo_rows(tile);
    for (int r = threadIdx.x; r < halo_rows; r += blockDim.x) {
      const int d = max(place.d.neighbour(place.d.halo(box.a) + r / halo_h), 0);
      const int h = max(place.h.neighbour(place.h.halo(box.b) + r % halo_h), 0);
      rows[r] = (d * place.h.axis.keys + h) * place.w.axis.keys;
    }
    const int halo_w = box.halo_w(tile, place.w.axis.window);
    for (int j = threadIdx.x; j < halo_w; j += blockDim.x) {
      columns[j] = max(place.w.neighbour(place.w.halo(box.tap) + j), 0);
    }
  }
};

}  // namespace circulant
