// The parameters of the kernels: the boundary between the files that use torch and the kernels,
// which are compiled once per instruction set.
//
// Both sides include this header, compiled for different processors. So it holds plain data only,
// and its functions are always inlined.
#pragma once

#include <cstdint>

#include "../common/geometry.h"

namespace circulant {

enum class Dtype { kFloat16, kBFloat16, kFloat32, kFloat64 };

// Tensors are contiguous and not empty. Every dim of the geometry but the first has more than one
// pixel, unless the whole grid is one pixel.

struct Span {
  int64_t begin, end;

  CIRCULANT_INLINE int64_t size() const { return end - begin; }
};

// The queries that one call of a kernel computes: a box of the three spatial dims, in one group.
struct WorkItem {
  int64_t group;
  Span planes, rows, columns;
};

// values = similarity(x, y), the dot product or the distance.
struct SimilarityParams {
  Geometry geometry;
  Dtype dtype;
  int64_t channels;
  bool distance;
  const void *x, *y;
  void* values;
};

// y = A x, or y = A^T x.
struct ProductParams {
  Geometry geometry;
  Dtype dtype;
  int64_t channels;
  const void *values, *x;
  void* y;
};

// result = A^T in CSR order. Elements are copied bit by bit.
struct TransposeParams {
  Geometry geometry;
  Dtype dtype;
  const void* values;
  void* result;
};

// y, lse = attention(q, k, v). v and y have `value_channels`.
struct AttentionParams {
  Geometry geometry;
  Dtype dtype;
  int64_t channels, value_channels;
  bool distance;
  double scale;
  const void *q, *k, *v;
  void *y, *lse;
};

// dq, dk, dv from dy and the inputs and outputs of attention; `scale` multiplies the similarity.
// The elements of dk and dv have the type of the sums. `dk_initialized` and `dv_initialized` hold a
// byte per row of every group's grid: 1 where the row of dk or dv holds a sum, 0 where it is
// undefined.
struct AttentionBackwardParams {
  Geometry geometry;
  Dtype dtype;
  int64_t channels, value_channels;
  bool distance;
  double scale;
  const void *dy, *q, *k, *v, *y, *lse;
  void *dq, *dk, *dv;
  uint8_t *dk_initialized, *dv_initialized;
};

// result_ij = weights_ij (grad_ij - sum_k weights_ik grad_ik), for rows of `width` entries. An item
// is a span of rows.
struct SoftmaxBackwardParams {
  Dtype dtype;
  int64_t width;
  const void *grad, *weights;
  void* result;
};

}  // namespace circulant
