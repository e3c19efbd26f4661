// What fused attention adds to its scores, beside their scale (AttentionShape):
//
//   S_ij = scale * similarity_ij + bias[head, o] + key_bias[row, j]
//
// with o the number of the offset of key j from query i, row-major in the window. With the
// transposed pattern, where the tile are keys and the halo queries, it is K - 1 - o.
//
// Terms are numbers of the type of the sums, in natural logarithms. Where one is -infinity the key
// is absent. A query without any key has total 0: then y = 0 and lse = -infinity. The gradients
// take lse = +infinity instead, so that all its weights are 0.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

namespace circulant {

template <class A>
struct ScoreTerms {
  const A* bias = nullptr;      // (heads, K), or none
  const A* key_bias = nullptr;  // (groups / row_groups, pixels of the keys), or none
  int heads = 1;                // group g has head g % heads
  int row_groups = 1;           // and row g / row_groups of key_bias
  int offsets = 0, keys = 0;    // K and the pixels of the keys: the lengths of rows

  bool any() const { return bias != nullptr || key_bias != nullptr; }
  // The rows of a group, of a bias that is not missing.
  __host__ __device__ const A* bias_of(int g) const { return bias + int64_t(g % heads) * offsets; }
  __host__ __device__ const A* key_bias_of(int g) const {
    return key_bias + int64_t(g / row_groups) * keys;
  }
};

// The sums of dS = P (dP - delta) that the gradients of the terms consist of: written without
// atomics, each element by one block. Each gradient has those that its blocks make.
template <class A>
struct ScoreTermSums {
  // (heads, groups / heads, tiles, K), over the queries of a tile; none without `bias`.
  A* offsets = nullptr;
  int64_t tiles = 0;
  // (groups, pixels of the keys), over the queries; none without `key_bias`.
  A* keys = nullptr;

  // The K sums over a tile.
  __device__ A* offsets_of(const ScoreTerms<A>& terms, int groups, int g, int tile) const {
    const int row = g % terms.heads * (groups / terms.heads) + g / terms.heads;
    return offsets + (int64_t(row) * tiles + tile) * terms.offsets;
  }
};

}  // namespace circulant
