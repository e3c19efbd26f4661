// What the ops share between checking arguments and running an engine.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "../common/arguments.h"
#include "../common/dtype.h"
#include "engine.h"
#include "instruction_set.h"
#include "tasks.h"

namespace circulant {

inline Dtype dtype_of(TypeTag<c10::Half>) { return Dtype::kFloat16; }
inline Dtype dtype_of(TypeTag<c10::BFloat16>) { return Dtype::kBFloat16; }
inline Dtype dtype_of(TypeTag<float>) { return Dtype::kFloat32; }
inline Dtype dtype_of(TypeTag<double>) { return Dtype::kFloat64; }

inline Dtype checked_dtype(const Tensor& x, const char* op) {
  Dtype dtype{};
  visit_dtype(x.scalar_type(), op, [&](auto tag) { dtype = dtype_of(tag); });
  return dtype;
}

inline Tensor contiguous_of(const Tensor& x) {
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

// The same pattern in fewer and longer dims: dims of one pixel go, and neighbouring dims without a
// window are one. Rows and columns keep their numbers.
inline Geometry simplified(const Geometry& g) {
  Geometry result{{1, 1, 1}, {1, 1, 1}};
  int to = kSpatialDims;
  for (int d = kSpatialDims - 1; d >= 0; --d) {
    if (g.size[d] == 1) continue;
    const bool merge = to < kSpatialDims && g.window[d] == 1 && result.window[to] == 1;
    if (!merge) --to;
    result.size[to] *= g.size[d];
    result.window[to] *= g.window[d];
  }
  return result;
}

// What attention and its backward are asked about.
struct FusedShape {
  Geometry geometry;
  int64_t groups, channels, value_channels;
  Dtype dtype;
};

inline FusedShape checked_fused(const Tensor& q, const Tensor& k, const Tensor& v,
                                const std::vector<int64_t>& window, const char* op) {
  check_same_dtype(q, k, op);
  check_same_dtype(q, v, op);
  check_same_shape(q, k, op);
  const Geometry geometry = checked_geometry(q, window, op);
  STD_TORCH_CHECK(v.dim() == q.dim() && v.size(0) == q.size(0), op,
                  ": v must have the dims and the groups of q");
  for (int64_t d = 2; d < q.dim(); ++d) {
    STD_TORCH_CHECK(v.size(d) == q.size(d), op, ": v must have the spatial size of q");
  }
  STD_TORCH_CHECK(q.size(1) > 0 && v.size(1) > 0, op, ": expected channels, got none");
  return {geometry, q.size(0), q.size(1), v.size(1), checked_dtype(q, op)};
}

// The dtype that sums over tensors like `x` are kept in.
inline torch::headeronly::ScalarType sum_type(const Tensor& x) {
  using torch::headeronly::ScalarType;
  const ScalarType type = x.scalar_type();
  return type == ScalarType::Half || type == ScalarType::BFloat16 ? ScalarType::Float : type;
}

}  // namespace circulant
