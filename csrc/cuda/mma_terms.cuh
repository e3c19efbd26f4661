// The terms of scores on tensor cores, and the sums that the gradient of a bias consists of.
//
// Kernels with terms are compiled apart from those without. Sums of products begin at the terms,
// divided by the scale. Those of the keys are numbers of the halo or of the tile, as norms are. The
// biases of all offsets are in shared memory, with a margin that neighbours beyond the window may
// read.
#pragma once

#include <cuda_runtime.h>

#include "mma_block.cuh"
#include "score_terms.h"

namespace circulant {

template <class T, int D, bool has_terms>
struct MmaTerms {
  const MmaBlock<T, D>& block;
  const ScoreTerms<float>& given;

  __device__ __forceinline__ bool has_bias() const { return has_terms && given.bias != nullptr; }
  __device__ __forceinline__ bool has_keys() const {
    return has_terms && given.key_bias != nullptr;
  }

  // Copies the biases of a group. Complete after the next barrier.
  __device__ __forceinline__ void stage(int g, float factor, bool is_transposed) const {
    if (!has_bias()) return;
    const float* const from = given.bias_of(g);
    const int last = given.offsets - 1;
    for (int o = threadIdx.x; o <= last; o += kMmaThreads) {
      biases()[o] = from[is_transposed ? last - o : o] * factor;
    }
  }

  // The biases from the first neighbour of a step on, for this thread's pixel in the same line.
  __device__ __forceinline__ const float* of_step(const MmaStep& step) const {
    return biases() + block.first_offset(step) + 2 * block.t() - block.r();
  }
  // That of the neighbour in `line` of octet `o`, in column 2t + i, of the pixel in `of_line`.
  __device__ __forceinline__ float bias(const float* of_step, int o, int line, int of_line,
                                        int i) const {
    return of_step[o * block.p.octet_step + (line - of_line) * block.p.line_offsets + i];
  }

 private:
  __device__ __forceinline__ float* biases() const {
    return reinterpret_cast<float*>(dynamic_shared_memory + block.p.bias);
  }
};

// Sums of dS over the queries of a tile, for each offset. Each warp has sums of its own, to which
// it adds the diagonals of its fragments: with row r of an octet of pixels and column c of an octet
// of neighbours, c - r is the offset.
//
// A row of the ring has two octets of offsets: where an octet of neighbours ends, that of the next
// one goes on.
//
//   column of the ring, modulo 16     0 . . . . . . 7 8 . . . . . . 15
//   row 0                             c = 0 ... 7     its next octet
//   row 1                             1 ... 7 | the next octet      c = 0
//   row 2                             2 ... 7 | the next octet    0   1
template <class T, int D>
struct MmaOffsetSums {
  const MmaBlock<T, D>& block;
  int phase = 0;  // where the next octet of offsets begins in the ring

  // Complete after the next barrier.
  __device__ __forceinline__ void clear() const {
    for (int i = block.lane(); i < kRingFloats + offsets(); i += 32) ring()[i] = 0;
  }

  // The first of the offsets of a step along columns, for this lane: see add().
  __device__ __forceinline__ int first(const MmaStep& step) const {
    return block.p.before.w + block.first_column(step) + row() * block.p.line_w + place() - kOctet;
  }

  // Adds what is complete when an octet of neighbours is in the ring: `above`, `same` and `below`
  // are of the neighbours in the line before, in that of the pixel, and in the next one. Each lane
  // sums a diagonal of one of them, which is at offset `at` of a row of the window.
  __device__ __forceinline__ void add(const MmaStep& step, int at, float2 above, float2 same,
                                      float2 below) {
    put(0, above);
    put(1, same);
    put(2, below);
    sync_warp();  // the octet is complete
    const MmaPlan& p = block.p;
    const int h = 2 * (step.band - block.band()) + row() * p.line_h;
    if (block.lane() < 3 * kOctet && unsigned(h) < unsigned(p.window.h) &&
        unsigned(at) < unsigned(p.window.w)) {
      const float* from = ring() + (row() + 1) * kRingRows + (phase ^ kOctet) + place();
      float sum = 0;
#pragma unroll
      for (int r = 0; r < kOctet; ++r) sum += from[r * kRingPitch];
      sums()[(step.plane * p.window.h + h) * p.window.w + at] += sum;
    }
    phase ^= kOctet;
    sync_warp();  // the ring has been read
  }

  // Adds the sums of the warps. After a barrier.
  __device__ __forceinline__ void write(float* to) const {
    for (int o = threadIdx.x; o < offsets(); o += kMmaThreads) {
      float sum = 0;
#pragma unroll
      for (int warp = 0; warp < kMmaWarps; ++warp) sum += memory(warp)[kRingFloats + o];
      to[o] = sum;
    }
  }

 private:
  // A lane's row of the window, from that of the pixel on, and its diagonal of eight.
  __device__ __forceinline__ int row() const { return block.lane() / kOctet - 1; }
  __device__ __forceinline__ int place() const { return block.lane() % kOctet; }

  __device__ __forceinline__ int offsets() const { return block.p.offsets; }
  __device__ __forceinline__ float* memory(int warp) const {
    return reinterpret_cast<float*>(dynamic_shared_memory + block.p.offset_sums) +
           warp * (kRingFloats + offsets());
  }
  __device__ __forceinline__ float* ring() const { return memory(block.warp()); }
  __device__ __forceinline__ float* sums() const { return ring() + kRingFloats; }

  __device__ __forceinline__ void put(int rows, float2 x) const {
    float* const to = ring() + rows * kRingRows + block.r() * kRingPitch;
    const int column = 2 * block.t() - block.r() + phase;
    to[column & (2 * kOctet - 1)] = x.x;
    to[(column + 1) & (2 * kOctet - 1)] = x.y;
  }
};

}  // namespace circulant
