// The kernels of each op on contiguous arrays that do not overlap.
//
// A call is asynchronous on `stream` of the current device. Its output has at least one element.
#pragma once

#include <cuda_runtime.h>

#include "../common/accumulate.h"
#include "problem.h"
#include "score_terms.h"

namespace circulant {

// For c10::Half, c10::BFloat16, float and double.
template <class T>
void similarity(const T* x, const T* y, T* values, const Problem& problem, bool distance,
                cudaStream_t stream);

// For c10::Half, c10::BFloat16, float and double. At least one channel; one channel of values.
template <class T>
void adjacency(const T* x, const T* y, T* values, const AttentionProblem& problem,
               cudaStream_t stream);

// For c10::Half, c10::BFloat16, float and double.
template <class T>
void apply(const T* values, const T* x, T* y, const Problem& problem, bool transposed,
           cudaStream_t stream);

// For uint16_t, uint32_t and uint64_t, which stand for any type of their size. `problem.channels`
// is not used.
template <class T>
void transpose(const T* values, T* result, const Problem& problem, cudaStream_t stream);

// Writes y and lse. `scratch` has attention_scratch(problem) numbers per pixel. For c10::Half,
// c10::BFloat16, float and double.
template <class T>
void attention(const T* q, const T* k, const T* v, T* y, accumulate_t<T>* lse,
               accumulate_t<T>* scratch, const ScoreTerms<accumulate_t<T>>& terms,
               const AttentionProblem& problem, cudaStream_t stream);

// Writes dq, dk and dv, and the sums of which the gradients of `terms` consist. `dlse` is nullptr
// for zeros. `scratch` has 2 + attention_scratch(problem) numbers per pixel, without terms and dlse
// one less. For c10::Half, c10::BFloat16, float and double.
template <class T>
void attention_backward(const T* dy, const T* q, const T* k, const T* v, const T* y,
                        const accumulate_t<T>* lse, const accumulate_t<T>* dlse,
                        accumulate_t<T>* scratch, T* dq, T* dk, T* dv,
                        const ScoreTerms<accumulate_t<T>>& terms,
                        const ScoreTermSums<accumulate_t<T>>& sums, const AttentionProblem& problem,
                        cudaStream_t stream);

// The number of tiles in ScoreTermSums::offsets.
template <class T>
int64_t attention_tiles(const AttentionProblem& problem);

// Room for the squared norms of q and k, which only the distance on tensor cores needs.
template <class T>
int attention_scratch(const AttentionProblem& problem);

}  // namespace circulant
