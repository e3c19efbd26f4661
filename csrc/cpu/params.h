// The parameters of the kernels: the boundary between the files that use torch and the kernels,
// which are compiled once per instruction set.
//
// Both sides include this header, compiled for different processors. So it holds plain data only,
// and its functions are always inlined.
#pragma once

#include <cstdint>

#include "../common/geometry.h"
#include "../common/integers.h"

namespace circulant {

enum class Dtype { kFloat16, kBFloat16, kFloat32, kFloat64 };

// Tensors are contiguous and not empty.

struct Span {
  int64_t begin, end;

  CIRCULANT_INLINE int64_t size() const { return end - begin; }
};

// Part `i` of `parts` nearly equal ones that begin at multiples of `multiple`.
CIRCULANT_INLINE Span part_of(int64_t size, int64_t i, int64_t parts, int64_t multiple = 1) {
  const int64_t count = divide_up(size, multiple), end = count * (i + 1) / parts * multiple;
  return {count * i / parts * multiple, end < size ? end : size};
}

// The queries that one call of a kernel computes: a box of the three spatial dims, in one group.
// Planes and rows are those of one class each, numbered in it.
struct WorkItem {
  int64_t group;
  Span planes, rows, columns;
  int64_t plane_class = 0, row_class = 0;
};

// The pattern of the planes and rows of an item's classes, which have no dilation, and the columns.
CIRCULANT_INLINE Geometry geometry_of_classes(const Geometry& g, const WorkItem& item) {
  Geometry result = g;
  result.dims[0] = g.dims[0].of_class(item.plane_class);
  result.dims[1] = g.dims[1].of_class(item.row_class);
  return result;
}

// The pairs of queries and keys that one call of attention_backward computes: the queries of an
// item, and the keys in their windows that are in some planes and rows and at some offsets along
// columns.
struct PairItem {
  WorkItem queries;
  // Numbered as the planes and rows of the queries, and not wrapped around the grid.
  Span key_planes, key_rows;
  Span offsets;
  // Whether to add to dq instead of storing.
  bool add_dq;
  // The key rows whose dk and dv are stored; to those of the others the item adds.
  Span stored_rows;
  // The number of its block of queries in all groups.
  int64_t block = 0;
};

// values = similarity(x, y), the dot product or the distance.
struct SimilarityParams {
  using Item = WorkItem;
  Geometry geometry;
  Dtype dtype;
  int64_t channels;
  bool distance;
  const void *x, *y;
  void* values;
};

// values = row softmax of scale * similarity(x, y).
struct AdjacencyParams {
  using Item = WorkItem;
  Geometry geometry;
  Dtype dtype;
  int64_t channels;
  bool distance;
  double scale;
  const void *x, *y;
  void* values;
};

// y = A x, or y = A^T x. The geometry is that of A.
struct ProductParams {
  using Item = WorkItem;
  Geometry geometry;
  Dtype dtype;
  int64_t channels;
  const void *values, *x;
  void* y;
};

// result = A^T in CSR order. The geometry is that of A. Elements are copied bit by bit.
struct TransposeParams {
  using Item = WorkItem;
  Geometry geometry;
  Dtype dtype;
  const void* values;
  void* result;
};

// What is added to the scores, in the type of the sums; null for nothing.
struct Biases {
  // (heads, K): group g has row g % heads. And (rows, pixels of the keys): row g / groups_per_row.
  const void *offsets = nullptr, *keys = nullptr;
  int64_t heads = 1, groups_per_row = 1;

  CIRCULANT_INLINE bool any() const { return offsets != nullptr || keys != nullptr; }
};

// y, lse = attention(q, k, v). v and y have `value_channels`.
struct AttentionParams {
  using Item = WorkItem;
  Geometry geometry;
  Dtype dtype;
  int64_t channels, value_channels;
  bool distance;
  double scale;
  const void *q, *k, *v;
  void *y, *lse;
  Biases biases = {};
};

// dq, dk, dv from dy and the inputs and outputs of attention; `scale` multiplies the similarity.
// The elements of dq, dk and dv have the type of the sums.
struct AttentionBackwardParams {
  using Item = PairItem;
  Geometry geometry;
  Dtype dtype;
  int64_t channels, value_channels;
  bool distance;
  double scale;
  const void *dy, *q, *k, *v, *y, *lse;
  void *dq, *dk, *dv;
  Biases biases = {};
  const void* dlse = nullptr;  // null for zeros
  // Of the gradients of the scores: (blocks, K), to which items add the sums over their queries,
  // and (G, pixels of the keys). Null if the biases are.
  void *offset_sums = nullptr, *key_sums = nullptr;
};

// result_ij = weights_ij (grad_ij - sum_k weights_ik grad_ik), for rows of `width` entries. An item
// is a span of rows.
struct SoftmaxBackwardParams {
  using Item = WorkItem;
  Dtype dtype;
  int64_t width;
  const void *grad, *weights;
  void* result;
};

}  // namespace circulant
