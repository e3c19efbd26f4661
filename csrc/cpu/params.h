// What the engines are asked to do, for the files that know torch and the files that know vectors.
//
// Both include this, compiled for different processors: it holds plain data only, and its functions
// are always inlined.
#pragma once

#include <cstdint>

#include "../common/geometry.h"

namespace circulant {

enum class Dtype { kFloat16, kBFloat16, kFloat32, kFloat64 };

// Tensors are contiguous and not empty. A dim of the geometry that is not the first has more than
// one pixel.

struct Span {
  int64_t begin, end;

  CIRCULANT_INLINE int64_t size() const { return end - begin; }
};

// The queries of one task: spans of the three spatial dims, of one group.
struct Chunk {
  int64_t group;
  Span planes, rows, columns;
};

// values = similarity(x, y), the dot product or the distance.
struct Similarity {
  Geometry geometry;
  Dtype dtype;
  int64_t channels;
  bool distance;
  const void *x, *y;
  void* values;
};

// y = values x, or y = values^T x.
struct Product {
  Geometry geometry;
  Dtype dtype;
  int64_t channels;
  const void *values, *x;
  void* y;
};

// result = values^T in CSR order. Nothing is rounded: elements are moved bit by bit.
struct Transpose {
  Geometry geometry;
  Dtype dtype;
  const void* values;
  void* result;
};

// y, lse = attention(q, k, v). v and y have `value_channels`.
struct Attention {
  Geometry geometry;
  Dtype dtype;
  int64_t channels, value_channels;
  bool distance;
  double scale;
  const void *q, *k, *v;
  void *y, *lse;
};

// dq, dk, dv from dy and what `Attention` took and gave; `scale` multiplies the similarity. dk and
// dv are kept in the type of the sums. The bytes say, for every row of every group's grid, whether
// the row of dk or dv holds a sum already; if not, it may be undefined.
struct AttentionBackward {
  Geometry geometry;
  Dtype dtype;
  int64_t channels, value_channels;
  bool distance;
  double scale;
  const void *dy, *q, *k, *v, *y, *lse;
  void *dq, *dk, *dv;
  uint8_t *dk_touched, *dv_touched;
};

}  // namespace circulant
