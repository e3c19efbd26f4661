// Sums beside the two products of fused attention: over channels, and over tiles.
//
// One thread per pixel sums over channels. Over tiles, or groups with the same terms, each warp of
// a block sums some rows of 32 columns; the sums of the warps are added in their order. No atomics:
// results are bitwise reproducible.
#include <algorithm>
#include <cmath>

#include "attention_mma.h"
#include "attention_sums.h"
#include "launch.h"

namespace circulant {
namespace {

constexpr int kDeltaThreads = 256;
constexpr int kMostRowWarps = 32;

// sums[i] = sum_c x[c, i] y[c, i]; with terms, delta and lse of attention_sums.h.
template <class T, bool has_terms>
__global__ void __launch_bounds__(kDeltaThreads)
    attention_delta_kernel(const T* __restrict__ x, const T* __restrict__ y,
                           accumulate_t<T>* __restrict__ sums, int channels, int64_t N,
                           int64_t groups, const QueryNumbers<accumulate_t<T>> queries) {
  using A = accumulate_t<T>;
  const int64_t i = int64_t(blockIdx.x) * kDeltaThreads + threadIdx.x;
  if (i >= N) return;
  for (int64_t g = blockIdx.z; g < groups; g += gridDim.z) {
    A sum = 0;
    int64_t at = g * channels * N + i;
#pragma unroll 4
    for (int c = 0; c < channels; ++c) {
      sum += A(x[at]) * A(y[at]);
      at += N;
    }
    const int64_t query = g * N + i;
    if (has_terms) {
      if (queries.dlse != nullptr) sum -= queries.dlse[query];
      const A lse = queries.lse[query];
      queries.weight_lse[query] = lse == A(-INFINITY) ? A(INFINITY) : lse;
    }
    sums[query] = sum;
  }
}

template <class A>
__global__ void __launch_bounds__(32 * kMostRowWarps)
    sum_rows_kernel(const A* __restrict__ sums, A* __restrict__ result, int64_t rows, int64_t count,
                    int64_t width) {
  A* const of_warps = reinterpret_cast<A*>(dynamic_shared_memory);
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int64_t column = int64_t(blockIdx.x) * 32 + threadIdx.x % 32;
  for (int64_t r = blockIdx.z; r < rows; r += gridDim.z) {
    A sum = 0;
    if (column < width) {
      const A* from = sums + (r * count + warp) * width + column;
#pragma unroll 4
      for (int64_t i = warp; i < count; i += warps) {
        sum += *from;
        from += warps * width;
      }
    }
    of_warps[threadIdx.x] = sum;
    __syncthreads();  // the sum of each warp is complete
    if (warp == 0 && column < width) {
      for (int other = 1; other < warps; ++other) sum += of_warps[other * 32 + threadIdx.x];
      result[r * width + column] = sum;
    }
    __syncthreads();  // the sums have been read
  }
}

template <class T, bool has_terms>
void launch_delta(const char* op, const T* x, const T* y, accumulate_t<T>* sums, int channels,
                  const AttentionProblem& problem, const QueryNumbers<accumulate_t<T>>& queries,
                  cudaStream_t stream) {
  const int64_t N = problem.pattern.pixels();
  launch({op, divide_up(N, kDeltaThreads), problem.groups, kDeltaThreads, 0, stream},
         attention_delta_kernel<T, has_terms>, x, y, sums, channels, N, problem.groups, queries);
}

}  // namespace

template <class T>
void sum_products(const char* op, const T* x, const T* y, accumulate_t<T>* sums, int channels,
                  const AttentionProblem& problem, cudaStream_t stream) {
  launch_delta<T, false>(op, x, y, sums, channels, problem, {}, stream);
}

template <class T>
void sum_deltas(const char* op, const T* dy, const T* y,
                const QueryNumbers<accumulate_t<T>>& queries, accumulate_t<T>* delta, int channels,
                const AttentionProblem& problem, cudaStream_t stream) {
  launch_delta<T, true>(op, dy, y, delta, channels, problem, queries, stream);
}

template <class A>
void sum_rows(const char* op, const A* sums, A* result, int64_t rows, int64_t count, int64_t width,
              cudaStream_t stream) {
  const int threads = 32 * static_cast<int>(std::min<int64_t>(count, kMostRowWarps));
  launch({op, divide_up(width, 32), rows, threads, threads * sizeof(A), stream}, sum_rows_kernel<A>,
         sums, result, rows, count, width);
}

#define CIRCULANT_INSTANTIATE(T)                                                                  \
  template void sum_products(const char*, const T*, const T*, accumulate_t<T>*, int,              \
                             const AttentionProblem&, cudaStream_t);                              \
  template void sum_deltas(const char*, const T*, const T*, const QueryNumbers<accumulate_t<T>>&, \
                           accumulate_t<T>*, int, const AttentionProblem&, cudaStream_t);
CIRCULANT_INSTANTIATE(c10::Half)
CIRCULANT_INSTANTIATE(c10::BFloat16)
CIRCULANT_INSTANTIATE(float)
CIRCULANT_INSTANTIATE(double)

#define CIRCULANT_INSTANTIATE_SUMS(A) \
  template void sum_rows(const char*, const A*, A*, int64_t, int64_t, int64_t, cudaStream_t);
CIRCULANT_INSTANTIATE_SUMS(float)
CIRCULANT_INSTANTIATE_SUMS(double)

}  // namespace circulant
