// What the ops share between checking arguments and running an engine.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include "../common/arguments.h"
#include "engine.h"
#include "instruction_set.h"
#include "tasks.h"

namespace circulant {

inline Dtype checked_dtype(const Tensor& x, const char* op) {
  using torch::headeronly::ScalarType;
  switch (x.scalar_type()) {
    case ScalarType::Half:
      return Dtype::kFloat16;
    case ScalarType::BFloat16:
      return Dtype::kBFloat16;
    case ScalarType::Float:
      return Dtype::kFloat32;
    case ScalarType::Double:
      return Dtype::kFloat64;
    default:
      STD_TORCH_CHECK(false, op, ": dtype ", torch::headeronly::toString(x.scalar_type()),
                      " is not one of float16, bfloat16, float32, float64");
  }
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

}  // namespace circulant
