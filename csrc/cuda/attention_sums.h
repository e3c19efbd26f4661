// Sums beside the two products of fused attention: over channels, and over tiles.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "../common/accumulate.h"
#include "problem.h"

namespace circulant {

// What the gradients of attention with terms take of each query.
template <class A>
struct QueryNumbers {
  const A* lse;
  const A* dlse;  // nullptr for zeros
  // Is set to lse or, where there is no key, to infinity.
  A* weight_lse;
};

// delta[i] = sum_c dy[c, i] y[c, i] - dlse[i], for each group. For c10::Half, c10::BFloat16, float
// and double.
template <class T>
void sum_deltas(const char* op, const T* dy, const T* y,
                const QueryNumbers<accumulate_t<T>>& queries, accumulate_t<T>* delta, int channels,
                const AttentionProblem& problem, cudaStream_t stream);

// result[r] = sum_i sums[r, i], rows of `width` numbers, added in an order that only the sizes
// determine. For float and double.
template <class A>
void sum_rows(const char* op, const A* sums, A* result, int64_t rows, int64_t count, int64_t width,
              cudaStream_t stream);

}  // namespace circulant
