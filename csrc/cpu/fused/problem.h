// What the engines are asked to do, for the files that know torch and the files that know vectors.
//
// Both include this, compiled for different processors: it holds plain data only, and its functions
// are always inlined.
#pragma once

#include <cstdint>

#include "../engine.h"

namespace circulant::fused {

struct Span {
  int64_t begin, end;

  CIRCULANT_INLINE int64_t size() const { return end - begin; }
};

// The queries of one task: spans of the three spatial dims, of one group.
struct Chunk {
  int64_t group;
  Span planes, rows, columns;
};

// y, lse = attention(q, k, v). Tensors are contiguous (G, C, *spatial); v and y have
// `value_channels`.
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

}  // namespace circulant::fused
