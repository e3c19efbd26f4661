// Tensors of the ops: contiguous inputs, outputs, dtypes and geometry as kernels take them.
#pragma once

#include <cstdint>
#include <vector>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "../common/checks.h"
#include "../common/dtype.h"
#include "params.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

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

// An uninitialized tensor on the device of `x`. Requests huge pages: fewer page faults on fresh
// outputs.
inline Tensor new_output(const Tensor& x, torch::headeronly::IntHeaderOnlyArrayRef sizes,
                         torch::headeronly::ScalarType dtype) {
  Tensor output = torch::stable::new_empty(x, sizes, dtype);
#if defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t page = std::uintptr_t{1} << 21;
  const auto begin = reinterpret_cast<std::uintptr_t>(output.mutable_data_ptr());
  const std::uintptr_t first = (begin + page - 1) / page * page;
  const std::uintptr_t last = (begin + output.numel() * output.element_size()) / page * page;
  // Best effort; failure is harmless.
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
  return output;
}
inline Tensor new_output(const Tensor& x, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  return new_output(x, sizes, x.scalar_type());
}

// Sums over tensors like `x`, in their type: zeros or uninitialized.
inline Tensor new_sums(const Tensor& x, torch::headeronly::IntHeaderOnlyArrayRef sizes,
                       bool zeros) {
  Tensor sums = new_output(x, sizes, sum_type(x));
  if (zeros) torch::stable::zero_(sums);
  return sums;
}

// The same matrix as a grid of fewer and longer dims: without dims of one pixel, and with adjacent
// dims without a window merged. Rows and columns keep their numbers.
//
// A valid dim of one pixel may be a shard of a longer one. It stays, so that the offsets of a shard
// are in the same dims as those of the whole grid, and sums have the same order.
inline Geometry simplified(const Geometry& g) {
  Geometry result({1, 1, 1}, {1, 1, 1});
  int to = kSpatialDims;
  for (int d = kSpatialDims - 1; d >= 0; --d) {
    const Dim& dim = g.dims[d];
    if (dim.window > 1) {
      result.dims[--to] = dim;
    } else if (dim.size > 1 || !dim.circular) {
      if (to == kSpatialDims || result.dims[to].window > 1) --to;
      const int64_t size = result.dims[to].size * dim.size;
      result.dims[to] = {size, size, 0, 1, 1, true};
    }
  }
  return result;
}

// The sizes and the dtype of attention.
struct AttentionShape {
  Geometry geometry;
  int64_t groups, channels, value_channels;
  Dtype dtype;
};

inline AttentionShape checked_shape(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const std::vector<int64_t>& window, const char* op) {
  const Geometry geometry = checked_attention(q, k, v, window, op);
  return {geometry, q.size(0), q.size(1), v.size(1), checked_dtype(q, op)};
}

}  // namespace circulant
